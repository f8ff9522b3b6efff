"""proxyd rules explain: which line decides about a client that is described by options."""

import argparse
import grp
import io
import json
import os
import pwd
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from proxyd.cli.parser import complain
from proxyd.cli.rules_check import complain_of_faults
from proxyd.cli.rules_file import add_file, rules_file
from proxyd.config.quoting import one_line
from proxyd.config.routes import Unroutable, parse_name
from proxyd.daemon.places import Places
from proxyd.process.exit_status import StartFailed
from proxyd.process.health import Health
from proxyd.rules.explanation import Explanation, listed, ways_in_words
from proxyd.rules.grant import Level
from proxyd.rules.options import moment_of
from proxyd.rules.pattern import Kind, address_of
from proxyd.rules.reading import name_matched, san_of
from proxyd.rules.shadows import WAYS_OF_KIND
from proxyd.rules.subject import San, Subject, Way
from proxyd.rules.table import RuleTable
from proxyd.rules.words import sentence

EPILOG: Final = """\
examples:
  proxyd rules explain --user alice                           at the UNIX socket, qemu:///system
  proxyd rules explain --user alice --way ssh --uri lxc:///
  proxyd rules explain --dn CN=monitor,O=Example --address 192.0.2.7
  proxyd rules explain ./new-rules.conf --sasl joe --at 2027-01-01

A user of this host has the uid and the groups that its name service says, where they are not given.
Without --way it is the one that such a client comes by: tls with a certificate or an address, tcp
with a SASL name, else unix.

exit status: 0 the client is let in; 1 it is refused; 2 the file has faults; 3 it cannot be said.
"""
_SYSTEM: Final = "qemu:///system"
_REFUSED: Final = 1
_SOCKETS: Final = frozenset({Way.UNIX, Way.RO, Way.SSH})


class _Contradiction(Exception):
    """No client is like that."""


def add_arguments(parser: argparse.ArgumentParser, places: Places) -> None:
    add_file(parser, places)
    add = parser.add_argument
    add("--way", choices=[way.value for way in Way], help="how it comes in")
    add("--readonly", action="store_true", help="at the UNIX socket that is read-only")
    add("--user", metavar="NAME", help="its user on this host")
    add("--uid", metavar="NUMBER", type=_uid, help="its uid on this host")
    add(
        "--group",
        metavar="NAME",
        action="append",
        help="a group of this host that it is in; may be repeated",
    )
    add("--sasl", metavar="NAME", help="the name that it proves by SASL")
    add("--dn", metavar="SUBJECT", help="its certificate's subject, as tls_allowed_dn_list has it")
    add(
        "--san",
        metavar="NAME",
        action="append",
        type=_san,
        default=[],
        help="another name in its certificate; may be repeated",
    )
    add("--address", metavar="ADDR", type=_address, help="where it comes from")
    add("--uri", metavar="URI", type=_uri, default=_SYSTEM, help="what it opens (%(default)s)")
    add("--at", metavar="TIME", type=_moment, help="when, as 2026-12-31T18:00 (default: now)")
    add("--json", action="store_true", help="print it for machines")


