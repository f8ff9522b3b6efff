"""What becomes of an accepted connection: a place, a wait for one, or a word and the door.

accept ─┬─ by the network ── doorstep ─┐
        └─ by this host ───────────────┴─ a place ── session (opening.py)
                                          none: stand at the doorstep, or be turned away

While the daemon is drained nobody gets a place. Who has one when that begins is here, and goes on,
in the midst of negotiation too, which has a limit of its own; who stands at the doorstep is not
here, and is told, as is who comes; who has come by the network and is silent, when he speaks.
"""

import logging
import socket
from typing import Final

import trio

from proxyd.admission.holder import Rank, holder_of
from proxyd.admission.rates import Buckets
from proxyd.endpoint.couriers import COURIERS
from proxyd.session.doorstep import Doorstep
from proxyd.session.entrance import Entrance
from proxyd.session.line import Caller
from proxyd.session.opening import OpeningSession, Services, serve_client
from proxyd.session.tally import Refusal
from proxyd.wire import failure

# Whoever comes too fast is told so at this rate: to tell costs ten times what it costs to close.
_TOLD_A_SECOND: Final = 4.0
_TOLD_AT_ONCE: Final = 4

log = logging.getLogger("rpc.netserver")


class Reception:
    """Its tasks run in the nursery; `run` is one of them."""

    def __init__(self, services: Services, nursery: trio.Nursery) -> None:
        self._services = services
        self._nursery = nursery
        self._admission = services.roster.admission
        self._tells = Buckets[str](a_second=_TOLD_A_SECOND, burst=_TOLD_AT_ONCE)
        self.doorstep = Doorstep(
            self._admission,
            self._enter,
            timeout_s=services.timeout_s,
            episodes=services.episodes,
        )

    async def run(self) -> None:
        await self.doorstep.run()

    def arrived(self, entrance: Entrance, sock: socket.socket) -> None:
        """A listener has accepted somebody; the socket belongs to this from here on."""
        door = entrance.door
        try:
            holder = holder_of(sock, door.transport)
        except OSError as error:  # it was reset before it was looked at
            log.debug("%s: a client was gone at once: %s", door.name, error.strerror)
            COURIERS.close(sock)
            return
        caller = Caller(sock, entrance, holder, trio.current_time())
        if not self._admission.rate.admits(holder):
            self._slow_down(caller)
        elif self._admission.draining and not door.transport.traits.by_network:
            self._tell_of_drain(caller)
        elif trouble := self._services.trouble_of(door):
            self._turn_away(caller, failure.not_served(door.transport.name), trouble)
        elif holder.rank is not Rank.OWN and COURIERS.hangs(holder.name):
            self._turn_away(caller, failure.passed_what_hangs(holder.name))
        elif not self._admission.has_share(holder):
            here = self._admission.holdings.connections(holder)
            self._turn_away(caller, failure.too_many_clients(holder.name, here))
        elif door.transport.traits.by_network:
            self.doorstep.call(caller)
        elif not (self._need_not_wait(caller) and self._enter(caller)):
            loser = self.doorstep.stand(caller)
            if loser is not None:
                self._turn_away(loser, failure.no_place(self._admission.clients))

    def _need_not_wait(self, caller: Caller) -> bool:
        """Nobody stands, or those who do are behind this one."""
        standing = self.doorstep.standing[caller.door.transport]
        return not standing.count or self._admission.has_precedence(caller.holder)

    def _turn_away(self, caller: Caller, refusal: failure.Failure, why: str = "") -> None:
        self._nursery.start_soon(self._services.refusals.tell, caller, refusal, why)

    def _slow_down(self, caller: Caller) -> None:
        """Before anything was done for it: who comes too fast is to cost as little as can be."""
        holder = caller.holder
        refusal = failure.too_many_a_second(holder.name, self._admission.rate.a_second)
        traits = caller.door.transport.traits
        if traits.shakes_hands or not self._tells.take(holder.name):
            self._services.refusals.close(caller, refusal.message, Refusal.RATE)
        else:
            told = self._services.refusals.tell
            self._nursery.start_soon(told, caller, refusal, "", Refusal.RATE)

    def _tell_of_drain(self, caller: Caller) -> None:
        told = self._services.refusals.tell
        self._nursery.start_soon(told, caller, failure.draining(), "", Refusal.DRAINING)

    def _enter(self, caller: Caller) -> bool:
        """Gives a caller a place and serves it, or tells it why nobody gets one; False when there
        is none."""
        if self._admission.draining and not self._admission.closed:
            self._tell_of_drain(caller)
            return True
        place = self._admission.admit(caller.holder, caller.door)
        if place is None:
            return False
        try:
            greeting = caller.entrance.greet(caller.sock)
        except OSError as error:  # it was reset before it was looked at
            log.debug("%s: gone at once: %s", caller, error.strerror)
            self._admission.left(place)
            COURIERS.close(caller.sock)
            return True
        session = OpeningSession(greeting, caller.door, self._services, place)
        self._nursery.start_soon(serve_client, session)
        return True
