"""The words of `compare`, and the plan that they ask for."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from . import amounts
from .failures import UsageError
from .opening_options import add_opening, add_targets, opening_of, targets_of
from .procedures import SMALL_CALLS, procedure_number
from .scenarios import bulk, compare, sessions
from .scenarios.plans import Plan
from .statuses import TOLD

SMALL_CALL: Final = "CONNECT_GET_LIB_VERSION"
CALLS_URI: Final = "test:///default"
BULK_URI: Final = "qemu:///system"

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
        raise UsageError(f"{message}; see {self.prog} --help")


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
        help="what one target costs beside another: the same work by each in turn",
        description="Lets several targets do the same work in turn: a small call again and again,"
        " new sessions (--sessions), or transfers (--bulk). Says what each costs beside the first.",
        epilog=TOLD,
    )
    _add_work(parser.add_argument_group("work"))
    _add_amounts(parser.add_argument_group("amount").add_argument)
    add_opening(parser.add_argument_group("sessions").add_argument)
    return parser


def _add_work(group: Any) -> None:
    add = group.add_argument
    add_targets(add, "; the first one is what the others are compared with")
    add(
        "--procedure",
        metavar="NAME",
        help=f"which small call (default {SMALL_CALL}): {', '.join(SMALL_CALLS)}",
    )
    kind = group.add_mutually_exclusive_group()
    kind.add_argument(
        "--sessions",
        action="store_true",
        help="new sessions: connect, TLS with a full handshake or SASL, open, close",
    )
    kind.add_argument(
        "--bulk", type=amounts.size, metavar="SIZE", help="transfers of so much, say 256MiB"
    )
    add("--volume", metavar="PATH", help="of --bulk: of that size at least, in a running pool")
    flag = {"action": "store_true", "default": None}
    add("--upload", **flag, help="with --bulk: the other way, WRITING OVER the volume")
    add(
        "--uri",
        help="for targets without a uri= of their own"
        f" (default {CALLS_URI}, with --bulk {BULK_URI}, where that is served; else what is)",
    )
    add("--readonly", **flag, help="open the connections read-only")
    add("--out", type=Path, metavar="FILE.json", help="keep the result, for report")
    add("--json", action="store_true", help="print one JSON document with every figure")


def _add_amounts(add: Callable[..., object]) -> None:
    count = {"type": amounts.count, "metavar": "N"}
    add(
        *("-c", "--connections"),
        **count,
        help="per target (default 1); above 1 throughput is measured; with --sessions so many at"
        " a time",
    )
    add("--rounds", **count, default=3, help="what the spread is taken over (default 3)")
    add(
        "--warmup", **count, help="not measured before (default 200 calls, 20 sessions, 1 transfer)"
    )
    add("--calls", **count, help="per target and round, with one connection (default 2000)")
    add("--slices", **count, help="per target and round, else (default 20; with --sessions 5)")
    add(
        "--slice",
        dest="slice_s",
        type=amounts.seconds,
        metavar="SECONDS",
        help="how long each is (default 0.1; with --sessions 0.4)",
    )


def plan_of(options: argparse.Namespace) -> Plan:
    """Raises UsageError."""
    targets = targets_of(options)
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
