"""How many clients there may be; listeners wait here while there is no room.

At a limit nobody is refused: the listeners stop accepting and clients wait in the kernel's
backlog, as libvirt does it (reference/handshake.md, section 2). Unlike libvirt, the log says so,
once per episode: from the limit until a listener has room and finds nobody waiting. And each
transport has the limit of unauthenticated clients for itself, so that strangers of the network
never keep clients of this host waiting.
"""

import logging
from collections import Counter
from collections.abc import Callable

import trio

from proxyd.config.listening import Transport

log = logging.getLogger("rpc.netserver")


class Admission:
    """Counts clients, and for each transport those whose identity has not been proven.

    `max_anonymous` 0 means no limit. Limits may be changed at any time.
    """

    def __init__(self, *, max_clients: int, max_anonymous: int) -> None:
        self.max_clients = max_clients
        self.max_anonymous = max_anonymous
        self.clients = 0
        self.closed = False
        self.changed = trio.Event()  # set when a client comes or goes, and then replaced
        self.on_change: Callable[[], None] = _nobody_listens  # called at once, for each of them
        self._anonymous = Counter[Transport]()
        self._waiting = trio.lowlevel.ParkingLot()
        self._told = set[Transport]()  # whose episode goes on

    @property
    def anonymous(self) -> int:
        """Of all transports together."""
        return self._anonymous.total()

    def change(self, *, max_clients: int, max_anonymous: int) -> None:
        """New limits; nobody who is in is sent away."""
        self.max_clients = max_clients
        self.max_anonymous = max_anonymous
        self._let_in()

    def has_room(self, transport: Transport) -> bool:
        return (
            self.clients < self.max_clients
            and not self.closed
            and not (self.max_anonymous and self._anonymous[transport] >= self.max_anonymous)
        )

    async def room(self, transport: Transport) -> None:
        """Returns at once, or when a client has left."""
        while not self.has_room(transport):
            if transport not in self._told and not self.closed:
                self._told.add(transport)
                log.warning(
                    "no room for more clients by %s: %d of %d are connected, %d of %s"
                    " unauthenticated; others wait (see max_clients, max_anonymous_clients)",
                    transport.name,
                    self.clients,
                    self.max_clients,
                    self._anonymous[transport],
                    self.max_anonymous or "any number",
                )
            await self._waiting.park()

    def arrived(self, transport: Transport, *, anonymous: bool) -> None:
        self.clients += 1
        self._anonymous[transport] += anonymous
        self._tell()

    def proved(self, transport: Transport) -> None:
        """One client is no longer anonymous."""
        self._anonymous[transport] -= 1
        self._let_in()

    def left(self, transport: Transport, *, anonymous: bool) -> None:
        self.clients -= 1
        self._anonymous[transport] -= anonymous
        self._tell()
        self._let_in()

    def close(self) -> None:
        """From this moment on nobody is let in; who comes stays in the kernel's backlog.

        Cancelling a listener's task is not enough: one that has been told of a client already
        would still accept it, and then nobody would serve it.
        """
        self.closed = True

    async def wait_change(self) -> None:
        """Returns when a client has come or gone since the call."""
        await self.changed.wait()

    def nobody_waits(self, transport: Transport) -> None:
        """A listener found its backlog empty: an episode, if there was one, is over."""
        if transport in self._told and self.has_room(transport):
            self._told.discard(transport)
            log.info(
                "nobody waits any more by %s: %d clients are connected",
                transport.name,
                self.clients,
            )

    def _let_in(self) -> None:
        if self.clients < self.max_clients:
            self._waiting.unpark_all()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()
        self.on_change()


def _nobody_listens() -> None:
    """Until somebody does."""
