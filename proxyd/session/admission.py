"""How many clients there may be; listeners wait here while there is no room.

At a limit nobody is refused: the listeners stop accepting and clients wait in the kernel's
backlog, as libvirt does it (reference/handshake.md, section 2). Unlike libvirt, the log says so,
once per episode: from the limit until a listener has room and finds nobody waiting.
"""

import logging

import trio

log = logging.getLogger("rpc.netserver")


class Admission:
    """Counts clients, and among them those whose identity has not been proven.

    `max_anonymous` 0 means no limit. Limits may be changed at any time.
    """

    def __init__(self, *, max_clients: int, max_anonymous: int) -> None:
        self._max_clients = max_clients
        self._max_anonymous = max_anonymous
        self.clients = 0
        self.anonymous = 0
        self._waiting = trio.lowlevel.ParkingLot()
        self._told = False

    def change(self, *, max_clients: int, max_anonymous: int) -> None:
        """New limits; nobody who is in is sent away."""
        self._max_clients = max_clients
        self._max_anonymous = max_anonymous
        self._let_in()

    @property
    def has_room(self) -> bool:
        return self.clients < self._max_clients and not (
            self._max_anonymous and self.anonymous >= self._max_anonymous
        )

    async def room(self) -> None:
        """Returns at once, or when a client has left."""
        while not self.has_room:
            if not self._told:
                self._told = True
                log.warning(
                    "no room for more clients: %d of %d are connected, %d of %s of them"
                    " unauthenticated; others wait (see max_clients, max_anonymous_clients)",
                    self.clients,
                    self._max_clients,
                    self.anonymous,
                    self._max_anonymous or "any number",
                )
            await self._waiting.park()

    def arrived(self, *, anonymous: bool) -> None:
        self.clients += 1
        self.anonymous += anonymous

    def proved(self) -> None:
        """One client is no longer anonymous."""
        self.anonymous -= 1
        self._let_in()

    def left(self, *, anonymous: bool) -> None:
        self.clients -= 1
        self.anonymous -= anonymous
        self._let_in()

    def nobody_waits(self) -> None:
        """A listener found its backlog empty: an episode, if there was one, is over."""
        if self._told and self.has_room:
            self._told = False
            log.info("nobody waits any more: %d clients are connected", self.clients)

    def _let_in(self) -> None:
        if self.has_room:
            self._waiting.unpark_all()
