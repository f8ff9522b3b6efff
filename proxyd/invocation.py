"""How the program that runs here is called by somebody who pastes its name into a shell.

Texts name it `proxyd`, which is true where that is on the PATH. In a virtual environment or a
checkout it is not, and `python -m proxyd` takes a folder of that name in the current directory for
the package. So whoever prints a text gives it to `pasteable` last.
"""

import functools
import os
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_NAME: Final = "proxyd"
# As it stands in front of a command of its own, or of an option: elsewhere it is a word of prose.
_COMMAND: Final = re.compile(
    r"(?<![\w./-])proxyd"
    r" (?:(?P<asks>status|clients|top|metrics|kick|reload|drain|upgrade|rules apply)\b"
    r"(?P<named> (?:-s|--socket|-f|--config)\b)?"
    r"|(?=certs|passwd|doctor|switch|install|uninstall|audit|rules|-))"
)

_EXAMPLE: Final = re.compile(r"(?<=^  )proxyd(?= )")


def pasteable(text: str) -> str:
    """The text with commands of ours that work in any shell and directory of this host."""
    return _COMMAND.sub(_spelled_out, text) if _NAME in text else text


def _spelled_out(found: re.Match[str]) -> str:
    asks = found["asks"]
    return f"{own_command()} {asks}{found['named'] or _named}" if asks else f"{own_command()} "


_named = ""


def name_the_daemon(option: str, value: str) -> None:
    """The daemon was named by this option: so it has to be in what is to be pasted."""
    global _named  # noqa: PLW0603 (one command line for each process)
    _named = f" {option} {shlex.quote(value)}"


def pasteable_examples(help_text: str) -> str:
    """The same for what stands below `examples:` in a help text, where lines begin with us."""
    before, heading, examples = help_text.partition("\nexamples:\n")
    lines = (_EXAMPLE.sub(lambda _: own_command(), line) for line in examples.split("\n"))
    return before + heading + "\n".join(lines)


@functools.cache
def own_command() -> str:
    """`proxyd` if a shell finds this one by that name, else its path, else the interpreter's."""
    by_name = shutil.which(_NAME)
    for program in _programs():
        if by_name is not None and os.path.samefile(by_name, program):
            return _NAME
        return shlex.quote(str(program))
    # -P: the current directory has no say in what is run.
    words = [sys.executable, "-P", "-m", _NAME]
    return shlex.join(["env", f"PYTHONPATH={Path(__file__).parents[1]}", *words])


def _programs() -> Iterator[Path]:
    """What may be this program's script, the one that was started first."""
    for found in (Path(sys.argv[0]), Path(sysconfig.get_path("scripts")) / _NAME):
        if found.name == _NAME and os.access(found, os.X_OK) and found.is_file():
            yield found.absolute()
