"""proxyd rules apply: the rules are read again, and open sessions are held to them if that is
asked for."""

import argparse
import json
from typing import Final

from proxyd.admin import document
from proxyd.cli.admin_client import NoAnswer, Refusal
from proxyd.cli.parser import complain
from proxyd.cli.whereabouts import add_where, reach, whereabouts
from proxyd.config.quoting import one_line
from proxyd.daemon.places import Places
from proxyd.invocation import pasteable
from proxyd.process.exit_status import Exit

EPILOG: Final = """\
All of the configuration is read again, as `proxyd reload` does; new sessions go by the rules from
then on. Open ones go on as they are, and it says which of them the rules would end or hold to
something else. With --now that is done: whom no rule lets in is ended, all others may do what their
rule says from the next call on. Who has opened a read-only connection keeps it until it opens
another one.

exit status: 0 the rules are in force; 1 nothing was changed, or the daemon was not reached.
"""

_DONE: Final = {"refused": "ended", "changed": "changed", "moved": "ended"}
_TO_DO: Final = {"refused": "would be ended", "changed": "would change", "moved": "would be ended"}


def add_arguments(parser: argparse.ArgumentParser, places: Places) -> None:
    add_where(parser, places)
    parser.add_argument("--now", action="store_true", help="hold open sessions to the rules, too")
    parser.add_argument("--json", action="store_true", help="for machines: what was done")


def act(arguments: argparse.Namespace, places: Places) -> int:
    try:
        with reach(whereabouts(arguments, places)) as connection:
            applied = connection.apply_rules(now=arguments.now)
    except Refusal as refusal:
        complain(f"the rules were not applied, {refusal}")
    except (NoAnswer, document.Unreadable) as error:
        complain(str(error))
    else:
        if arguments.json:
            print(json.dumps(document.written(applied)))
        else:
            _show(applied)
        return Exit.OK
    return Exit.FAILED


def _show(applied: document.Applied) -> None:
    print(applied.reloaded)
    if applied.rules is None:
        print("there are no rules: whoever is let in may do everything (see proxyd_rules_file)")
    words = _DONE if applied.done else _TO_DO
    for each in applied.sessions:
        now = one_line(f"{each.now} (was: {each.before})")
        print(f"{each.id} {words.get(each.change, each.change)}: {one_line(each.who)}: {now}")
    more = applied.count - len(applied.sessions)
    if more > 0:
        print(f"and {more} more")
    print(_summary(applied))


def _summary(applied: document.Applied) -> str:
    if not applied.count:
        return f"all {applied.open} open sessions are as the rules have them"
    if applied.done:
        return f"{applied.count} sessions were not as the rules have them, and are now or are ended"
    command = pasteable("proxyd rules apply --now")
    return (
        f"{applied.count} of {applied.open} open sessions go on as they are; to change: {command}"
    )
