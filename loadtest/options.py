"""The words of `compare`, and the plan that they ask for."""

import argparse
from typing import Any, Final, NoReturn

from loadtest import amounts
from loadtest.failures import UsageError
from loadtest.opening_options import TARGET_HELP, add_opening, opening_of
from loadtest.procedures import SMALL_CALLS, procedure_number
from loadtest.scenarios import bulk, compare, sessions
from loadtest.scenarios.plans import Plan
from loadtest.targets import parse_targets

SMALL_CALL: Final = "CONNECT_GET_LIB_VERSION"
CALLS_URI: Final = "test:///default"
BULK_URI: Final = "qemu:///system"

_TARGET_HELP: Final = f"{TARGET_HELP}; the first target is what the others are compared with"
# Which of the options below each kind of measurement knows, by the names of its plan's fields.
_KNOWN: Final = {
    "calls": {"procedure", "readonly", "warmup", "connections", "calls", "slices", "slice_s"},
    "--sessions": {"readonly", "warmup", "connections", "slices", "slice_s"},
    "--bulk": {"warmup", "volume", "upload"},
}
_FLAGS: Final = {"connections": "-c", "slice_s": "--slice"}


class Parser(argparse.ArgumentParser):
    """Complains by UsageError."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse_plan(arguments: list[str]) -> tuple[Plan, bool]:
    """The plan of `compare`, and whether JSON is wanted; raises UsageError, or SystemExit."""
    parser = Parser(prog="proxyd-loadtest")
    add_parser(parser.add_subparsers(metavar="SCENARIO", required=True))
    options = parser.parse_args(arguments)
    return plan_of(options), bool(options.json)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds `compare` to the scenarios."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compare",
        help="the same work by several targets",
        description="The same small call, session or transfer, by several targets in turn.",
    )
    _add_work(parser)
    parser.add_argument(
        "--uri",
        help="for targets without a uri= of their own"
        f" (default {CALLS_URI}, with --bulk {BULK_URI})",
    )
    add_opening(parser)
    _add_amounts(parser)
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
        "--bulk", type=amounts.size, metavar="SIZE", help="measure transfers of so much, say 256MiB"
    )
    add("--volume", metavar="PATH", help="of --bulk: of that size at least, in a running pool")
    flag = {"action": "store_true", "default": None}
    add("--upload", **flag, help="with --bulk: the other way, WRITING OVER the volume")  # type: ignore[arg-type]
    add("--readonly", **flag, help="open the connections read-only")  # type: ignore[arg-type]
    add("--json", action="store_true", help="one JSON document with every figure")


def _add_amounts(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rounds", type=amounts.count, default=3, help="what the spread is taken over")
    add("--warmup", type=amounts.count, help="unmeasured calls (200), sessions (20), transfers (1)")
    add(
        "-c",
        "--connections",
        type=amounts.count,
        help="per target (1); for calls, above 1: throughput; sessions: so many at a time",
    )
    add("--calls", type=amounts.count, help="per target and round, with one connection (2000)")
    add(
        "--slice",
        dest="slice_s",
        type=amounts.seconds,
        help="seconds, with several connections (0.1) or --sessions (0.4)",
    )
    add("--slices", type=amounts.count, help="per target and round, likewise (20, 5)")


def plan_of(options: argparse.Namespace) -> Plan:
    """Raises UsageError."""
    targets = parse_targets(options.target)
    given = _given(options)
    kind = "--sessions" if options.sessions else "calls" if options.bulk is None else "--bulk"
    for name in given.keys() - _KNOWN[kind]:
        flag = _FLAGS.get(name, f"--{name}")
        raise UsageError(f"{flag} means nothing for {kind}; leave it out")
    uri = options.uri or (BULK_URI if kind == "--bulk" else CALLS_URI)
    readonly = bool(given.pop("readonly", False))
    given |= {
        "targets": targets,
        "opening": opening_of(options, targets, uri, readonly=readonly),
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
