"""The words of `run`, and the plan that they ask for."""

import argparse
from argparse import ArgumentTypeError
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any, Final, TypeVar

from loadtest import amounts
from loadtest.failures import UsageError
from loadtest.mix import KNOWN, Mix, parse_mix
from loadtest.opening_options import TARGET_HELP, add_opening, opening_of
from loadtest.running.plan import Load
from loadtest.running.run import Plan
from loadtest.stages import Course, parse_stages, steady
from loadtest.targets import Target, parse_targets
from loadtest.thresholds import parse_threshold

CALLS_URI: Final = "test:///default"
VOLUME_URI: Final = "qemu:///system"
DURATION_S: Final = 10.0
# More descriptors than a worker could ever have, and far more than its loop could serve.
_MOST_CONNECTIONS: Final = 100_000
_MOST_INTERVALS: Final = 1_000_000

_Parsed = TypeVar("_Parsed")


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds `run` to the scenarios."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="so many calls per second, to several targets at the same time",
        description="Sends calls at a rate (-R, --stages) and takes each one's latency from when it"
        " was due, so that a server that stalls is charged with all that it held up. With --closed"
        " each connection sends its next call when it has the last reply. One of the three must be"
        " given: what is a sensible rate only you can know.",
    )
    parser.add_argument("--target", action="append", required=True, help=TARGET_HELP)
    parser.add_argument(
        "--uri",
        help="for targets without a uri= of their own"
        f" (default {CALLS_URI}, with transfers in the mix {VOLUME_URI})",
    )
    parser.add_argument("--readonly", action="store_true", help="open the connections read-only")
    _add_load(parser)
    _add_work(parser)
    add_opening(parser)
    _add_outcome(parser)
    return parser


def _add_load(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "-R", "--rate", type=amounts.rate, help="calls per second, to each target, evenly spaced"
    )
    add(
        "--closed", action="store_true", help="no rate: the next call when the last one is answered"
    )
    add("-c", "--connections", type=amounts.count, help="per target (1); each has one call at most")
    add("-d", "--duration", type=amounts.duration, help="500ms, 10s, 2m, 1h (10s)")
    model.add_argument(
        "--stages",
        type=_parsed(parse_stages),
        metavar="DURATION:LEVEL,…",
        help="instead of -R and -d: from a rate of 0 to that level in that time, and on from there,"
        " as in 10s:100,30s:1000,10s:0; with --closed and instead of -c, of connections",
    )
    add("--arrivals", choices=["even", "poisson"], default="even", help="at random: poisson (even)")
    add("--warmup", type=amounts.duration, default=0.0, help="the same load before, not counted")


def _add_work(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--mix",
        type=_parsed(parse_mix),
        default="small",
        metavar="NAME=WEIGHT,…",
        help="which calls, in which proportion (small); events=N and idle=N are so many connections"
        f" more, which hold. Known are {KNOWN}",
    )
    add("--volume", metavar="PATH", help="of download and upload: in a running pool")
    add(
        "-C",
        "--new-sessions",
        action="store_true",
        help="each call in a session of its own; the time to connect is kept apart, -c is how many"
        " there may be at a time",
    )


def _add_outcome(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--threshold",
        type=_parsed(parse_threshold),
        nargs="+",
        action="extend",
        default=[],
        metavar="FIGURE<LIMIT",
        help="p99<2ms, connect_p99<20ms, max, mean, errors<0.1%%, rate>1000, with TARGET: in front"
        " for that one alone; the exit status is 99 if one is missed",
    )
    add("--workers", type=amounts.count, help="processes per target (the cores, shared by targets)")
    add("--interval", type=amounts.duration, default=1.0, help="of what is kept over time (1s)")
    add("--out", type=Path, metavar="FILE.json", help="keep the result, for report and plot")
    add("--json", action="store_true", help="the result as one JSON document")


def _parsed(parse: Callable[[str], _Parsed]) -> Callable[[str], _Parsed]:
    """With the option's name in front of what is wrong."""

    def parsed(text: str) -> _Parsed:
        try:
            return parse(text)
        except UsageError as error:
            raise ArgumentTypeError(str(error)) from None

    return parsed


