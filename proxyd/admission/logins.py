"""Logins that fail: how many each may have, and how long the next one waits.

An attempt takes a token when it begins, and gets it back when it succeeds; so attempts that go on
side by side, and those that are left in the middle, count like all others. Whose tokens are looked
at depends on what is known of him who begins:

    has come in as this user from here, within a day      those of the two together
    everybody else                                        those of his holder, and if he has failed
                                                          with this name before, the name's, too

So a stranger who tries names keeps no user out: who has come in from where he is has tokens of his
own, and elsewhere the name counts only for those who have failed with it. What a stranger can use
up is what those have who share his address and have never come in from it.

Where tokens are out, the next one waits while an attempt goes on that may give its own back; else
he is refused at once. A failure makes a pause (pauses.py): its answer waits for the end of it, and
so does who begins next, so that a second connection is no way around. Few wait like that; the
others are refused. A success pays back what this user has failed here, and no more, so that nobody
who has a password can go on to try those of others.

A mechanism may know before the end that the client is no stranger (his Kerberos ticket is good):
that gives the token back, too, and is no success yet.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple, TypeAlias

import trio

from proxyd.admission.holder import Holder, Rank
from proxyd.admission.pauses import LONGEST_S, Pauses
from proxyd.admission.rates import MOST, Buckets, Over

_LATELY_S: Final = 86400.0
_MOST_WAITING: Final = 256  # for pauses, of all; each holds a connection and no turn of others'
_MOST_WAITING_EACH: Final = 16
_LONGEST_NAME: Final = 64  # as remembered; longer ones that begin alike are one
_A_MINUTE_S: Final = 60.0

# Gives up, as long as the block lasts, what others wait for.
Aside: TypeAlias = Callable[[], AbstractAsyncContextManager[None]]


class TooManyFailures(Exception):
    """An attempt is refused before anybody has looked at it. The text is for the log."""


class _Pair(NamedTuple):
    """A user as somebody who comes from here; "" where no name is said at the beginning."""

    holder: str
    name: str


class _Limit:
    """Tokens and pauses of one kind of key, and how many of its attempts go on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.buckets = Buckets[Hashable](clock=clock)
        self.pauses = Pauses[Hashable](clock=clock)
        self.going_on = Counter[Hashable]()
        self.lines: dict[Hashable, trio.lowlevel.ParkingLot] = {}

    def change(self, a_minute: int) -> None:
        self.buckets.change(a_second=a_minute / _A_MINUTE_S, burst=max(1, a_minute))
        if not a_minute:
            self.pauses.clear()
        for lot in self.lines.values():
            lot.unpark_all()


class _Account(NamedTuple):
    """What attempts take their tokens of."""

    limit: _Limit
    key: Hashable

    @property
    def is_empty(self) -> bool:
        return self.limit.buckets.is_empty(self.key)

    @property
    def may_get_one_back(self) -> bool:
        return self.key in self.limit.going_on

    @property
    def pause_ends(self) -> float:
        return self.limit.pauses.until(self.key)

    def take(self) -> None:
        """Of an empty one nothing."""
        self.limit.buckets.take(self.key)

    def begin(self) -> None:
        self.take()
        self.limit.going_on[self.key] += 1

    def end(self, *, given_back: bool) -> None:
        """One attempt less, for whose token one may have waited; for the last one's all."""
        if given_back:
            self.limit.buckets.give_back(self.key)
        going_on = self.limit.going_on
        going_on[self.key] -= 1
        last = not going_on[self.key]
        if last:
            del going_on[self.key]
        lot = self.limit.lines.get(self.key)
        if lot is not None and (given_back or last):
            lot.unpark(count=math.inf if last else 1)

    @property
    def owed(self) -> tuple[float, int]:
        """Tokens, and failures in a row."""
        return self.limit.buckets.owed(self.key), self.limit.pauses.failures(self.key)

    def forgive(self, tokens: float, failures: int) -> None:
        self.limit.buckets.give_back(self.key, tokens)
        self.limit.pauses.shorten(self.key, failures)

    async def wait(self) -> None:
        """Until an attempt has ended."""
        lines = self.limit.lines
        lot = lines.setdefault(self.key, trio.lowlevel.ParkingLot())
        try:
            await lot.park()
        finally:
            if not lot and lines.get(self.key) is lot:
                del lines[self.key]


