"""A reading in Prometheus' text format. Names, units and types are Prometheus' conventions.

docs/metrics.md lists them; a test holds it to what stands here.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from proxyd.metrics.reading import Reading, Times

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

_KeyT = TypeVar("_KeyT", bound=tuple[str, ...])


def exposition(reading: Reading) -> bytes:
    """The page. Takes milliseconds: for a thread of its own."""
    registry = CollectorRegistry()
    registry.register(_Once(reading))
    ProcessCollector(namespace="proxyd", registry=registry)  # beside node-exporter's own
    return generate_latest(registry)


class _Once:
    """A collector of one reading."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        for families in _ROOMS:
            yield from families(self._reading)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _gauges(
    name: str, meaning: str, labels: Sequence[str], values: Mapping[_KeyT, float]
) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(name, meaning, value=value)


def _counters(
    name: str, meaning: str, labels: Sequence[str], values: Mapping[_KeyT, float]
) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histograms(
    name: str, meaning: str, labels: Sequence[str], times: Mapping[_KeyT, Times]
) -> Metric:
    family = HistogramMetricFamily(name, meaning, labels=labels)
    for key, each in times.items():
        family.add_metric(key, list(_buckets(each)), each.sum_s)
    return family


def _buckets(times: Times) -> Iterator[tuple[str, float]]:
    below = 0
    for bound, count in zip((*times.bounds_s, None), times.counts, strict=True):
        below += count
        yield ("+Inf" if bound is None else f"{bound:g}"), below


def _one(values: Mapping[str, Times]) -> dict[tuple[str, ...], Times]:
    return {(key,): each for key, each in values.items()}


def _of_the_daemon(reading: Reading) -> Iterator[Metric]:
    status = reading.status
    info = GaugeMetricFamily("proxyd_info", "Always 1: which version serves.", labels=["version"])
    info.add_metric([status.version], 1)
    yield info
    yield _gauge("proxyd_up", "Always 1 here; `proxyd metrics` says 0 when it is not reached.", 1)
    yield _gauge("proxyd_start_time_seconds", "When it started.", status.started_at)
    yield _gauge("proxyd_draining", "1 while nobody new is let in.", status.state != "serving")
    if status.program is not None:
        yield _gauge(
            "proxyd_program_outdated",
            "1 if what runs is not what is installed.",
            bool(status.program.outdated),
        )
    last = status.last_reload
    if last is not None:
        yield _gauge(
            "proxyd_last_reload_successful", "Whether the latest reload succeeded.", last.succeeded
        )
        yield _gauge("proxyd_last_reload_time_seconds", "When the latest reload was.", last.at)
    yield _counters(
        "proxyd_log_lines_lost_total",
        "Log lines that were not written: no room in the queue, or an output that failed.",
        ["cause"],
        {("queue",): status.log.dropped, ("output",): status.log.lost},
    )
    yield _counter(
        "proxyd_errors_total",
        "Sessions ended by an error of proxyd's own.",
        status.relay.own_errors,
    )
    yield _gauges(
        "proxyd_certificate_expiry_time_seconds",
        "When a certificate, CA or revocation list in force ends.",
        ["role", "file"],
        {
            (each.role, each.file or ""): each.expires_at
            for each in status.certificates
            if each.expires_at is not None
        },
    )


def _of_sessions(reading: Reading) -> Iterator[Metric]:
    yield _gauges(
        "proxyd_sessions",
        "Clients that are connected: negotiating, or open at a daemon.",
        ["listener", "daemon", "state"],
        reading.states,
    )
    yield _counters(
        "proxyd_sessions_opened_total", "Sessions opened.", ["listener", "daemon"], reading.opened
    )
    yield _counters(
        "proxyd_refusals_total",
        "Clients that were not let in, or not to where they wanted to go.",
        ["reason"],
        {(reason,): count for reason, count in reading.refused.items()},
    )
    yield _counter(
        "proxyd_login_delay_seconds_total",
        "Waits of clients for logins that had failed, all together.",
        reading.login_delay_s,
    )
    yield _counter(
        "proxyd_denied_calls_total",
        "Calls of open sessions that the rules do not allow.",
        reading.denied_calls,
    )
    yield _histograms(
        "proxyd_session_seconds",
        "How long sessions lasted that have ended.",
        ["daemon"],
        _one(reading.session_time),
    )
    yield _histograms(
        "proxyd_handshake_seconds",
        "From accept to the end of a TLS handshake.",
        ["listener"],
        _one(reading.handshake_time),
    )
    yield _histograms(
        "proxyd_opening_seconds",
        "How long daemons took to open a connection.",
        ["daemon"],
        _one(reading.opening_time),
    )


