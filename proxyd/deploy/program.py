"""The program that a unit starts: the interpreter and the copy of proxyd that run right now."""

import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import proxyd

# What PrivateTmp= hides from the service, and what ProtectHome=yes does.
_HIDDEN: Final = ("/tmp", "/var/tmp")  # noqa: S108 (nothing is made there)
_HOMES: Final = ("/home", "/root", "/run/user")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./+:@=-]+")
# The first three systemd refuses in the name of a program, and the last one stands for variables.
_UNSPEAKABLE: Final = frozenset("\"'\\$")
_PATIENCE_S: Final = 30
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class UnfitProgram(Exception):
    """A service could not start this; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Program:
    """A command line, and all paths that it needs to see."""

    words: tuple[str, ...]
    paths: tuple[str, ...]

    @property
    def in_a_home(self) -> str | None:
        """The first path that is in somebody's home directory."""
        return next((path for path in self.paths if _below(path, _HOMES)), None)

    def changeable(self) -> str | None:
        """Who besides root can change what root is to run; None if nobody."""
        for path in self.paths:
            for each in (Path(path), *Path(path).parents):
                found = each.stat()
                if found.st_uid != 0:
                    return f"{each} belongs to uid {found.st_uid}"
                if found.st_mode & _OTHERS_MAY_WRITE and not found.st_mode & stat.S_ISVTX:
                    return f"{each} has mode {stat.S_IMODE(found.st_mode):04o}"
        return None


def this_program() -> Program:
    """How a service starts what runs here. Raises UnfitProgram."""
    # -I: neither the directory nor PYTHON… of an environment file decide which code root runs.
    words = (sys.executable, "-I", "-m", "proxyd")
    package = os.path.dirname(proxyd.__file__)
    mentioned = (sys.executable, sys.prefix, sys.base_prefix, package)
    paths = dict.fromkeys([*mentioned, *map(os.path.realpath, mentioned)])
    program = Program(words, tuple(paths))
    _demand_visible(program)
    _demand_running(program)
    return program


def named_program(path: str) -> Program:
    """One that need not be there yet; whoever names it answers for it. Raises UnfitProgram."""
    if not os.path.isabs(path):
        raise UnfitProgram(f"--program {path}: systemd wants an absolute path")
    program = Program((path,), ())
    command_line(program)
    return program


def command_line(program: Program) -> str:
    """The program as ExecStart= wants it. Raises UnfitProgram."""
    return " ".join(_quoted(word) for word in program.words)


def _quoted(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    if not word.isprintable() or _UNSPEAKABLE.intersection(word):
        raise UnfitProgram(
            f"systemd cannot be given the path {word!r}: move it to one without quotation marks,"
            " backslashes, dollar signs and control characters"
        )
    return '"' + word.replace("%", "%%") + '"'


def _demand_visible(program: Program) -> None:
    for path in program.paths:
        if _below(path, _HIDDEN):
            raise UnfitProgram(
                f"{path} is a temporary file, which the service would not see: install proxyd"
                " elsewhere and run this again from there (python3 -m venv /opt/proxyd;"
                " /opt/proxyd/bin/pip install …)"
            )


def _demand_running(program: Program) -> None:
    """As a service would start it: from / and without an environment."""
    try:
        tried = subprocess.run(
            [*program.words, "--version"],
            cwd="/",
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnfitProgram(f"{program.words[0]} does not run: {error}") from error
    if tried.returncode != 0:
        said = tried.stderr.strip().rpartition("\n")[2]
        raise UnfitProgram(
            f"a service could not start {' '.join(program.words)}: {said}; install proxyd into"
            " this Python (pip install …), since a service has no PYTHONPATH"
        )


def _below(path: str, directories: tuple[str, ...]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in directories)
