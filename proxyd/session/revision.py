"""Open sessions held to the rules that are in force now (`proxyd rules apply`).

A session is under the rule by which it was opened, whatever the file says since. This tells of each
what it would be now, and makes it so: whom no rule lets in is ended, whoever may do less or more is
held to that from the next call on. What only a new connection to the daemon can change, such as
writing by one that was opened read-only, waits for the client's next one.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import trio

from proxyd.relay.pair import RelayedPair
from proxyd.rules.ruling import Ruling
from proxyd.session.handover import Relay
from proxyd.session.roster import Client, Roster
from proxyd.session.rulings import Forbidden, Rulings
from proxyd.session.tenures import Tenures

DECIDES_S: Final = 10.0  # about one session


class Change(StrEnum):
    """What becomes of a session."""

    REFUSED = "refused"  # it is ended
    CHANGED = "changed"  # it may do something else
    MOVED = "moved"  # and cannot be told where it is: it is ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Revised:
    """One session that is not as the rules have it; `now` is in words."""

    client: Client
    change: Change
    before: str
    now: str


class Revision:
    """`recorded` is called with a session that is under another rule."""

    def __init__(
        self,
        roster: Roster,
        relay: Relay,
        rulings: Rulings,
        tenures: Tenures,
        recorded: Callable[[Client, RelayedPair], None],
    ) -> None:
        self._roster = roster
        self._relay = relay
        self._rulings = rulings
        self._tenures = tenures
        self._recorded = recorded
        self._one_at_a_time = trio.Lock()

    async def revise(self, *, act: bool) -> list[Revised]:
        """Looks at all open sessions, and with `act` does what it finds: to those that are being
        opened as well, about which is decided anew.

        Raises trio.TooSlowError where a name service does not answer; others may be held to the
        rules by then.
        """
        found = []
        async with self._one_at_a_time:
            if act:
                self._rulings.applied += 1
            for client in list(self._roster.clients.values()):
                if client.pair is None:
                    if act and client.process:
                        client.end("the rules changed: an older process may decide by others")
                    continue
                revised = await self._revised(client, act=act)
                # Not of one that has ended meanwhile, which is harmless.
                if revised is not None and self._roster.clients.get(client.number) is client:
                    found.append(revised)
                await trio.lowlevel.checkpoint()
        return found

    async def _revised(self, client: Client, *, act: bool) -> Revised | None:
        before = client.ruling
        revised = functools.partial(Revised, client=client, before=_in_words(before))
        try:
            with trio.fail_after(DECIDES_S):
                ruling = await self._rulings.decide(client, client.uri)
        except Forbidden as error:
            if act:
                client.end(f"the rules changed: {error}")
            return revised(change=Change.REFUSED, now=str(error))
        if _gives(ruling) == _gives(before):
            if act:
                client.ruling = ruling  # its line may be another one
            return None
        if client.relayed is None:
            if act:
                client.end(f"the rules changed: {_in_words(ruling)}; it may come again")
            return revised(change=Change.MOVED, now=_in_words(ruling))
        if act:
            self._hold(client, client.relayed, ruling)
        return revised(change=Change.CHANGED, now=_in_words(ruling))

    def _hold(self, client: Client, pair: RelayedPair, ruling: Ruling | None) -> None:
        client.ruling = ruling
        self._relay.restrict(pair, self._rulings.guards_of(ruling), self._rulings.pace_of(ruling))
        self._recorded(client, pair)
        self._tenures.watch(client)


def _gives(ruling: Ruling | None) -> object:
    return None if ruling is None else (ruling.grant, ruling.purse)


def _in_words(ruling: Ruling | None) -> str:
    return "no rules" if ruling is None else str(ruling)