def _of_limits(reading: Reading) -> Iterator[Metric]:
    limits = reading.status.limits
    yield _gauges(
        "proxyd_clients",
        "Places taken.",
        ["kind"],
        {
            ("all",): limits.clients,
            ("unauthenticated",): limits.unauthenticated,
            ("admin",): limits.admin_clients,
        },
    )
    yield _gauges(
        "proxyd_clients_max",
        "Places that there are.",
        ["kind"],
        {
            ("all",): limits.max_clients,
            ("unauthenticated",): limits.max_unauthenticated,
            ("admin",): limits.max_admin_clients,
        },
    )
    yield _gauges(
        "proxyd_waiting",
        "Accepted and without a place: with something to say, or silent.",
        ["state"],
        {("waiting",): limits.waiting, ("silent",): limits.silent},
    )
    yield _gauge(
        "proxyd_descriptor_room",
        "Sessions that the limit of open descriptors allows.",
        limits.descriptor_room,
    )


def _of_daemons(reading: Reading) -> Iterator[Metric]:
    yield _gauges(
        "proxyd_backend_socket_present",
        "Whether a daemon's socket is there; nobody connects to find out.",
        ["daemon", "socket"],
        {(each.daemon, each.socket): each.present for each in reading.status.backends},
    )
    answered: dict[tuple[str, ...], float] = {}
    under_way: dict[tuple[str, ...], float] = {}
    streams: dict[tuple[str, ...], float] = {}
    moved: dict[tuple[str, ...], float] = {}
    times: dict[tuple[str, ...], Times] = {}
    for each in reading.daemons:
        for procedure, replies in each.replies.items():
            failed = each.failures.get(procedure, 0)
            answered[each.daemon, procedure, "ok"] = replies - failed
            answered[each.daemon, procedure, "error"] = failed
        under_way[each.daemon,] = each.under_way
        streams[each.daemon,] = each.streams
        moved[each.daemon, "up"] = each.bytes_up
        moved[each.daemon, "down"] = each.bytes_down
        for procedure, time in each.call_time.items():
            times[each.daemon, procedure] = time
    yield _counters(
        "proxyd_calls_total",
        "Calls that were answered, by procedure and result.",
        ["daemon", "procedure", "result"],
        answered,
    )
    yield _gauges(
        "proxyd_calls_under_way", "Calls of open sessions without a reply.", ["daemon"], under_way
    )
    yield _gauges("proxyd_streams", "Streams of open sessions.", ["daemon"], streams)
    yield from _of_partings(reading)
    yield _counters(
        "proxyd_bytes_total",
        "Bytes of frames: up to a daemon, down to clients.",
        ["daemon", "direction"],
        moved,
    )
    yield _histograms(
        "proxyd_call_seconds",
        "From a call to its reply; of a session one call at a time is timed.",
        ["daemon", "procedure"],
        times,
    )


def _of_partings(reading: Reading) -> Iterator[Metric]:
    now: dict[tuple[str, ...], float] = {}
    ended: dict[tuple[str, ...], float] = {}
    for each in reading.status.backends:
        if each.partings is not None:
            found = dataclasses.asdict(each.partings)
            now[each.daemon,] = now.get((each.daemon,), 0) + found.pop("now")
            for outcome, count in found.items():
                key = each.daemon, outcome
                ended[key] = ended.get(key, 0) + count
    yield _gauges(
        "proxyd_partings",
        "Connections to a daemon whose client is gone and that are not over yet.",
        ["daemon"],
        now,
    )
    yield _counters(
        "proxyd_partings_ended_total", "How those have ended.", ["daemon", "outcome"], ended
    )


def _of_the_relay(reading: Reading) -> Iterator[Metric]:
    yield _gauges(
        "proxyd_relay_sessions",
        "Sessions of a relay thread.",
        ["thread"],
        {(each.name,): each.sessions for each in reading.threads},
    )
    yield _histograms(
        "proxyd_relay_turn_seconds",
        "How long a turn of a relay thread took, without its wait.",
        ["thread"],
        {(each.name,): each.turn_time for each in reading.threads},
    )


_ROOMS: Final[Sequence[Callable[[Reading], Iterator[Metric]]]] = (
    _of_the_daemon,
    _of_sessions,
    _of_limits,
    _of_daemons,
    _of_the_relay,
)
