"""The command line's words, and the plan that they ask for."""

import argparse
import os
import re
from typing import Any, Final, NoReturn

from loadtest.client import Opening
from loadtest.credentials import Credentials, client_context
from loadtest.failures import UsageError
from loadtest.procedures import SMALL_CALLS, procedure_number
from loadtest.scenarios import bulk, compare, sessions
from loadtest.scenarios.plans import Plan
from loadtest.targets import Protection, Target, TcpAddress, parse_targets
from loadtest.tickets import SERVICE, Tickets, login

SMALL_CALL: Final = "CONNECT_GET_LIB_VERSION"
CALLS_URI: Final = "test:///default"
BULK_URI: Final = "qemu:///system"

_TARGET_HELP: Final = (
    "NAME=unix:/PATH, or NAME=tcp:HOST:PORT, tls: or gssapi: likewise (an IPv6 address as [::1]),"
    " and behind it [,pid=N[+N…]][,LABEL=N…][,uri=URI]; the first target is what the others are"
    " compared with"
)
# Which of the options below each kind of measurement knows, by the names of its plan's fields.
_KNOWN: Final = {
    "calls": {"procedure", "readonly", "warmup", "connections", "calls", "slices", "slice_s"},
    "--sessions": {"readonly", "warmup", "connections", "slices", "slice_s"},
    "--bulk": {"warmup", "volume", "upload"},
}
_FLAGS: Final = {"connections": "-c", "slice_s": "--slice"}
_UNITS: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE: Final = re.compile(r"([0-9]{1,18})(|KiB|MiB|GiB)")
_SERVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse_plan(arguments: list[str]) -> tuple[Plan, bool]:
    """The plan, and whether JSON is wanted; raises UsageError, or SystemExit after --help."""
    options = _parser().parse_args(arguments)
    return _plan(options), bool(options.json)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="proxyd-loadtest",
        description="What the proxy costs, measured beside what it is compared with.",
    )
    scenarios = parser.add_subparsers(metavar="SCENARIO", required=True)
    compare_parser = scenarios.add_parser(
        "compare",
        help="the same work by several targets",
        description="The same small call, session or transfer, by several targets in turn.",
    )
    _add_work(compare_parser)
    _add_opening(compare_parser)
    _add_amounts(compare_parser)
    return parser


def _add_work(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--target", action="append", required=True, help=_TARGET_HELP)
    add("--procedure", help=f"default {SMALL_CALL}; one of {', '.join(SMALL_CALLS)}")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--sessions",
        action="store_true",
        help="measure new sessions: connect, TLS with a full handshake or SASL, open, close",
    )
    kind.add_argument(
        "--bulk", type=_size, metavar="SIZE", help="measure transfers of so much, say 256MiB"
    )
    add("--volume", metavar="PATH", help="of --bulk: of that size at least, in a running pool")
    flag = {"action": "store_true", "default": None}
    add("--upload", **flag, help="with --bulk: the other way, WRITING OVER the volume")  # type: ignore[arg-type]
    add("--readonly", **flag, help="open the connections read-only")  # type: ignore[arg-type]
    add("--json", action="store_true", help="one JSON document with every figure")


def _add_opening(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--uri",
        help="for targets without a uri= of their own"
        f" (default {CALLS_URI}, with --bulk {BULK_URI})",
    )
    add("--timeout", type=_seconds, default=10.0, help="seconds that any one wait may last")
    add("--cacert", metavar="FILE", help="the CA that tls: targets are trusted by, PEM")
    add("--cert", metavar="FILE", help="our certificate for tls: targets, PEM")
    add("--key", metavar="FILE", help="its private key, PEM, without a password")
    add("--no-host-check", action="store_true", help="take any name in a server's certificate")
    add(
        "--ticket-cache",
        metavar="FILE",
        help="our Kerberos ticket for gssapi: targets (default: KRB5CCNAME, or what libkrb5 says)",
    )
    add(
        "--service",
        type=_service,
        metavar="NAME",
        help=f"in NAME/HOST, whom that ticket is shown to (default {SERVICE})",
    )


def _add_amounts(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rounds", type=_count, default=3, help="what the spread is taken over")
    add("--warmup", type=_count, help="unmeasured calls (200), sessions (20), transfers (1)")
    add(
        "-c",
        "--connections",
        type=_count,
        help="per target (1); for calls, above 1: throughput; sessions: so many at a time",
    )
    add("--calls", type=_count, help="per target and round, with one connection (2000)")
    add(
        "--slice",
        dest="slice_s",
        type=_seconds,
        help="seconds, with several connections (0.1) or --sessions (0.4)",
    )
    add("--slices", type=_count, help="per target and round, likewise (20, 5)")


def _plan(options: argparse.Namespace) -> Plan:
    targets = parse_targets(options.target)
    given = _given(options)
    kind = "--sessions" if options.sessions else "calls" if options.bulk is None else "--bulk"
    for name in given.keys() - _KNOWN[kind]:
        flag = _FLAGS.get(name, f"--{name}")
        raise UsageError(f"{flag} means nothing for {kind}; leave it out")
    uri = options.uri or (BULK_URI if kind == "--bulk" else CALLS_URI)
    readonly = bool(given.pop("readonly", False))
    credentials, tickets = _credentials(options, targets), _tickets(options, targets)
    given |= {
        "targets": targets,
        "opening": Opening(uri, readonly, options.timeout, credentials, tickets),
        "rounds": options.rounds,
    }
    if kind == "--sessions":
        return sessions.Plan(**given)
    if kind == "--bulk":
        if "volume" not in given:
            raise UsageError("--bulk needs --volume PATH; virsh vol-list POOL shows what there is")
        return bulk.Plan(size=options.bulk, **given)
    procedure = procedure_number(given.pop("procedure", SMALL_CALL))
    return compare.Plan(procedure=procedure, **given)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """What was said of what not every kind of measurement knows."""
    names = set().union(*_KNOWN.values())
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _credentials(options: argparse.Namespace, targets: tuple[Target, ...]) -> Credentials | None:
    if not _has(targets, Protection.TLS):
        _check_unused(options, "tls", "cacert", "cert", "key", "no_host_check")
        return None
    if options.cacert is None:
        raise UsageError("tls: targets need --cacert FILE, the CA that signed their certificates")
    credentials = Credentials(
        options.cacert, options.cert, options.key, host_check=not options.no_host_check
    )
    client_context(credentials)  # files that are of no use are told now
    return credentials


def _tickets(options: argparse.Namespace, targets: tuple[Target, ...]) -> Tickets | None:
    if not _has(targets, Protection.GSSAPI):
        _check_unused(options, "gssapi", "ticket_cache", "service")
        return None
    # By its name and not as "the default", so that the report of a run has it.
    cache = options.ticket_cache or os.environ.get("KRB5CCNAME")
    tickets = Tickets(cache, options.service or SERVICE)
    login(tickets)  # a ticket that is missing or has expired is told now
    return tickets


def _has(targets: tuple[Target, ...], protection: Protection) -> bool:
    addresses = (target.address for target in targets)
    return any(isinstance(a, TcpAddress) and a.protection is protection for a in addresses)


def _check_unused(options: argparse.Namespace, kind: str, *names: str) -> None:
    for name in names:
        if getattr(options, name):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is for {kind}: targets, and there is none")


def _service(text: str) -> str:
    if not _SERVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no service; give a name without its host")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 3600:  # a smaller one would round to "no deadline" in the kernel
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.001 to 3600")
    return seconds


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size; give bytes, or KiB, MiB or GiB of them, as in 256MiB"
        )
    return int(found[1]) * _UNITS[found[2]]