def _uid(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise argparse.ArgumentTypeError(f"a number expected, not {text!r}")
    return int(text)


def _san(text: str) -> San:
    try:
        return san_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _address(text: str) -> str:
    if address_of(text) is None:
        raise argparse.ArgumentTypeError(f"an address expected, not {text!r}")
    return text


def _uri(text: str) -> str:
    try:
        parse_name(text)
    except Unroutable as error:
        raise argparse.ArgumentTypeError(f"no client gets in with {text!r}: {error}") from error
    return text


def _moment(text: str) -> float:
    try:
        return moment_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} expected, not {text!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    subject: Subject
    uri: str
    at_s: float


def act(arguments: argparse.Namespace, places: Places) -> int:
    """Prints; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        parsed = rules_file(arguments, places).parsed
        if parsed.faults:
            complain_of_faults(parsed.faults)
            return Health.CRITICAL
        question = _Question(
            subject=_subject(arguments),
            uri=name_matched(arguments.uri) or "",
            at_s=time.time() if arguments.at is None else arguments.at,
        )
    except (StartFailed, _Contradiction) as error:
        complain(str(error))
        return Health.UNKNOWN
    answer = RuleTable(parsed.rules).explain(question.subject, question.uri, question.at_s)
    print(_as_json(question, answer) if arguments.json else "\n".join(_lines(question, answer)))
    return Health.OK if _is_let_in(answer) else _REFUSED


def _is_let_in(answer: Explanation) -> bool:
    return answer.rule is not None and answer.rule.grant.level is not Level.DENY


def _subject(arguments: argparse.Namespace) -> Subject:
    """Raises _Contradiction."""
    ways = _ways(arguments)
    given = {
        Kind.USER: ("--user", arguments.user),
        Kind.UID: ("--uid", arguments.uid),
        Kind.GROUP: ("--group", arguments.group),
        Kind.SASL: ("--sasl", arguments.sasl),
        Kind.DN: ("--dn", arguments.dn),
        Kind.SAN: ("--san", arguments.san or None),
        Kind.ADDR: ("--address", arguments.address),
    }
    for kind, (option, value) in given.items():
        known = WAYS_OF_KIND[kind]
        if value is not None and known.isdisjoint(ways):
            raise _Contradiction(
                f"{option} is known of clients by {ways_in_words(known)}, and this one comes by"
                f" {ways_in_words(ways)}: leave one of them out"
            )
    user, uid, groups = _of_this_host(arguments.user, arguments.uid, arguments.group)
    return Subject(
        ways=ways,
        user=user,
        uid=uid,
        groups=frozenset(groups),
        sasl=arguments.sasl,
        dn=arguments.dn,
        sans=tuple(arguments.san),
        address=arguments.address or "",
    )


def _ways(arguments: argparse.Namespace) -> frozenset[Way]:
    way = Way.UNIX
    if arguments.way is not None:
        way = Way(arguments.way)
    elif arguments.dn is not None or arguments.san or arguments.address is not None:
        way = Way.TLS
    elif arguments.sasl is not None and arguments.user is None and arguments.uid is None:
        way = Way.TCP
    if way not in _SOCKETS:
        if arguments.readonly:
            raise _Contradiction(
                f"--readonly is the UNIX socket, and this client comes by {way.value}"
            )
        return frozenset({way})
    socket = Way.RO if arguments.readonly or way is Way.RO else Way.UNIX
    return frozenset({socket, Way.SSH} if way is Way.SSH else {socket})


def _of_this_host(
    user: str | None, uid: int | None, groups: Sequence[str] | None
) -> tuple[str | None, int | None, Sequence[str]]:
    """User, uid and groups, those that were not given as the name service has them; may block."""
    if user is None and uid is None:
        return None, None, groups or ()
    try:
        entry = pwd.getpwnam(user) if user is not None else pwd.getpwuid(uid or 0)
    except (KeyError, OverflowError):
        if user is not None and uid is None and groups is None:
            complain(
                f"this host knows no user {one_line(user)}, so nothing but the name counts; give"
                " --uid and --group for more"
            )
        return user, uid, groups or ()
    if groups is None:
        numbers = os.getgrouplist(entry.pw_name, entry.pw_gid)
        groups = [name for number in numbers if (name := _group(number))]
    return entry.pw_name, entry.pw_uid if uid is None else uid, groups


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return ""


def _lines(question: _Question, answer: Explanation) -> Iterator[str]:
    rule = answer.rule
    yield f"{_described(question.subject)}, {one_line(question.uri)}:"
    if rule is None:
        yield f"  no rule is for this client, so it is refused{':' if answer.before else ''}"
    else:
        yield f"  line {rule.line} decides: {rule.text}"
        yield f"  {sentence(rule)}"
        if answer.before:
            yield "the rules before it do not:"
    for each in answer.before:
        yield f"  {each}"


def _described(subject: Subject) -> str:
    parts = [
        f"user {subject.user}" if subject.user is not None else "",
        f"uid {subject.uid}" if subject.uid is not None else "",
        f"in {listed(sorted(subject.groups))}" if subject.groups else "",
        f"SASL user {subject.sasl}" if subject.sasl is not None else "",
        f"certificate {subject.dn}" if subject.dn is not None else "",
        f"with {listed([san.value for san in subject.sans])}" if subject.sans else "",
        f"at {subject.address}" if subject.address else "",
    ]
    who = " ".join(one_line(each) for each in parts if each) or "somebody"
    return f"{who} by {ways_in_words(subject.ways)}"


def _as_json(question: _Question, answer: Explanation) -> str:
    subject, rule = question.subject, answer.rule
    client = {
        "ways": [way.value for way in Way if way in subject.ways],
        "user": subject.user,
        "uid": subject.uid,
        "groups": sorted(subject.groups),
        "sasl": subject.sasl,
        "dn": subject.dn,
        "sans": [san._asdict() for san in subject.sans],
        "address": subject.address or None,
    }
    decides: dict[str, Any] | None = None
    if rule is not None:
        decides = {"line": rule.line, "text": rule.text, **asdict(rule.grant)}
    document = {
        "client": client,
        "uri": question.uri,
        "at": question.at_s,
        "allowed": _is_let_in(answer),
        "rule": decides,
        "before": [asdict(each) for each in answer.before],
    }
    return json.dumps(document, indent=2)
