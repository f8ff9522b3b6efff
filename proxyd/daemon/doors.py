"""The doors: listening sockets while somebody accepts there, and while nobody does.

Who comes to a closed one waits in its queue, for whoever opens it next.
"""

from collections.abc import Awaitable, Callable

import trio


class Doors:
    """All of a daemon's, open or closed together. At first they are closed."""

    def __init__(self) -> None:
        self._opened = trio.Event()
        self._accepting: set[trio.CancelScope] = set()

    def open(self) -> None:
        self._opened.set()

    def close(self) -> None:
        """From this moment on nobody is accepted."""
        self._opened = trio.Event()
        for each in self._accepting:
            each.cancel()

    async def keep(self, accept: Callable[[], Awaitable[None]]) -> None:
        """Accepts at one of them, for ever, while they are open."""
        while True:
            await self._opened.wait()
            with trio.CancelScope() as scope:
                self._accepting.add(scope)
                try:
                    await accept()
                finally:
                    self._accepting.discard(scope)
