"""proxyd audit: the records of who did what, those that somebody asks for."""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Final

from proxyd.audit.reading import (
    Fields,
    Unreadable,
    Wanted,
    local_time,
    moment,
    of_file,
    of_journal,
)
from proxyd.audit.record import object_in_words, who_in_words
from proxyd.cli.commands import Command
from proxyd.cli.parser import complain
from proxyd.daemon.audit_settings import asked_output
from proxyd.daemon.load_config import source_of
from proxyd.daemon.places import Places
from proxyd.process.exit_status import Exit, StartFailed

_EPILOG: Final = """\
examples:
  proxyd audit --since today                     what was done since midnight
  proxyd audit --object web1 --since 3d          to web1, in the last three days
  proxyd audit --user 'fred*' --event DOMAIN_*   which calls fred has made to guests
  proxyd audit --since 1h --json | jq 'select(.outcome == "error")'
  proxyd audit --follow                          as it happens, until Ctrl-C

TIME is a date and time (2026-11-29 12:30), a time of today (12:30), today, yesterday, or how long
ago (90s, 15m, 2h, 3d, 1w). Patterns may have * and ?. What is recorded, proxyd_audit says:
by default sessions, and no calls.
"""


def _add_arguments(parser: argparse.ArgumentParser, places: Places) -> None:
    add = parser.add_argument
    add("--user", metavar="PATTERN", help="user's name or uid, SASL name, or certificate's subject")
    add("--object", metavar="PATTERN", help="name or uuid of a guest, a network, a volume …")
    add("--daemon", dest="behind", metavar="PATTERN", help="the daemon behind, as virtqemud")
    add("--event", metavar="PATTERN", help="an event, as session_denied, or a call's name")
    add("--since", metavar="TIME", type=_moment, help="not before")
    add("--until", metavar="TIME", type=_moment, help="before")
    add("--json", action="store_true", help="one object a line, for machines")
    add("--follow", action="store_true", help="go on with what is recorded from now on")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-f",
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"configuration that says where records go (default {places.config_file})",
    )
    where.add_argument("--file", metavar="FILE", help="read this file instead")


def _moment(text: str) -> float:
    try:
        return moment(text, time.time())
    except (ValueError, OverflowError, OSError):
        said = f"a time such as 2026-11-29 12:30, 12:30, today or 2h expected, not {text!r}"
        raise argparse.ArgumentTypeError(said) from None


def _act(arguments: argparse.Namespace, places: Places) -> int:
    wanted = Wanted(
        user=arguments.user,
        obj=arguments.object,
        daemon=arguments.behind,
        event=arguments.event,
        since=arguments.since,
        until=arguments.until,
    )
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        found = filter(wanted.admits, _records(arguments, places))
        if arguments.json:
            for fields in found:
                print(json.dumps(fields, ensure_ascii=False), flush=arguments.follow)
        elif arguments.follow:
            for fields in found:
                print("  ".join(filter(None, _row(fields))), flush=True)
        else:
            _print_table(found)
        sys.stdout.flush()
    except (Unreadable, StartFailed) as error:
        complain(str(error))
        return Exit.FAILED
    except BrokenPipeError:
        # Whoever read it has seen enough. What is left goes where no flush can fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return Exit.OK


def _records(arguments: argparse.Namespace, places: Places) -> Iterator[Fields]:
    since, follow = arguments.since, arguments.follow
    if arguments.file is not None:
        if not os.path.exists(arguments.file):
            raise Unreadable(f"there is no file {arguments.file}")
        return of_file(os.path.abspath(arguments.file), since=since, follow=follow)
    settings = source_of(arguments.config, places, os.environ).load().settings
    output = asked_output(settings, places, os.getcwd())
    if output.kind == "syslog":
        raise Unreadable(
            f"records go to syslog ({output}), whose own files have them: give one with --file, if"
            " its lines are those records alone, or look there for the name of the program"
        )
    if output.kind == "journald":
        return of_journal(since=since, follow=follow)
    assert output.target is not None
    if not os.path.exists(output.target) and not follow:
        raise Unreadable(
            f"there is no {output.target}: nothing was recorded there yet (proxyd_audit,"
            " proxyd_audit_output), or name another file with --file"
        )
    return of_file(output.target, since=since, follow=follow)


def _print_table(found: Iterator[Fields]) -> None:
    from rich.table import Table  # noqa: PLC0415 (slow to load)
    from rich.text import Text  # noqa: PLC0415

    from proxyd.cli.screens import console  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("TIME", "WHO", "WHAT", "ON", "OUTCOME", "DETAIL"):
        table.add_column(column, overflow="fold", no_wrap=column == "TIME")
    count = 0
    for count, fields in enumerate(found, 1):  # noqa: B007 (how many there are)
        style = "" if fields.get("outcome", "ok") == "ok" else "bold red"
        table.add_row(*(Text(each, style=style) for each in _row(fields)))
    if not count:
        print("no such records")
        return
    screen = console()
    with screen.capture() as shown:
        screen.print(table)
    print("\n".join(line.rstrip() for line in shown.get().splitlines()))


def _row(fields: Fields) -> tuple[str, ...]:
    about = " ".join(filter(None, (str(fields.get("object", "")), object_in_words(fields))))
    detail = [str(fields.get("reason", ""))]
    if fields.get("event") == "call":
        detail = [f"session {fields.get('session', '?')}", f"{fields.get('seconds', 0):.3f} s"]
    elif "session" in fields:
        detail.insert(0, f"session {fields['session']}:")
    if "lost" in fields:
        detail.insert(0, f"{fields['lost']} records lost:")
    what = str(fields.get("procedure") or fields.get("event", ""))
    if fields.get("event") != "call":
        what = str(fields.get("event", ""))
    return (
        local_time(fields),
        who_in_words(fields),
        what,
        about,
        str(fields.get("outcome", "")),
        " ".join(filter(None, detail)),
    )


AUDIT: Final = Command(
    name="audit",
    description="Who did what to which guest: the records of sessions, of what was refused, of"
    " administrators, and of calls where they are recorded.",
    epilog=_EPILOG,
    add_arguments=_add_arguments,
    act=_act,
)
