"""Callers in line: accepted connections of whom nothing has been read and that have no place."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

from proxyd.admission.holder import Holder
from proxyd.config.listeners import Door
from proxyd.session.entrance import Entrance


@dataclass(eq=False, slots=True)
class Caller:
    """Owns its socket until it has a place. `since` is trio's time."""

    sock: socket.socket
    entrance: Entrance
    holder: Holder
    since: float
    spoken: bool = False  # its first byte is there
    descriptor: int = field(init=False)

    def __post_init__(self) -> None:
        self.descriptor = self.sock.fileno()

    @property
    def door(self) -> Door:
        return self.entrance.door

    def __str__(self) -> str:
        return f"{self.door.name}, from {self.holder.name}"


class Line:
    """Callers by their holders, each holder's in the order in which they came."""

    def __init__(self) -> None:
        self.count = 0
        self._of: dict[Holder, dict[Caller, None]] = {}

    def __contains__(self, caller: Caller) -> bool:
        return caller in self._of.get(caller.holder, ())

    def __iter__(self) -> Iterator[Caller]:
        return iter([caller for callers in self._of.values() for caller in callers])

    @property
    def uneven(self) -> bool:
        """Whether somebody has more than one here, and would make way for who has none."""
        return self.count > len(self._of)

    def first_of_each(self) -> list[Caller]:
        return [next(iter(callers)) for callers in self._of.values()]

    def add(self, caller: Caller) -> None:
        self._of.setdefault(caller.holder, {})[caller] = None
        self.count += 1

    def discard(self, caller: Caller) -> None:
        callers = self._of.get(caller.holder)
        if callers is None or caller not in callers:
            return
        del callers[caller]
        self.count -= 1
        if not callers:
            del self._of[caller.holder]

    def loser(self, newcomer: Holder) -> Caller | None:
        """Who makes way for a newcomer: of the holder that has the most, who has been silent for
        longest, or else came last. None if the newcomer's holder would then have as many."""
        most = max(self._of.values(), key=len, default={})
        if len(most) <= len(self._of.get(newcomer, ())) + 1:
            return None
        silent = (caller for caller in most if not caller.spoken)
        return next(silent, next(reversed(most)))

    def longest_silent(self, newcomer: Holder) -> Caller | None:
        """Of all holders that have no fewer than the newcomer's."""
        fewest = len(self._of.get(newcomer, ()))
        silent = [
            caller
            for callers in self._of.values()
            if len(callers) >= fewest
            for caller in callers
            if not caller.spoken
        ]
        return min(silent, key=lambda caller: caller.since, default=None)
