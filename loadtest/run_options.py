"""The words of `run`, and the plan that they ask for."""

import argparse
from argparse import ArgumentTypeError
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any, Final, TypeVar

from . import amounts
from .failures import UsageError
from .mix import KNOWN, Mix, parse_mix
from .opening_options import add_opening, add_targets, opening_of, targets_of
from .running.plan import Load
from .running.run import Plan
from .stages import Course, parse_stages, steady
from .statuses import TOLD
from .targets import Target
from .thresholds import parse_threshold

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
        help="how fast targets are, and how much they hold: so many calls per second",
        description="Sends calls at a rate (-R or --stages) and takes each one's latency from when"
        " it was due, so that a server that stalls is charged with all that it held up. With"
        " --closed each connection sends its next call when it has the last reply. One of the three"
        " must be given: what is a sensible rate only you can know. Ctrl-C ends it early, with what"
        " was measured so far.",
        epilog=TOLD,
    )
    _add_targets(parser.add_argument_group("targets").add_argument)
    _add_load(parser.add_argument_group("load"))
    _add_work(parser.add_argument_group("calls").add_argument)
    add_opening(parser.add_argument_group("sessions").add_argument)
    _add_outcome(parser.add_argument_group("result").add_argument)
    return parser


def _add_targets(add: Callable[..., object]) -> None:
    add_targets(add)
    add(
        "--uri",
        help="for targets without a uri= of their own"
        f" (default {CALLS_URI}, with transfers in the mix {VOLUME_URI}, where that is served; else"
        " what is)",
    )
    add("--readonly", action="store_true", help="open the connections read-only")


def _add_load(group: Any) -> None:
    add, duration = group.add_argument, {"type": amounts.duration, "metavar": "TIME"}
    model = group.add_mutually_exclusive_group()
    model.add_argument(
        *("-R", "--rate"),
        type=amounts.rate,
        metavar="RATE",
        help="calls per second, to each target",
    )
    model.add_argument(
        "--stages",
        type=_parsed(parse_stages),
        metavar="TIME:LEVEL,…",
        help="instead of -R and -d: from a rate of 0 to that level in that time, and on from there,"
        " as in 10s:100,30s:1000,10s:0; with --closed, and instead of -c, of connections",
    )
    add(
        "--closed", action="store_true", help="no rate: the next call when the last one is answered"
    )
    add(
        *("-c", "--connections"),
        type=amounts.count,
        metavar="N",
        help="per target (default 1); each has one call under way at most",
    )
    add("-d", "--duration", **duration, help="500ms, 10s, 2m, 1h (default 10s)")
    add("--warmup", **duration, default=0.0, help="the same load before, not counted (default 0)")
    add(
        "--arrivals",
        choices=["even", "poisson"],
        default="even",
        help="calls at equal distances, or at random (default even)",
    )
    add(
        "--workers",
        type=amounts.count,
        metavar="N",
        help="processes per target (default: the cores, shared by the targets)",
    )


def _add_work(add: Callable[..., object]) -> None:
    add(
        "--mix",
        type=_parsed(parse_mix),
        default="small",
        metavar="NAME=WEIGHT,…",
        help="which calls, in which proportion (default small); events=N and idle=N are so many"
        f" connections more, which hold. Known are {KNOWN}",
    )
    add(
        "--volume",
        action="append",
        default=[],
        metavar="PATH",
        help="of download and upload: in a running pool. More than one: each of --workers has one,"
        " as uploads at once need it",
    )
    add(
        *("-C", "--new-sessions"),
        action="store_true",
        help="each call in a session of its own, -c at a time; the time to connect is kept apart",
    )


def _add_outcome(add: Callable[..., object]) -> None:
    add(
        "--threshold",
        type=_parsed(parse_threshold),
        nargs="+",
        action="extend",
        default=[],
        metavar="FIGURE<LIMIT",
        help="p99<2ms, connect_p99<20ms, max, mean, errors<0.1%%, rate>1000; with TARGET: in front"
        " for that one alone. In quotes, or the shell takes < and >",
    )
    add(
        "--interval",
        type=amounts.duration,
        default=1.0,
        metavar="TIME",
        help="of what is kept over time (default 1s)",
    )
    add("--out", type=Path, metavar="FILE.json", help="keep the result, for report and plot")
    add("--json", action="store_true", help="print the result as one JSON document")


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
    targets = targets_of(options)
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
        volumes=tuple(options.volume),
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
    if mix.needs_volume and not options.volume:
        raise UsageError("transfers need --volume PATH; virsh vol-list POOL shows what there is")
    if options.volume and not mix.needs_volume:
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
        "volume": load.volumes[0] if len(load.volumes) == 1 else list(load.volumes) or None,
        "interval_s": load.interval_s,
        "timeout_s": options.timeout,
        "thresholds": [threshold.text for threshold in options.threshold],
    }