def plan_of(options: argparse.Namespace, cores: int) -> Plan:
    """Raises UsageError."""
    targets = parse_targets(options.target)
    load = _load(options)
    names = {target.name for target in targets}
    for threshold in options.threshold:
        if threshold.target not in {None, *names}:
            known = ", ".join(sorted(names))
            raise UsageError(f"threshold {threshold.text!r}: the targets are {known}")
    uri = options.uri or (VOLUME_URI if load.mix.needs_volume else CALLS_URI)
    return Plan(
        targets=targets,
        opening=opening_of(options, targets, uri, readonly=options.readonly),
        load=load,
        workers=options.workers or max(1, cores // len(targets)),
        thresholds=tuple(options.threshold),
        told=_told(options, targets, load, uri),
    )


def _load(options: argparse.Namespace) -> Load:
    course = _course(options)
    if options.interval * _MOST_INTERVALS < course.length_s:
        raise UsageError("--interval: that would be more than a million; give a longer one")
    of_connections = options.closed and options.stages
    connections = ceil(course.highest) if options.closed else options.connections or 1
    if connections > _MOST_CONNECTIONS:
        raise UsageError(f"{connections} connections; {_MOST_CONNECTIONS} are the most")
    if of_connections and options.connections:
        raise UsageError("-c means nothing for --closed with --stages, whose levels it is")
    if options.closed and options.arrivals == "poisson":
        raise UsageError("--arrivals means nothing for --closed; leave it out")
    return Load(
        course=course,
        mix=_mix(options),
        connections=connections,
        closed=options.closed,
        anew=options.new_sessions,
        poisson=options.arrivals == "poisson",
        warmup_s=options.warmup,
        interval_s=options.interval,
        volume=options.volume,
    )


def _course(options: argparse.Namespace) -> Course:
    stages: Course | None = options.stages
    if stages is not None:
        for flag, given in (("-d", options.duration), ("--warmup", options.warmup)):
            if given:
                raise UsageError(f"{flag} means nothing for --stages, which begin at 0")
        return stages
    length_s = options.duration or DURATION_S
    if options.closed:
        if options.rate:
            raise UsageError("--closed has no rate; leave out -R or --closed")
        return steady(float(options.connections or 1), length_s)
    if options.rate is None:
        raise UsageError("how much? Give -R RATE in calls per second, --stages, or --closed")
    return steady(options.rate, length_s)


def _mix(options: argparse.Namespace) -> Mix:
    mix: Mix = options.mix
    if not mix.work:
        raise UsageError("--mix: give at least one call beside events and idle")
    if mix.needs_volume and options.volume is None:
        raise UsageError("transfers need --volume PATH; virsh vol-list POOL shows what there is")
    if options.volume is not None and not mix.needs_volume:
        raise UsageError("--volume is for download and upload, and the mix has none")
    return mix


def _told(
    options: argparse.Namespace, targets: tuple[Target, ...], load: Load, uri: str
) -> dict[str, Any]:
    """For the result: by the names of the options, as far as they were given or stand for it."""
    mix = ",".join(f"{work.title}={weight}" for work, weight in load.mix.work)
    for name, number in (("events", load.mix.events), ("idle", load.mix.idle)):
        mix += f",{name}={number}" if number else ""
    return {
        "targets": [f"{target.name}={target.address}" for target in targets],
        "uri": uri,
        "readonly": options.readonly,
        "connections": load.connections,
        "rate": options.rate,
        "stages": load.course.text if options.stages is not None else None,
        "duration_s": load.course.length_s,
        "closed": load.closed,
        "new_sessions": load.anew,
        "arrivals": options.arrivals,
        "warmup_s": load.warmup_s,
        "mix": mix,
        "volume": load.volume,
        "interval_s": load.interval_s,
        "timeout_s": options.timeout,
        "thresholds": [threshold.text for threshold in options.threshold],
    }
