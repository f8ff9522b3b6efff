"""Closes descriptors that a peer has passed to us, where that holds up nobody.

A close can wait for as long as the peer likes: for a TCP socket that lingers over bytes that nobody
takes, or for a file of a FUSE file system, whose answers are the peer's own. Even to ask what kind
of file it is can wait. So no thread that serves others closes one; a few threads that do nothing
else do it, and a few stuck ones hold up only the descriptors behind them.

The kernel closes what does not fit into a receive, in the thread that receives; so there is room
for as many as one message can bring (plain.py).
"""

import os
import signal
import socket
import struct
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

_MOST_THREADS: Final = 8
_AT_ONCE: Final = struct.pack("@ii", 1, 0)


class _Closers:
    """The threads. They are started when they are needed and live as long as the process."""

    def __init__(self) -> None:
        self._given = SimpleQueue[int]()
        self._changed = threading.Condition()
        self._threads = 0
        self._open = 0  # given, and not closed yet

    def close(self, descriptor: int) -> None:
        with self._changed:
            self._open += 1
            # One that is busy may be stuck.
            if self._open > self._threads and self._threads < _MOST_THREADS:
                # Without room for a thread one that runs closes it, or the next that can be had.
                with suppress(RuntimeError):
                    threading.Thread(target=self._run, name="closer", daemon=True).start()
                    self._threads += 1
        self._given.put(descriptor)

    def _run(self) -> None:
        # Who waits for signals does so in a thread of its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            descriptor = self._given.get()
            with suppress(OSError):  # EIO of a file that was written: not ours to mend
                os.close(descriptor)
            with self._changed:
                self._open -= 1
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, timeout_s)


_CLOSERS: Final = _Closers()


def close_delivered(descriptor: int) -> None:
    """Closes our copy of one that somebody else has been given."""
    _CLOSERS.close(descriptor)


def close_refused(descriptor: int) -> None:
    """Closes one that nobody is given. A socket is cut off, so that its close need not wait."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        pass  # no socket
    else:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        sock.detach()
    _CLOSERS.close(descriptor)


def all_closed(timeout_s: float) -> bool:
    """Waits until everything that was given here is closed; whether that came about in time."""
    return _CLOSERS.wait(timeout_s)
