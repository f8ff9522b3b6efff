"""The server `admin`: who is connected to the admin socket, and its limits."""

import socket
import time
from typing import Final

import trio

from proxyd.admin.pool import check_unchanged, fixed_pool
from proxyd.admin.view import CallRefused, Limits, Pool, PoolBounds
from proxyd.admission.admission import Admission
from proxyd.admission.holder import Holder, Rank
from proxyd.admission.place import Place
from proxyd.config.transports import Transport
from proxyd.endpoint.plain import UnixEndpoint
from proxyd.negotiation.identity import ClientIdentity
from proxyd.wire import failure

# Whoever is not the daemon's own user is gone before anybody else is looked at.
OWN_USER: Final = Holder("the daemon's own user", Rank.OWN)

_POOL: Final = fixed_pool(1)  # the control plane's thread, which is busy with whoever asks


class Visitor:
    """One client of the admin socket; owns its connection. Made at accept, so that it counts."""

    transport = Transport.UNIX
    authentication = ""  # they are the daemon's own user; libvirt has no word for it
    readonly = False
    address = ""

    def __init__(self, number: int, sock: socket.socket, place: Place) -> None:
        self.number = number
        self.place = place
        self.sock = sock
        self.endpoint = UnixEndpoint(sock)
        self.connected_s = time.time()
        self.known_identity: ClientIdentity | None = None
        self.scope = trio.CancelScope()  # around all that is done for it
        self.asked_to_stop = False  # the daemon, which ends when this one has gone

    def close(self) -> None:
        """It is gone when its task runs next; what fits into its socket until then is sent."""
        self.scope.cancel()

    def __str__(self) -> str:
        return f"admin client {self.number}, {self.known_identity or 'nobody known'}"


class AdminServer:
    """Visitors, from accept to end. Numbers start at 1 and only grow.

    Nobody is ever anonymous here, so that limit has no effect: it is kept for those who set it.
    """

    name = "admin"
    pool: Pool = _POOL
    anonymous = 0

    def __init__(self, *, max_clients: int) -> None:
        self.admission = Admission(max_clients=max_clients, max_anonymous=0)
        self._visitors: dict[int, Visitor] = {}
        self._last = 0

    def arrived(self, sock: socket.socket) -> Visitor:
        """A connection was accepted, `admission` having room; it now belongs to the visitor."""
        self._last += 1
        visitor = Visitor(self._last, sock, self.admission.seat(OWN_USER))
        self._visitors[self._last] = visitor
        return visitor

    def left(self, visitor: Visitor) -> None:
        del self._visitors[visitor.number]
        self.admission.left(visitor.place)

    async def who_asked_to_stop_has_gone(self) -> None:
        while any(visitor.asked_to_stop for visitor in self._visitors.values()):
            await self.admission.wait_change()

    async def send_away(self) -> None:
        """Ends all visits; returns when they have ended."""
        for visitor in self.clients():
            visitor.close()
        while self._visitors:
            await self.admission.wait_change()

    @property
    def limits(self) -> Limits:
        return Limits(
            max_clients=self.admission.max_clients, max_anonymous=self.admission.max_anonymous
        )

    def clients(self) -> list[Visitor]:
        return list(self._visitors.values())

    def find(self, number: int) -> Visitor | None:
        return self._visitors.get(number)

    def set_pool(self, bounds: PoolBounds) -> None:
        check_unchanged(self.pool, bounds)

    def set_limits(self, limits: Limits) -> None:
        if limits.max_clients == 0:
            # libvirt obeys, and then nobody can ever say otherwise.
            text = "nclients_max of the admin server is at least 1: 0 would lock everybody out"
            raise CallRefused(failure.invalid_argument(text))
        self.admission.change(max_clients=limits.max_clients, max_anonymous=limits.max_anonymous)

    async def update_tls(self) -> None:
        await trio.lowlevel.checkpoint()
        raise CallRefused(
            failure.internal("the admin server has no TLS listener, only a UNIX socket")
        )
