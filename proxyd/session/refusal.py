"""Being turned away: who is over a limit of his own is told so at once, and is gone in a second.

So many are told at one time, and few of them of one holder; they count in no limit but this one.
The rest is closed without a word, and so is whoever has a handshake to make first, which is worth
more than the news.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from proxyd.admission.holder import Holder
from proxyd.endpoint.contract import Endpoint, HungUp
from proxyd.endpoint.couriers import COURIERS
from proxyd.endpoint.plain import PlainEndpoint
from proxyd.log.episodes import Episodes
from proxyd.negotiation.events import Send
from proxyd.negotiation.server import ServerNegotiation
from proxyd.session.conversation import Conversation
from proxyd.session.leaving import Part, part_at_once
from proxyd.session.line import Caller
from proxyd.wire.failure import Failure
from proxyd.wire.programs import AuthMethod

PATIENCE_S: Final = 1.0
_MOST_EACH: Final = 4

log = logging.getLogger("rpc.netserver")


class Refusals:
    """Those who are being told. `most` is how many may be, of all holders."""

    def __init__(self, most: int, episodes: Episodes, part: Part = part_at_once) -> None:
        self.most = most
        self.total = 0  # who were turned away since the start, told or not
        self._episodes = episodes
        self._part = part
        self._told = Counter[Holder]()
        self.on_denied: Callable[[Caller, str], None] = _nobody_records

    @contextmanager
    def place(self, holder: Holder) -> Iterator[bool]:
        """Whether one more of this holder's may be told, while the block lasts."""
        self.total += 1
        may = self._told.total() < self.most and self._told[holder] < _MOST_EACH
        self._told[holder] += may
        try:
            yield may
        finally:
            self._told[holder] -= may
            if not self._told[holder]:
                del self._told[holder]

    def level(self, holder: Holder) -> int:
        """Of a log line: the first one of an episode is to be seen."""
        return logging.WARNING if self._episodes.begins((holder, "refused")) else logging.DEBUG

    async def tell(self, caller: Caller, refusal: Failure, why: str = "") -> None:
        """Answers the first call of a caller, whose socket belongs to this, and closes it.

        `why` is for the log, where it says more than a stranger is told.
        """
        log.log(self.level(caller.holder), "%s: turned away: %s", caller, why or refusal.message)
        self.on_denied(caller, why or refusal.message)
        endpoint: Endpoint | None = None
        try:
            with self.place(caller.holder) as may:
                if may and caller.door.transport.traits.shakes_hands:
                    endpoint = PlainEndpoint(caller.sock)  # its hello is not understood any more
                elif may:
                    endpoint = caller.entrance.greet(caller.sock).endpoint
                    await _answer_first_call(caller, endpoint, refusal)
        except OSError:  # it was reset before it was looked at
            endpoint = None
        finally:
            if endpoint is None:
                COURIERS.close(caller.sock)
            else:
                self._part(endpoint, caller.holder)


async def _answer_first_call(caller: Caller, endpoint: Endpoint, refusal: Failure) -> None:
    machine = ServerNegotiation(
        method=AuthMethod.NONE, readonly=caller.door.readonly, turned_away=refusal
    )
    conversation = Conversation(endpoint)
    with trio.move_on_after(PATIENCE_S):
        try:
            while machine.wanted:
                for event in machine.receive_data(await conversation.receive(machine.wanted)):
                    if isinstance(event, Send):
                        await conversation.send(event.wire)
        except HungUp as error:
            log.debug("%s: gone before it was told: %s", caller, error.reason)


def _nobody_records(_caller: Caller, _reason: str) -> None:
    """Until somebody does."""
