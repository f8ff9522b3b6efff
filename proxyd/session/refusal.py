"""Being turned away: who is over a limit of his own is told so at once, and is gone in a second.

So many are told at one time, and few of them of one holder; they count in no limit but this one.
The rest is closed without a word, and so is whoever has a handshake to make first, which is worth
more than the news. That the host is drained is news for everybody: for that so many handshakes are
made in a second, and no more.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from proxyd.admission.holder import Holder
from proxyd.admission.place import Place
from proxyd.endpoint.contract import Endpoint, HungUp
from proxyd.endpoint.couriers import COURIERS
from proxyd.endpoint.plain import PlainEndpoint
from proxyd.log.episodes import Episodes
from proxyd.log.rate import LogRate
from proxyd.negotiation.events import Send
from proxyd.negotiation.server import ServerNegotiation
from proxyd.session.conversation import Conversation
from proxyd.session.greeting import Greeting, Untrusted
from proxyd.session.leaving import Part, part_at_once
from proxyd.session.line import Caller
from proxyd.session.roster import Client
from proxyd.session.tally import Refusal
from proxyd.wire.failure import Failure
from proxyd.wire.programs import AuthMethod

PATIENCE_S: Final = 1.0
_MOST_EACH: Final = 4
_HANDSHAKE_S: Final = 2.0  # from the other end of the world
# Of handshakes for the sake of the news: at 2.4 ms each they take 8 % of a processor.
_HANDSHAKES_A_SECOND: Final = 32

log = logging.getLogger("rpc.netserver")


class Refusals:
    """Those who are being told. `most` is how many may be, of all holders."""

    def __init__(self, most: int, episodes: Episodes, part: Part = part_at_once) -> None:
        self.most = most
        self.reasons = Counter[Refusal]()  # of whom since the start, told or not
        self._episodes = episodes
        self._part = part
        self._told = Counter[Holder]()
        self._handshakes = LogRate(_HANDSHAKES_A_SECOND, _HANDSHAKES_A_SECOND)
        self.on_denied: Callable[[Caller, str], None] = _nobody_records

    @contextmanager
    def place(self, holder: Holder, reason: Refusal = Refusal.NO_PLACE) -> Iterator[bool]:
        """Whether one more of this holder's may be told, while the block lasts."""
        self.reasons[reason] += 1
        may = self._told.total() < self.most and self._told[holder] < _MOST_EACH
        self._told[holder] += may
        try:
            yield may
        finally:
            self._told[holder] -= may
            if not self._told[holder]:
                del self._told[holder]

    def level(self, holder: Holder, reason: Refusal = Refusal.NO_PLACE) -> int:
        """Of a log line: the first one of an episode is to be seen."""
        news = self._episodes.begins((holder, "refused", reason))
        return logging.WARNING if news else logging.DEBUG

    def close(self, caller: Caller, why: str, reason: Refusal) -> None:
        """Without a word, at once. Of an episode the first one is recorded."""
        self.reasons[reason] += 1
        if self._episodes.begins((caller.holder, "refused", reason)):
            log.warning("%s: turned away: %s", caller, why)
            self.on_denied(caller, why)
        COURIERS.close(caller.sock)

    async def tell(
        self,
        caller: Caller,
        refusal: Failure,
        why: str = "",
        reason: Refusal = Refusal.NO_PLACE,
    ) -> None:
        """Answers the first call of a caller, whose socket belongs to this, and closes it.

        `why` is for the log, where it says more than a stranger is told.
        """
        log.log(
            self.level(caller.holder, reason), "%s: turned away: %s", caller, why or refusal.message
        )
        self.on_denied(caller, why or refusal.message)
        endpoint: Endpoint | None = None
        try:
            with self.place(caller.holder, reason) as may:
                if may and not self._may_meet(caller, reason):
                    endpoint = PlainEndpoint(caller.sock)  # its hello is not understood any more
                elif may:
                    greeting = caller.entrance.greet(caller.sock)
                    endpoint = greeting.endpoint
                    if await _met(caller, greeting):
                        await _answer_first_call(caller, endpoint, refusal)
        except OSError:  # it was reset before it was looked at
            endpoint = None
        finally:
            if endpoint is None:
                COURIERS.close(caller.sock)
            else:
                self._part(endpoint, caller.holder)

    def _may_meet(self, caller: Caller, reason: Refusal) -> bool:
        if not caller.door.transport.traits.shakes_hands:
            return True
        return reason is Refusal.DRAINING and self._handshakes.admits(reason, time.monotonic())


async def _met(caller: Caller, greeting: Greeting) -> bool:
    """Whether it can be told now: behind its handshake, where it has one to make."""
    if not caller.door.transport.traits.shakes_hands:
        return True
    with trio.move_on_after(_HANDSHAKE_S):
        try:
            await greeting.meet(_nobody_known(caller))
        except (Untrusted, HungUp) as error:
            log.debug("%s: not told: %s", caller, error)
        except Exception:  # as around a session: a handshake is as much code as most of one
            log.exception("%s: an error of proxyd's own", caller)
        else:
            return True
    return False


def _nobody_known(caller: Caller) -> Client:
    """Of no roster, and without a place that counts."""
    return Client(
        number=0,
        door=caller.door,
        place=Place(caller.holder, time.monotonic, anonymous=True),
        connected_s=time.time(),
        readonly=caller.door.readonly,
        end=lambda _: None,
    )


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
