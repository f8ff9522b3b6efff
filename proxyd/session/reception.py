"""What becomes of an accepted connection: a place, a wait for one, or a word and the door.

accept ─┬─ by the network ── doorstep ─┐
        └─ by this host ───────────────┴─ a place ── session (client.py)
                                          none: stand at the doorstep, or be turned away
"""

import logging
import socket
from collections.abc import Callable

import trio

from proxyd.config.listening import Door, Transport
from proxyd.endpoint.couriers import COURIERS
from proxyd.session.client import Arrival, Services, serve_client
from proxyd.session.doorstep import Doorstep
from proxyd.session.greeting import Greeting
from proxyd.session.holder import Rank, holder_of
from proxyd.session.line import Caller
from proxyd.wire import failure

log = logging.getLogger("rpc.netserver")


class Reception:
    """`greet` says how a connection is met. Its tasks run in the nursery; `run` is one of them."""

    def __init__(
        self,
        services: Services,
        greet: Callable[[socket.socket, Door], Greeting],
        nursery: trio.Nursery,
    ) -> None:
        self._services = services
        self._greet = greet
        self._nursery = nursery
        self._admission = services.roster.admission
        self.doorstep = Doorstep(
            self._admission,
            self._enter,
            timeout_s=services.timeout_s,
            episodes=services.episodes,
        )

    async def run(self) -> None:
        await self.doorstep.run()

    def arrived(self, door: Door, sock: socket.socket) -> None:
        """A listener has accepted somebody; the socket belongs to this from here on."""
        try:
            holder = holder_of(sock, door.transport)
        except OSError as error:  # it was reset before it was looked at
            log.debug("%s: a client was gone at once: %s", door.name, error.strerror)
            COURIERS.close(sock)
            return
        caller = Caller(sock, door, holder, trio.current_time())
        if holder.rank is not Rank.OWN and COURIERS.hangs(holder.name):
            self._turn_away(caller, failure.passed_what_hangs(holder.name))
        elif not self._admission.has_share(holder):
            here = self._admission.holdings.connections(holder)
            self._turn_away(caller, failure.too_many_clients(holder.name, here))
        elif door.transport is not Transport.UNIX:
            self.doorstep.call(caller)
        elif not (self._need_not_wait(caller) and self._enter(caller)):
            loser = self.doorstep.stand(caller)
            if loser is not None:
                self._turn_away(loser, failure.no_place(self._admission.clients))

    def _need_not_wait(self, caller: Caller) -> bool:
        """Nobody stands, or those who do are behind this one."""
        standing = self.doorstep.standing[Transport.UNIX]
        return not standing.count or self._admission.has_precedence(caller.holder)

    def _turn_away(self, caller: Caller, refusal: failure.Failure) -> None:
        self._nursery.start_soon(self._services.refusals.tell, caller, refusal)

    def _enter(self, caller: Caller) -> bool:
        """Gives a caller a place and serves it; False when there is none."""
        place = self._admission.admit(caller.holder, caller.door)
        if place is None:
            return False
        try:
            greeting = self._greet(caller.sock, caller.door)
        except OSError as error:  # it was reset before it was looked at
            log.debug("%s: gone at once: %s", caller, error.strerror)
            self._admission.left(place)
            COURIERS.close(caller.sock)
            return True
        arrival = Arrival(greeting, caller.door, self._services, place)
        self._nursery.start_soon(serve_client, arrival)
        return True