class _Recent:
    """Who was noted within a day; of so many who was noted longest ago makes way."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at: dict[_Pair, float] = {}

    def __contains__(self, pair: _Pair) -> bool:
        at = self._at.get(pair)
        return at is not None and self._clock() - at < _LATELY_S

    def note(self, pair: _Pair) -> None:
        if self._at.pop(pair, None) is None and len(self._at) >= MOST:
            del self._at[next(iter(self._at))]
        self._at[pair] = self._clock()

    def discard(self, pair: _Pair) -> None:
        self._at.pop(pair, None)


class Attempt:
    """One login. `succeeded` or `failed` ends it, or `left`; to say so again is harmless."""

    def __init__(self, logins: "Logins", pair: _Pair, accounts: list[_Account]) -> None:
        self.pair = pair
        self.accounts = accounts  # none: nobody counts
        self.pause_ends = 0.0  # when the failure may be answered
        self._logins = logins
        self._goes_on = True
        self._is_counted = True

    def vouched(self) -> None:
        """The client is no stranger, whatever comes of it."""
        self._count_no_more(given_back=True)

    def succeeded(self) -> None:
        if self._goes_on:
            self._goes_on = False
            self._count_no_more(given_back=True)
            self._logins.came_in(self)

    def failed(self) -> None:
        if not self._goes_on:
            return
        self._goes_on = False
        if not self._is_counted:
            for each in self.accounts:
                each.take()
        self._count_no_more(given_back=False)
        self._logins.fell_out(self)

    def left(self) -> None:
        """Nobody has said how it ends: the client is gone, or has begun anew."""
        if self._is_counted:
            self.failed()
        self._goes_on = False

    def _count_no_more(self, *, given_back: bool) -> None:
        if self._is_counted:
            self._is_counted = False
            for each in self.accounts:
                each.end(given_back=given_back)


class Logins:
    """`a_minute` failures of each; 0 is any number, and then nobody waits either."""

    def __init__(self, a_minute: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.a_minute = 0
        self.delayed_s = 0.0  # by pauses, in all
        self.over = Over(clock)
        self._clock = clock
        self._waiting = Counter[str]()  # for the end of a pause
        # What pairs owe that have come in stands where no stranger can fill the table.
        self._regulars, self._pairs = _Limit(clock), _Limit(clock)
        self._holders, self._names = _Limit(clock), _Limit(clock)
        self._have_failed, self._have_come_in = _Recent(clock), _Recent(clock)
        self.change(a_minute)

    def change(self, a_minute: int) -> None:
        """What has failed so far counts on."""
        if a_minute != self.a_minute:
            self.a_minute = a_minute
            for each in (self._regulars, self._pairs, self._holders, self._names):
                each.change(a_minute)

    async def begin(self, holder: Holder, name: str, aside: Aside) -> Attempt:
        """An attempt of one who says that he is `name`, as soon as it may be made.

        Root and the daemon's own user are let off. Raises TooManyFailures.
        """
        pair = _Pair(holder.name, name[:_LONGEST_NAME])
        if holder.rank is Rank.OWN or not self.a_minute:
            return Attempt(self, pair, [])
        await self._wait_for_pauses(pair, aside)
        while empty := self._empty(pair):
            if not empty.may_get_one_back:
                raise self._refused(pair, f"more than {self.a_minute} logins a minute have failed")
            await empty.wait()
        accounts = self._accounts(pair)
        for each in accounts:
            each.begin()
        return Attempt(self, pair, accounts)

    async def pause(self, attempt: Attempt, aside: Aside) -> None:
        """Returns when the failure may be answered."""
        pause_s = min(LONGEST_S, attempt.pause_ends - self._clock())
        if pause_s > 0 and self._may_wait(attempt.pair):
            await self._wait(attempt.pair, pause_s, aside)

    def came_in(self, attempt: Attempt) -> None:
        """It has succeeded."""
        if not attempt.accounts:
            return
        pair = attempt.pair
        _Account(self._regulars, pair).forgive(*_Account(self._regulars, pair).owed)
        owed = _Account(self._pairs, pair).owed
        for each in self._strangers(pair):
            each.forgive(*owed)
        self._have_failed.discard(pair)
        self._have_come_in.note(pair)

    def fell_out(self, attempt: Attempt) -> None:
        """It has failed."""
        if not attempt.accounts:
            return
        pair, accounts = attempt.pair, attempt.accounts
        if pair not in self._have_come_in:
            self._have_failed.note(pair)
            late = [each for each in self._accounts(pair) if each not in accounts]
            for each in late:  # the name's: it was the first failure with it from here
                each.take()
            accounts = accounts + late
        for each in accounts:
            each.limit.pauses.lengthen(each.key)
        attempt.pause_ends = max(each.pause_ends for each in accounts)

    def _accounts(self, pair: _Pair) -> list[_Account]:
        """Those that are looked at for this one."""
        if pair in self._have_come_in:
            return [_Account(self._regulars, pair)]
        found = self._strangers(pair)
        return found if pair in self._have_failed else found[:2]

    def _strangers(self, pair: _Pair) -> list[_Account]:
        """All that somebody can owe who has not come in. No pair owes more than its holder and its
        name, so what is forgiven for its sake is nobody else's."""
        found = [_Account(self._pairs, pair), _Account(self._holders, pair.holder)]
        return [*found, _Account(self._names, pair.name)] if pair.name else found

    def _empty(self, pair: _Pair) -> _Account | None:
        return next((each for each in self._accounts(pair) if each.is_empty), None)

    async def _wait_for_pauses(self, pair: _Pair, aside: Aside) -> None:
        pause_s = max(each.pause_ends for each in self._accounts(pair)) - self._clock()
        if pause_s <= 0:
            return
        if pause_s > LONGEST_S or not self._may_wait(pair):
            raise self._refused(pair, "too many logins have failed at one time")
        await self._wait(pair, pause_s, aside)

    def _may_wait(self, pair: _Pair) -> bool:
        return (
            self._waiting.total() < _MOST_WAITING
            and self._waiting[pair.holder] < _MOST_WAITING_EACH
        )

    async def _wait(self, pair: _Pair, pause_s: float, aside: Aside) -> None:
        began = self._clock()
        self._waiting[pair.holder] += 1
        try:
            async with aside():
                await trio.sleep(pause_s)
        finally:
            self.delayed_s += self._clock() - began
            self._waiting[pair.holder] -= 1
            if not self._waiting[pair.holder]:
                del self._waiting[pair.holder]

    def _refused(self, pair: _Pair, why: str) -> TooManyFailures:
        self.over.note(pair.holder)
        return TooManyFailures(f"{why} (proxyd_login_failures, of {pair.holder})")
