"""proxyd switch: prints what brings the host into the other mode, and on request runs it."""

import argparse
import os
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from proxyd.doctor.gather import count_guests, look_at_programs, look_at_units
from proxyd.doctor.state import Mode
from proxyd.doctor.switch_recipe import NoRecipe, Order, Recipe, SwitchHost, recipe

DESCRIPTION: Final = (
    "Prints the commands of libvirt's documentation (https://libvirt.org/daemons.html) that bring"
    " this host into the other mode, with what is already so left out, and after a question runs"
    " them one by one. Guests go on running."
)
EPILOG: Final = """\
examples:
  proxyd switch --to modular --dry-run     what would be done, to be read or pasted
  proxyd switch --to modular               the same, with a question, and then done
  proxyd switch --to monolithic --yes      without the question

It ends at the first command that fails. Started again it goes on from there.
exit status: 0 done, nothing to do, or only printed; 1 anything else.
"""

_FAILED: Final = 1
_WIDTH: Final = 80
_INDENT: Final = "    "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `proxyd switch`."""
    parser.add_argument(
        "--to",
        choices=[Mode.MODULAR.value, Mode.MONOLITHIC.value],
        required=True,
        help="modular: virtqemud and its kin behind the proxy; monolithic: libvirtd alone",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="only print the commands")
    how.add_argument("--yes", action="store_true", help="run them without asking")


def run(arguments: argparse.Namespace) -> int:
    """Prints, asks, runs. Returns the exit status."""
    units, no_systemd = look_at_units()
    if no_systemd:
        return _complain(f"{no_systemd}; there is nothing to switch without systemd")
    host = SwitchHost(units=units, programs=look_at_programs(), guests=count_guests())
    try:
        made = recipe(host, Mode(arguments.to))
    except NoRecipe as error:
        return _complain(str(error))
    if not made.orders:
        print(f"# This host is {made.to} already: there is nothing to do.")
        return 0
    print(spelled(made), end="", flush=True)
    if arguments.dry_run:
        return 0
    if os.geteuid() != 0:
        return _complain("only root may do this; nothing was changed")
    if not arguments.yes and not _agreed(len(made.orders)):
        return _FAILED
    return _carry_out(made)


def spelled(made: Recipe) -> str:
    """The recipe as a script for root's shell, one that does what `run` does."""
    lines = [line for remark in made.remarks for line in _comment(remark)]
    for order in made.orders:
        lines += ["", *_comment(order.why), *folded(order.words)]
    return "\n".join(lines) + "\n"


def folded(words: Sequence[str]) -> Iterator[str]:
    """A command in lines of at most 80 columns, as long as no word is longer."""
    line = ""
    for word in map(shlex.quote, words):
        if line and len(f"{line} {word} \\") > _WIDTH:
            yield f"{line} \\"
            line = _INDENT + word
        else:
            line = f"{line} {word}" if line else word
    yield line


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        _complain("there is nobody to ask; use --yes to run this, --dry-run to print it")
        return False
    what = "this command" if count == 1 else f"these {count} commands"
    try:
        answer = input(f"\nRun {what} now? [y/N] ")
    except (EOFError, KeyboardInterrupt):
        answer = ""
        print()
    if answer.strip().lower() in {"y", "yes"}:
        return True
    print("Nothing was changed.")
    return False


def _carry_out(made: Recipe) -> int:
    """One command after the other, each with the terminal for itself."""
    for number, order in enumerate(made.orders):
        print(f"\n[{number + 1}/{len(made.orders)}] {shlex.join(order.words)}", flush=True)
        failure = _failure_of(order)
        if failure:
            _complain(f"{order.words[0]} {order.words[1]} {failure}")
            print("\n".join(_after_failure(made, number)), file=sys.stderr)
            return _FAILED
    print(f"\nThis host is {made.to} now. See for yourself: proxyd doctor")
    return 0


def _failure_of(order: Order) -> str:
    try:
        status = subprocess.run(order.words, check=False).returncode
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    except KeyboardInterrupt:
        return "was interrupted"
    return f"ended with status {status}" if status else ""


def _after_failure(made: Recipe, done: int) -> Iterator[str]:
    """Where the host is now, and both ways out."""
    if done:
        yield f"Done before it ({done} of {len(made.orders)}):"
        yield from (f"  {shlex.join(order.words)}" for order in made.orders[:done])
    else:
        yield "Nothing was done before it."
    back = Mode.MONOLITHIC if made.to is Mode.MODULAR else Mode.MODULAR
    yield "To see why:    systemctl status; journalctl -b -n 50"
    yield f"To go on:      proxyd switch --to {made.to}"
    yield f"To go back:    proxyd switch --to {back}"


def _complain(message: str) -> int:
    print(f"proxyd: {message}", file=sys.stderr)
    return _FAILED
