"""An endpoint driven by trio: what the control plane uses until the hand-over.

The first try is made without waiting, so a peer that has sent already costs no turn of the loop.
Behind something that was said the answer is waited for: it is never there yet.
"""

import os
from typing import Final

import trio

from proxyd.endpoint.contract import DESCRIPTOR, NOTHING, Endpoint, HungUp

_SCRATCH: Final = memoryview(bytearray(65536))


class Conversation:
    """Reads and writes an endpoint, waiting where it must. Deadlines are the caller's."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._has_spoken = False  # since it heard something

    async def receive(self, count: int) -> memoryview:
        """At least one and at most `count` bytes. Raises HungUp at the end.

        The view is valid until the next await: one scratch buffer serves all conversations.
        """
        if self._has_spoken and not self.endpoint.pending:
            await wait_to_read(self.endpoint)
        while True:
            got = self.endpoint.read_into(_SCRATCH[:count])
            if got > 0:
                self._has_spoken = False
                return _SCRATCH[:got]
            if got == DESCRIPTOR:  # nothing before the hand-over takes any
                raise HungUp("it sent descriptors that nobody asked for", while_writing=False)
            if got != NOTHING:
                raise HungUp("closed", while_writing=False)
            await wait_to_read(self.endpoint)

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
