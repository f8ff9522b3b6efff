"""An endpoint driven by trio: what the control plane uses until the hand-over.

The first try is made without waiting, so a peer that has sent already costs no turn of the loop.
Behind something that was said the answer is waited for: it is never there yet.

Nobody else waits for a peer, however much and however it sends; that is held here, for clients,
daemons and administrators alike:

* Every receive is a checkpoint, and after a few that did not have to wait the loop turns. Who opens
  a session as libvirt's clients do never receives so many in a row, and pays nothing for it.
* Who sends one thing in many parts is heard at longer and longer intervals, since each part costs a
  turn of the loop. libvirt writes its frames whole; what a network cuts them into meanwhile comes
  together in the socket.
* Descriptors end it, and are not taken: nothing that is said before the hand-over has any.
"""

import os
from typing import Final

import trio

from proxyd.endpoint.contract import DESCRIPTOR, NOTHING, Endpoint, HungUp

_SCRATCH: Final = memoryview(bytearray(65536))

_AT_ONCE: Final = 4  # receives in one turn of the loop: a frame takes two

_FREE_PARTS: Final = 8
_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.1  # a handshake's 30 s hold some 300 of them


class Pace:
    """Keeps a peer that sends one thing in many parts from waking us for each of them."""

    def __init__(self) -> None:
        self.parts = 0  # of what is not whole yet
        self._pause_s = _FIRST_PAUSE_S

    def whole(self) -> None:
        """It was the last part: what comes next may have as many."""
        self.parts = 0
        self._pause_s = _FIRST_PAUSE_S

    def part(self) -> None:
        """We were woken for a part."""
        self.parts += 1

    async def keep(self) -> None:
        """Waits if that was one of many. To be called before the next one is waited for."""
        if self.parts > _FREE_PARTS:
            await trio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


class SentDescriptors(HungUp):
    """The other side passed some, which nobody takes before the hand-over."""

    def __init__(self) -> None:
        super().__init__("it sent descriptors that nobody asked for", while_writing=False)


class Conversation:
    """Reads and writes an endpoint, waiting where it must. Deadlines are the caller's."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._has_spoken = False  # since it heard something
        self._at_once = 0  # receives since it last waited
        self._pace = Pace()

    async def receive(self, count: int) -> memoryview:
        """At least one and at most `count` bytes, the rest of what is awaited. Raises HungUp.

        The view is valid until the next await: one scratch buffer serves all conversations.
        """
        if self._pace.parts:  # mostly there are none
            await self._pace.keep()
        if self._has_spoken and not self.endpoint.pending:
            await self._wait()
        elif self._at_once < _AT_ONCE:
            self._at_once += 1
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._at_once = 1
            await trio.lowlevel.checkpoint()
        while (got := self.endpoint.read_into(_SCRATCH[:count])) == NOTHING:
            if self._at_once == 0:  # woken, by a part of something that is encrypted
                self._pace.part()
                await self._pace.keep()
            await self._wait()
        return self._accepted(got, count)

    async def _wait(self) -> None:
        await wait_to_read(self.endpoint)
        self._at_once = 0

    def _accepted(self, got: int, count: int) -> memoryview:
        if got == DESCRIPTOR:
            raise SentDescriptors
        if got == 0:
            raise HungUp("closed", while_writing=False)
        if got < count:
            self._pace.part()
        elif self._pace.parts:
            self._pace.whole()
        self._has_spoken = False
        return _SCRATCH[:got]

    async def send(self, wire: bytes) -> None:
        """Everything, waiting while the other side does not take it."""
        self._has_spoken = True
        view = memoryview(wire)
        while True:
            view = view[self.endpoint.write(view) :]
            if not view:
                return
            await _wait_to_write(self.endpoint)


async def wait_to_read(endpoint: Endpoint) -> None:
    """Returns when a read that got NOTHING is worth another try. Raises HungUp."""
    if endpoint.reads_when_writable:
        await _wait_to_write(endpoint)
        return
    try:
        await trio.lowlevel.wait_readable(endpoint.fileno())
    except OSError as error:
        raise _unwatched(error, while_writing=False) from error


async def _wait_to_write(endpoint: Endpoint) -> None:
    try:
        await trio.lowlevel.wait_writable(endpoint.fileno())
    except OSError as error:
        raise _unwatched(error, while_writing=True) from error


def _unwatched(error: OSError, *, while_writing: bool) -> HungUp:
    """ENOMEM, ENOSPC: the kernel watches no more descriptors, so this one is of no use."""
    reason = f"it cannot be watched: {os.strerror(error.errno or 0)}"
    return HungUp(reason, while_writing=while_writing)
