"""The command: each verb prints what it did and what comes next.

Exit statuses: 0 done; 1 it cannot be done; 2 the command line makes no sense; 130 interrupted.
`check` has those of monitoring plugins: 0 all is well, 1 warnings, 2 problems, 3 it cannot be said.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from proxyd.config.quoting import one_line
from proxyd.invocation import pasteable
from proxyd.pki.fitness import Purpose

from . import advice, verdict
from .authority import Authority, utc_now
from .failures import CannotDo
from .inspection import inspect
from .ledger import Record, record_json
from .names import check_address
from .options import PROGRAM, attributes_in, parser
from .places import Places, flat, own_site, site_in, tree

OK: Final = 0
FAILED: Final = 1
WARNINGS: Final = 1
PROBLEMS: Final = 2
UNKNOWN: Final = 3
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    status = _run(words)
    if words[:1] == ["check"] and isinstance(status, _NotDone):
        return UNKNOWN
    return status


class _NotDone(int):
    """A status that tells of the command, and not of what it found."""


def _run(words: Sequence[str]) -> int:
    try:
        options = parser().parse_args(words)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a path may be in no encoding
        return _VERBS[options.verb](options)
    except SystemExit as ended:  # argparse's own way out
        return _NotDone(ended.code) if ended.code else OK
    except CannotDo as error:
        return _NotDone(_complain(str(error), FAILED))
    except BrokenPipeError:
        _give_up_stdout()  # `| head` has seen enough
        return OK
    except OSError as error:
        if error.filename is None:  # a full disk behind stdout
            _give_up_stdout()
        return _NotDone(_complain(f"{error.filename or 'stdout'}: {error.strerror}", FAILED))
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)


def _init(options: argparse.Namespace) -> int:
    authority = Authority.create(
        options.dir, name=options.name, key=options.key, days=options.days, force=options.force
    )
    return _say(advice.after_init(authority))


def _server(options: argparse.Namespace) -> int:
    issued = Authority.open(options.dir).server(
        options.name,
        names=[*options.dns, *map(check_address, options.ip)],
        attributes=attributes_in(options),
        key=options.key,
        days=options.days,
        to=_target(options),
        force=options.force,
    )
    return _say(advice.after_issue(issued))


def _client(options: argparse.Namespace) -> int:
    issued = Authority.open(options.dir).client(
        options.name,
        attributes=attributes_in(options),
        key=options.key,
        days=options.days,
        to=_target(options),
        force=options.force,
    )
    return _say(advice.after_issue(issued))


def _renew(options: argparse.Namespace) -> int:
    authority = Authority.open(options.dir)
    issued = authority.renew(
        options.which or authority.places.server.certificate, days=options.days
    )
    return _say(advice.after_issue(issued))


def _revoke(options: argparse.Namespace) -> int:
    revoked = Authority.open(options.dir).revoke(
        options.which, reason=options.reason, every=options.all, days=options.days
    )
    return _say(advice.after_revocation(revoked))


def _crl(options: argparse.Namespace) -> int:
    authority = Authority.open(options.dir)
    authority.refresh_list(days=options.days)
    return _say(advice.after_list(authority.places.crl))


def _list(options: argparse.Namespace) -> int:
    authority = Authority.open(options.dir)
    now = utc_now()
    records = authority.ledger().records
    if options.json:
        entries = [record_json(each) | {"state": each.state(now)} for each in records]
        return _say([json.dumps(entries, indent=2)])
    if not records:
        return _say(["nothing was issued yet"])
    return _say(_line(each, each.state(now)) for each in records)


def _line(record: Record, state: str) -> str:
    if record.revocation:
        reason = f", {record.revocation.reason}" if record.revocation.reason else ""
        state = f"revoked {record.revocation.at:%Y-%m-%d}{reason}"
    dates = f"{record.begins:%Y-%m-%d} {record.ends:%Y-%m-%d}"
    return f"{record.number}  {record.purpose.value}  {dates}  {one_line(record.subject)}  {state}"


def _check(options: argparse.Namespace) -> int:
    euid = os.geteuid()
    site = site_in(options.dir, euid) if options.dir else own_site(Path.home(), euid)
    role = Purpose(options.role) if options.role else None
    found = inspect(
        site,
        now=utc_now(),
        euid=euid,
        hosts=options.host,
        role=role,
        priority=options.tls_priority,
    )
    _say([verdict.as_json(found)] if options.json else verdict.as_lines(found))
    if not found.fine:
        return PROBLEMS
    return WARNINGS if found.problems else OK


def _target(options: argparse.Namespace) -> Places | None:
    if options.flat:
        return flat(options.flat)
    return tree(options.out) if options.out else None


def _say(lines: Iterable[str]) -> int:
    for line in lines:
        print(line)
    sys.stdout.flush()  # a closed pipe is to be met here
    return OK


def _give_up_stdout() -> None:
    """What is left in the buffer must not complain at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(line: str, status: int) -> int:
    print(f"{PROGRAM}: {pasteable(one_line(line))}", file=sys.stderr)
    return status


_VERBS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "init": _init,
    "server": _server,
    "client": _client,
    "renew": _renew,
    "revoke": _revoke,
    "crl": _crl,
    "list": _list,
    "check": _check,
}
