"""What a subcommand is: its words for the one argument parser, and what it does.

A command's module is loaded when the command is used: the daemon itself needs none of them.
"""

import argparse
import importlib
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proxyd.cli.parser import Parser
from proxyd.daemon.places import Places
from proxyd.process.exit_status import Exit

_WIDTH: Final = 79


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`act` returns the exit status; `misused` is the one for a command line that is wrong.

    One that `parses` by itself finds all behind its name in `words`; its arguments are added for
    those alone who write about the command line.
    """

    name: str
    description: str
    epilog: str
    add_arguments: Callable[[argparse.ArgumentParser, Places], None]
    act: Callable[[argparse.Namespace, Places], int]
    parses: bool = False
    misused: int = Exit.FAILED


@dataclass(frozen=True, slots=True)
class Named:
    """A command's name, its line in `proxyd --help`, and the module that has it."""

    name: str
    summary: str
    module: str

    def load(self) -> Command:
        found = getattr(importlib.import_module(self.module), self.name.upper())
        assert isinstance(found, Command)
        return found


_HOST: Final = "proxyd.cli.host_commands"
COMMANDS: Final = (
    Named("status", "how the daemon that runs here is", "proxyd.cli.status"),
    Named("clients", "who is connected, and what they do", "proxyd.cli.status"),
    Named("top", "the sessions that do most right now", "proxyd.cli.top"),
    Named("metrics", "its figures, as Prometheus reads them", "proxyd.cli.metrics"),
    Named("kick", "end the sessions of clients", "proxyd.cli.status"),
    Named("reload", "read the configuration again", "proxyd.cli.reload"),
    Named("drain", "let in nobody new, and wait until nobody is left", "proxyd.cli.drain"),
    Named("upgrade", "hand over to the program that is installed now", "proxyd.cli.upgrade"),
    Named("audit", "who did what to which guest", "proxyd.cli.audit"),
    Named("rules", "say who may do what, and which rule decides", "proxyd.cli.rules"),
    Named("certs", "make, revoke and check certificates for TLS", "proxyd.cli.certs"),
    Named("passwd", "set the password of a SASL user", "proxyd.cli.passwd"),
    Named("doctor", "say what state this host is in, and what mends it", _HOST),
    Named("switch", "switch between libvirtd and the modular daemons", _HOST),
    Named(
        "install",
        "put the systemd units and the rest of the service in place",
        _HOST,
    ),
    Named("uninstall", "remove what install has put in place", _HOST),
)


class CommandParser(Parser):
    """A command's parser, which gets its words when it is asked to parse, or by `learn`."""

    named: Named
    places: Places
    _knows = False

    def learn(self) -> None:
        if self._knows:
            return
        self._knows = True
        command = self.named.load()
        # Epilogues have lines of their own, so argparse is told to leave texts as they are.
        self.description = textwrap.fill(command.description, _WIDTH)
        self.epilog = command.epilog
        self.misused = command.misused
        command.add_arguments(self, self.places)
        self.set_defaults(command=command, parser=self)

    def parse_known_args(  # type: ignore[override]  # the base class has overloads
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        command = self.named.load()
        if command.parses:
            given = argparse.Namespace() if namespace is None else namespace
            given.command, given.words = command, list(args or ())
            return given, []
        self.learn()
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:  # or the parser above would complain, with its own usage
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def add_commands(parser: argparse.ArgumentParser, places: Places, *, whole: bool) -> None:
    """All of them; `whole` with all their words, for those who write about the command line."""
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(
        title="commands",
        metavar="COMMAND",
        description="Without one, proxyd is the daemon itself.",
        parser_class=CommandParser,
    )
    for named in COMMANDS:
        own = commands.add_parser(
            named.name,
            help=named.summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        own.named, own.places = named, places
        if whole:
            own.learn()
