"""The live daemon as the pages of metrics/ show it."""

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from proxyd.admission.admission import Admission
from proxyd.config.addresses import daemon_at
from proxyd.daemon.status_document import Reporter
from proxyd.invocation import pasteable
from proxyd.metrics.reading import DaemonReading, Reading, ThreadReading, Times
from proxyd.metrics.service import Observed
from proxyd.relay.figures import Figures
from proxyd.relay.histogram import Histogram
from proxyd.relay.loop import RelayLoop
from proxyd.session.handover import Relay
from proxyd.session.refusal import Refusals
from proxyd.session.roster import Roster
from proxyd.session.tally import Refusal
from proxyd.wire.names import NAMES
from proxyd.wire.programs import Program

_PROCEDURES: Final = NAMES[Program.REMOTE]
_NONE_YET: Final = ""  # the daemon of a client that has not said where it wants to go


def observed(reporter: Reporter, roster: Roster, relay: Relay, turned_away: Refusals) -> Observed:
    """What the service asks for."""

    async def read() -> Reading:
        tally = roster.tally
        return Reading(
            status=await reporter.status(ask_daemons=False),
            states=_states(roster),
            opened=dict(tally.opened),
            refused={
                reason.value: tally.refused[reason] + turned_away.reasons[reason]
                for reason in Refusal
            },
            login_delay_s=roster.admission.logins.delayed_s,
            denied_calls=roster.forbidden,
            session_time=_times(tally.session_time),
            opening_time=_times(tally.opening_time),
            handshake_time=_times(tally.handshake_time),
            daemons=list(_daemons(relay.loops, _live(roster))),
            threads=[
                ThreadReading(
                    name=loop.name, sessions=loop.sessions, turn_time=Times.of(loop.turn_time)
                )
                for loop in relay.loops
            ],
        )

    return Observed(
        read=read,
        relay_answers=relay.answers,
        unready=functools.partial(_unready, roster.admission, reporter),
    )


async def _unready(admission: Admission, reporter: Reporter) -> str:
    if admission.closed:
        return "draining: nobody is let in any more"
    if admission.draining:
        return f"draining: nobody new is let in until `{pasteable('proxyd drain --undo')}`"
    if admission.clients >= admission.max_clients:
        return f"all {admission.max_clients} places are taken (max_clients)"
    faults = await reporter.needs.faults(wake=False)
    return "; ".join(each.text for each in faults)


def _states(roster: Roster) -> Mapping[tuple[str, str, str], int]:
    """What there is none of any more is told as well."""
    states = Counter({(*where, "open"): 0 for where in roster.tally.opened})
    states.update(
        (
            client.door.name,
            daemon_at(client.backend) if client.backend else _NONE_YET,
            "negotiating" if client.pair is None else "open",
        )
        for client in roster.clients.values()
    )
    return states


class _Live(NamedTuple):
    """What open sessions have under way, by daemon."""

    calls: Counter[str]
    streams: Counter[str]


def _live(roster: Roster) -> _Live:
    found = _Live(Counter(), Counter())
    for client in roster.clients.values():
        if client.pair is not None:
            daemon = daemon_at(client.backend)
            found.calls[daemon] += client.pair.unanswered
            found.streams[daemon] += len(client.pair.ledger.streams or ())
    return found


def _times(found: Mapping[str, Histogram]) -> dict[str, Times]:
    return {label: Times.of(each) for label, each in found.items()}


def _daemons(loops: Sequence[RelayLoop], live: _Live) -> Iterator[DaemonReading]:
    by_daemon: dict[str, list[Figures]] = {}
    for loop in loops:
        for daemon, figures in loop.by_daemon.items():
            by_daemon.setdefault(daemon, []).append(figures)
    for daemon, found in by_daemon.items():
        down = [each.down for each in found]
        yield DaemonReading(
            daemon=daemon,
            replies=_named([each.calls for each in down]),
            failures=_named([each.errors for each in down]),
            bytes_up=sum(sum(each.up.bytes) for each in found),
            bytes_down=sum(sum(each.bytes) for each in down),
            under_way=live.calls[daemon],
            streams=live.streams[daemon],
            call_time=dict(_call_times(found)),
        )


def _named(lists: Sequence[Sequence[int]]) -> dict[str, int]:
    """The sums that are not 0, by procedure."""
    sums = [sum(each) for each in zip(*lists, strict=True)]
    return {_name(number): count for number, count in enumerate(sums) if count}


def _call_times(found: Sequence[Figures]) -> Iterator[tuple[str, Times]]:
    for number in range(len(found[0].call_time)):
        timed = [each.call_time[number] for each in found]
        known = [Times.of(each) for each in timed if each is not None]
        if known:
            yield _name(number), functools.reduce(Times.plus, known)


def _name(number: int) -> str:
    return _PROCEDURES[number].lower() if number else "other"
