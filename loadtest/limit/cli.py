"""`limit` from its options to its exit status."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from .. import amounts
from ..failures import UsageError
from ..machine import this_machine
from ..opening_options import add_opening, add_targets, opening_of, targets_of
from ..procedures import SMALL_CALLS, procedure_number
from ..progress import progress
from ..results import check_writable, keep
from ..serving import settled
from ..statuses import MISSED, OK, TOLD
from ..targets import UnixAddress
from .bare import NAMES, bare_relays
from .measure import Entrant, Plan, run, speaks_tls
from .outcome import Threshold, judge, parse_threshold
from .report import Report, as_json, as_text

CALLS_URI: Final = "test:///default"
SMALL_CALL: Final = "CONNECT_GET_LIB_VERSION"


def add_parsers(subparsers: Any) -> None:
    """Adds `limit` to the scenarios."""
    parser = subparsers.add_parser(
        "limit",
        help="how near is proxyd to the least that any relay adds to a call?",
        description="Compiles a bare relay in C, runs it between this tool and a daemon, and lets"
        " it, proxyd and the daemon itself answer small calls in turn. Says what each relay adds,"
        " and how many times what the bare one adds that is: over UNIX sockets, and over TLS where"
        " a tls: target is given. It takes a C compiler, and for TLS the headers of OpenSSL.",
        epilog=TOLD,
    )
    add = parser.add_argument_group("work").add_argument
    add_targets(add, "; the first is the daemon's own UNIX socket, those behind it are proxies")
    add(
        "--procedure",
        metavar="NAME",
        default=SMALL_CALL,
        help=f"which small call (default {SMALL_CALL}): {', '.join(SMALL_CALLS)}",
    )
    add(
        "--uri",
        help="for targets without a uri= of their own"
        f" (default {CALLS_URI}, where that is served; else what is)",
    )
    add("--readonly", action="store_true", help="open the connections read-only")
    _add_outcome(add)
    count = {"type": amounts.count, "metavar": "N"}
    add = parser.add_argument_group("amount").add_argument
    add("--rounds", **count, default=10, help="what the spread is taken over (default 10)")
    add("--warmup", **count, default=200, help="calls per session, not measured (default 200)")
    add("--calls", **count, default=1000, help="per target, order and round (default 1000)")
    add("--row", **count, default=25, help="warm: calls to one target in a row (default 25)")
    add_opening(parser.add_argument_group("sessions").add_argument)
    parser.set_defaults(act=act)


def _add_outcome(add: Any) -> None:
    add(
        "--threshold",
        type=_threshold,
        nargs="+",
        action="extend",
        default=[],
        metavar="ORDER<MULTIPLE",
        help="warm<1.2, cold<1.4; with TARGET: in front for that one alone. In quotes, or the shell"
        " takes the <",
    )
    add("--out", type=Path, metavar="FILE.json", help="keep the result, for report")
    add("--json", action="store_true", help="print one JSON document with every figure")


def act(options: argparse.Namespace) -> int:
    """Raises UsageError, TargetFailure and NotKept; OK or MISSED."""
    plan = plan_of(options)
    check_writable(options.out)
    machine = this_machine(options.arguments)
    everybody = (plan.direct, *plan.proxies)
    opening = settled(everybody, plan.opening, given=options.uri is not None)
    plan = replace(plan, opening=opening)
    with bare_relays(plan.direct, opening, plan.kinds) as bare:
        entrants = [
            Entrant(plan.direct, opening),
            *(Entrant(*each) for each in bare.values()),
            *(Entrant(each, opening) for each in plan.proxies),
        ]
        with progress("limit", plan.steps) as step:
            run(plan, entrants, step)
    verdicts = judge(options.threshold, entrants)
    report = Report(machine, plan, entrants, verdicts)
    text = as_json(report)
    keep(text, options.out)
    print(text if options.json else as_text(report))
    return OK if all(verdict.met for verdict in verdicts) else MISSED


def plan_of(options: argparse.Namespace) -> Plan:
    """Raises UsageError."""
    direct, *proxies = targets_of(options)
    if not isinstance(direct.address, UnixAddress):
        raise UsageError(f"{direct.name}: the first target is the daemon itself, by a UNIX socket")
    if not proxies:
        raise UsageError("which proxies? Name them behind the daemon's own socket")
    for target in (direct, *proxies):
        if target.name in NAMES.values():
            raise UsageError(f"target {target.name}: that is a bare relay's name; take another")
    for target in proxies:
        if not (isinstance(target.address, UnixAddress) or speaks_tls(target)):
            raise UsageError(f"target {target.name}: bare relays are for unix: and tls: alone")
    names = {target.name for target in proxies}
    for threshold in options.threshold:
        if threshold.target not in {None, *names}:
            raise UsageError(f"threshold {threshold.text!r}: no proxy is called {threshold.target}")
    return Plan(
        direct=direct,
        proxies=tuple(proxies),
        procedure=procedure_number(options.procedure),
        opening=opening_of(
            options, (direct, *proxies), options.uri or CALLS_URI, readonly=options.readonly
        ),
        rounds=options.rounds,
        warmup=options.warmup,
        calls=options.calls,
        row=options.row,
    )


def _threshold(text: str) -> Threshold:
    try:
        return parse_threshold(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
