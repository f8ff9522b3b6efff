"""What couriers are given to do: one descriptor to carry, or sockets to close."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_MOST_IN_ONE: Final = 250  # descriptors in a message; the kernel takes three more


class Errand:
    """One descriptor: the next byte of `source` carries it.

    It goes on to `destination`, or nowhere if that is None. Both are borrowed until `cancel` or
    the answer: `done` is called once, in another thread, with the reason why not, or "".
    """

    def __init__(self, source: int, destination: int | None, done: Callable[[str], None]) -> None:
        self._sockets = [source] if destination is None else [source, destination]
        self._word = b"take" if destination is None else b"carry"
        self._done: Callable[[str], None] | None = done
        self._lock = threading.Lock()  # between giving the sockets and losing them

    def cancel(self) -> None:
        """Nobody waits for it any more; from here on its sockets are the owner's alone."""
        with self._lock:
            self._done = None

    def hand_to(self, control: socket.socket) -> bool:
        """False if it has been cancelled. Raises OSError."""
        with self._lock:
            if self._done is None:
                return False
            socket.send_fds(control, [self._word], self._sockets)
            return True

    def end(self, reason: str) -> None:
        """Says how it went; only the first word counts."""
        with self._lock:
            done, self._done = self._done, None
        if done is not None:
            done(reason)


class Burial:
    """Sockets of one user that are to be closed, and in whose queues descriptors are left."""

    def __init__(self, sock: socket.socket) -> None:
        self._sockets = [sock]

    def add(self, other: "Burial") -> None:
        self._sockets += other._sockets  # noqa: SLF001 (the same class)

    def __len__(self) -> int:
        return len(self._sockets)

    def hand_to(self, control: socket.socket) -> bool:
        """Whatever fails, each is closed here only once the courier has it as well."""
        # One that was closed meanwhile would fail for ever, and with it all of its user's.
        self._sockets = [each for each in self._sockets if each.fileno() >= 0]
        while some := self._sockets[:_MOST_IN_ONE]:
            socket.send_fds(control, [b"hold"], [each.fileno() for each in some])
            del self._sockets[: len(some)]
            for each in some:
                each.close()
        with suppress(BlockingIOError):  # they are dropped with the next ones then
            control.send(b"drop")
        return True

    def end(self, reason: str) -> None:
        """Nobody waits for it."""


Task = Errand | Burial
