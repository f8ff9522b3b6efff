"""A command line as its parser knows it, for those who write about it: man page, completion."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_LONGEST_LIST: Final = 60  # characters
_MANY: Final = (argparse.ZERO_OR_MORE, argparse.ONE_OR_MORE, argparse.REMAINDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option, or with no flags a positional argument. `value` is empty for a mere switch."""

    flags: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    meaning: str
    required: bool
    many: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command with its own options and the commands below it."""

    words: tuple[str, ...]
    description: str
    options: tuple[Option, ...]
    arguments: tuple[Option, ...]
    commands: "tuple[Command, ...]"
    epilog: str

    def all(self) -> "list[Command]":
        """This one and all below it."""
        return [self, *(each for command in self.commands for each in command.all())]


def described(parser: argparse.ArgumentParser) -> Command:
    """What the parser accepts."""
    return _described(parser, (parser.prog,))


def _described(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Command:
    actions = parser._actions  # noqa: SLF001 (argparse has no other list of them)
    shown = [each for each in actions if each.help is not argparse.SUPPRESS]
    plain = [_option(each, parser) for each in shown if not isinstance(each.choices, Mapping)]
    below = {
        name: below
        for action in shown
        if isinstance(action.choices, Mapping)
        for name, below in action.choices.items()
    }
    return Command(
        words=words,
        description=(parser.description or "") % {"prog": parser.prog},
        options=tuple(each for each in plain if each.flags),
        arguments=tuple(each for each in plain if not each.flags),
        commands=tuple(_described(parser, (*words, name)) for name, parser in below.items()),
        epilog=(parser.epilog or "") % {"prog": parser.prog},
    )


def _shown(choices: tuple[str, ...]) -> str:
    """What there is to choose from, if that fits into a line; the help text has it anyway."""
    listed = "|".join(choices)
    return listed if len(listed) <= _LONGEST_LIST else ""


def _option(action: argparse.Action, parser: argparse.ArgumentParser) -> Option:
    known = {**vars(action), "prog": parser.prog}
    choices = tuple(str(each) for each in action.choices or ())
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return Option(
        flags=tuple(action.option_strings),
        value="" if action.nargs == 0 else _shown(choices) or name,
        choices=choices,
        meaning=(action.help or "") % known,
        required=action.nargs not in {argparse.OPTIONAL, argparse.ZERO_OR_MORE},
        many=action.nargs in _MANY or isinstance(action.nargs, int),
    )
