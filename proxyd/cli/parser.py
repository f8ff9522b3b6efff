"""argparse with the manners of this program: no sys.exit, and libvirt's status for a wrong line."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from proxyd.invocation import pasteable, pasteable_examples
from proxyd.log.journal import priority_of_error
from proxyd.process.exit_status import Exit

_STDERR: Final = 2


class Ended(Exception):
    """The command line has been dealt with: what argparse would exit with."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Parser(argparse.ArgumentParser):
    """Raises Ended instead of ending the process; `misused` is the status for a wrong line."""

    misused: int = Exit.FAILED

    def check_options(self, argv: Sequence[str]) -> None:
        """Complains of an option that does not exist before its value is taken for a command."""
        for word in argv:
            if not word.startswith("-"):
                return
            if word.startswith("--") and word.partition("=")[0] not in self._option_string_actions:
                self.error(f"unrecognized arguments: {word}")

    def format_help(self) -> str:
        return pasteable_examples(super().format_help())

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message:
            self._print_message(message, sys.stderr)
        raise Ended(status)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(self.misused, f"{self.prog}: error: {message} (try --help)\n")


def complain(message: str) -> None:
    """One line to whoever sits before it."""
    print(f"{priority_of_error(_STDERR)}proxyd: {pasteable(message)}", file=sys.stderr)
