"""Ends sessions whose rule says for how long they may stay: until a day, or until they are idle.

Idle is a session in which nothing has happened but keepalive, and no call waits for its reply. One
task looks at those that have such a rule, and sleeps where there are none.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from proxyd.relay.pair import RelayedPair
from proxyd.session.roster import Client, Roster
from proxyd.wire.frame import HEADER_SIZE

_OFTEN_S: Final = 0.25
_SELDOM_S: Final = 15.0
_PARTS: Final = 10  # of the shortest time that is asked for


@dataclass(slots=True)
class _Tenure:
    client: Client
    moved: int = -1  # bytes that were no keepalive
    since_s: float = 0.0


class Tenures:
    """Those of open sessions that this process serves; `run` is the task that looks."""

    def __init__(self, roster: Roster, clock: Callable[[], float] = time.time) -> None:
        self._roster = roster
        self._clock = clock  # CLOCK_REALTIME
        self._watched: dict[int, _Tenure] = {}
        self._somebody = trio.Event()

    def watch(self, client: Client) -> None:
        """Its session is open, or under another rule from now on."""
        self._watched.pop(client.number, None)
        grant = None if client.ruling is None else client.ruling.grant
        if grant is not None and (grant.idle_s or grant.until_s):
            self._watched[client.number] = _Tenure(client)
            self._somebody.set()

    async def run(self) -> None:
        while True:
            await self._somebody.wait()
            self._look()
            if not self._watched:
                self._somebody = trio.Event()
                continue
            await trio.sleep(self._pause_s())

    def _look(self) -> None:
        for number, tenure in list(self._watched.items()):
            client = tenure.client
            pair = client.relayed
            if self._roster.clients.get(number) is not client or pair is None:
                del self._watched[number]
                continue
            why = self._over(tenure, pair)
            if why:
                del self._watched[number]
                client.end(why)

    def _over(self, tenure: _Tenure, pair: RelayedPair) -> str:
        """Why its time is over; "" as long as it is not."""
        ruling = tenure.client.ruling
        if ruling is None:
            return ""
        if ruling.grant.until_s and self._clock() >= ruling.grant.until_s:
            return f"the time of rule {ruling.line} is over"
        moved, now_s = _moved(pair), trio.current_time()
        if moved != tenure.moved or pair.unanswered:
            tenure.moved, tenure.since_s = moved, now_s
        elif ruling.grant.idle_s and now_s - tenure.since_s >= ruling.grant.idle_s:
            return f"idle for {ruling.grant.idle_s} s, which is all that rule {ruling.line} allows"
        return ""

    def _pause_s(self) -> float:
        pause_s, now_s = _SELDOM_S, self._clock()
        for tenure in self._watched.values():
            assert tenure.client.ruling is not None
            grant = tenure.client.ruling.grant
            if grant.idle_s:
                pause_s = min(pause_s, grant.idle_s / _PARTS)
            if grant.until_s:
                pause_s = min(pause_s, grant.until_s - now_s)
        return max(_OFTEN_S, pause_s)


def _moved(pair: RelayedPair) -> int:
    flows = pair.up, pair.down
    return sum(flow.moved - HEADER_SIZE * flow.keepalives for flow in flows)
