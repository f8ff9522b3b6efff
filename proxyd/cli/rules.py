"""proxyd rules: whether the rules file is in order, and which of its lines decides about whom."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxyd.cli import rules_apply, rules_check, rules_explain
from proxyd.cli.commands import Command
from proxyd.cli.parser import Parser
from proxyd.daemon.places import Places
from proxyd.process.exit_status import Exit
from proxyd.process.health import Health

_EPILOG: Final = """\
The file is the one that proxyd_rules_file names, or FILE. docs/rules.md says how it reads.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verb:
    """`misused` is the exit status for a command line that is wrong."""

    name: str
    summary: str
    epilog: str
    add_arguments: Callable[[argparse.ArgumentParser, Places], None]
    act: Callable[[argparse.Namespace, Places], int]
    misused: int = Health.UNKNOWN


_VERBS: Final = (
    _Verb(
        name="check",
        summary="say what is wrong with the file, and what it says in words",
        epilog=rules_check.EPILOG,
        add_arguments=rules_check.add_arguments,
        act=rules_check.act,
    ),
    _Verb(
        name="explain",
        summary="say which line decides about a client, and why those before it do not",
        epilog=rules_explain.EPILOG,
        add_arguments=rules_explain.add_arguments,
        act=rules_explain.act,
    ),
    _Verb(
        name="apply",
        summary="have the daemon read the rules again, and open sessions be held to them",
        epilog=rules_apply.EPILOG,
        add_arguments=rules_apply.add_arguments,
        act=rules_apply.act,
        misused=Exit.FAILED,
    ),
)


def _add_arguments(parser: argparse.ArgumentParser, places: Places) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)
    for each in _VERBS:
        verb = verbs.add_parser(
            each.name,
            help=each.summary,
            description=f"{each.summary[0].upper()}{each.summary[1:]}.",
            epilog=each.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb.misused = each.misused
        each.add_arguments(verb, places)
        verb.set_defaults(verb=each)


def _act(arguments: argparse.Namespace, places: Places) -> int:
    verb = arguments.verb
    assert isinstance(verb, _Verb)
    return verb.act(arguments, places)


RULES: Final = Command(
    name="rules",
    description="The rules of who may open what, and do what there, tried before they are in"
    " force.",
    epilog=_EPILOG,
    add_arguments=_add_arguments,
    act=_act,
    misused=Health.UNKNOWN,
)
