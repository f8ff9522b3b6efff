"""Being turned away: who is over a limit of his own is told so at once, and is gone in a second.

So many are told at one time, and few of them of one holder; they count in no limit but this one.
The rest is closed without a word, and so is whoever would have to be told by TLS: a handshake is
worth more than the news.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from proxyd.config.listening import Transport
from proxyd.endpoint.contract import HungUp
from proxyd.endpoint.couriers import COURIERS
from proxyd.endpoint.plain import PlainEndpoint, UnixEndpoint
from proxyd.negotiation.events import Send
from proxyd.negotiation.server import ServerNegotiation
from proxyd.session.conversation import Conversation
from proxyd.session.episodes import Episodes
from proxyd.session.holder import Holder
from proxyd.session.line import Caller
from proxyd.wire.failure import Failure
from proxyd.wire.programs import AuthMethod

PATIENCE_S: Final = 1.0
_MOST_EACH: Final = 4

log = logging.getLogger("rpc.netserver")


class Refusals:
    """Those who are being told. `most` is how many may be, of all holders."""

    def __init__(self, most: int, episodes: Episodes) -> None:
        self.most = most
        self.total = 0  # who were turned away since the start, told or not
        self._episodes = episodes
        self._told = Counter[Holder]()

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

    async def tell(self, caller: Caller, refusal: Failure) -> None:
        """Answers the first call of a caller, whose socket belongs to this, and closes it."""
        log.log(self.level(caller.holder), "%s: turned away: %s", caller, refusal.message)
        try:
            with self.place(caller.holder) as may:
                if may and caller.door.transport is not Transport.TLS:
                    await _answer_first_call(caller, refusal)
        finally:
            COURIERS.close(caller.sock)


async def _answer_first_call(caller: Caller, refusal: Failure) -> None:
    local = caller.door.transport is Transport.UNIX
    endpoint = UnixEndpoint(caller.sock) if local else PlainEndpoint(caller.sock)
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
