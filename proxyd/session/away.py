"""Clients that another process of this daemon serves: what it tells of their sessions.

They are in the roster as all others are: they hold places, are shown, and can be ended. That other
process is one that has handed the daemon over to this one, and keeps what cannot move.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class AwayFlow:
    """One direction, as far as it is told."""

    calls: int = 0
    errors: int = 0
    moved: int = 0
    refusals: int = 0
    forbidden: int = 0


@dataclass(slots=True)
class AwayLedger:
    """As many streams as are open there."""

    streams: tuple[None, ...] = ()


@dataclass(slots=True)
class AwayStopwatch:
    timed: int = 0
    sum_ns: int = 0


@dataclass(slots=True)
class AwaySession:
    """An open session over there. The same figures as those of a RelayedPair (relay/pair.py)."""

    active_ns: int = 0
    unanswered: int = 0
    up: AwayFlow = field(default_factory=AwayFlow)
    down: AwayFlow = field(default_factory=AwayFlow)
    ledger: AwayLedger = field(default_factory=AwayLedger)
    stopwatch: AwayStopwatch = field(default_factory=AwayStopwatch)
