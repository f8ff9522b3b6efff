"""The account of a soak: what was sent, what came back, and what is wrong about it.

What can be claimed of calls: each one that was sent has exactly one reply, unless it was us who
ended the connection; it comes on the connection of the call, and says what this call has to hear.
The replies to calls that were under way together may come in any order: libvirt works at several
at once. Of a stream's bytes the order is part of the claim.
"""

import threading
from array import array
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Final

EXAMPLES: Final = 8  # of each fault are told; all are counted


class Fault(StrEnum):
    LOST = "lost"  # no reply, or a stream's bytes that never came
    DUPLICATED = "duplicated"  # a second reply to a call, or more bytes than were asked for
    REORDERED = "reordered"  # the reply to another call of its session; a stream's blocks
    MISDELIVERED = "misdelivered"  # a reply that belongs to another session
    CORRUPTED = "corrupted"  # what is no reply to anything, or other bytes than there were
    DROPPED = "dropped"  # a session that was not ended by us
    STUCK = "stuck"  # a session that we ended, and which did not end at the other side
    REFUSED = "refused"  # a session or a call that got an error


@dataclass(slots=True)
class Entries:
    """What is counted. After all sessions have ended, sent = answered + wrong + given up + lost."""

    sessions: int = 0  # that came about
    stillborn: int = 0  # connections that we gave up before they were sessions
    sent: int = 0  # calls
    answered: int = 0  # with the right reply
    wrong: int = 0  # with one that was not the right one
    given_up: int = 0  # because it was us who ended the connection
    lost: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    stream_bytes: int = 0  # that were found to be those of the volume
    streams: int = 0  # of which every byte was

    def absorb(self, other: "Entries") -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def open(self) -> int:
        """Calls of which nothing is known: none, once all sessions have ended."""
        return self.sent - self.answered - self.wrong - self.given_up - self.lost


@dataclass(slots=True)
class Latest:
    """What came since it was last asked for."""

    calls: "array[int]" = field(default_factory=lambda: array("q"))  # nanoseconds
    connects: "array[int]" = field(default_factory=lambda: array("q"))
    entries: Entries = field(default_factory=Entries)
    faults: dict[str, int] = field(default_factory=dict)


class Ledger:
    """One target's. Sessions in many threads write into it, one reads now and then."""

    def __init__(self) -> None:
        self.entries = Entries()
        self.faults = dict.fromkeys(Fault, 0)
        self.examples: dict[Fault, list[str]] = {fault: [] for fault in Fault}
        self._latest = Latest()
        self._lock = threading.Lock()

    def enter(self, entries: Entries, latencies: "array[int]") -> None:
        """What a session did since it last told."""
        with self._lock:
            self.entries.absorb(entries)
            self._latest.entries.absorb(entries)
            self._latest.calls.extend(latencies)

    def connected(self, nanoseconds: int) -> None:
        """From the connect to the reply to CONNECT_OPEN."""
        with self._lock:
            self._latest.connects.append(nanoseconds)

    def fault(self, fault: Fault, told: str, count: int = 1) -> None:
        with self._lock:
            self.faults[fault] += count
            self._latest.faults[fault] = self._latest.faults.get(fault, 0) + count
            if len(self.examples[fault]) < EXAMPLES:
                self.examples[fault].append(told)

    def latest(self) -> Latest:
        """What came since it was last asked for; asked often, it stays small."""
        with self._lock:
            found, self._latest = self._latest, Latest()
        return found
