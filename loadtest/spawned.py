"""A process of ours with a pipe to it, which ends when the pipe does."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Final, TypeVar

T = TypeVar("T")
_STOP_S: Final = 10.0


class Spawned:
    """`serve` gets the other end of the pipe and what it is to do; it must end with the pipe."""

    def __init__(self, serve: Callable[[Connection, T], None], order: T) -> None:
        # Not forked: the parent's histograms and descriptors are none of the child's business.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, order), daemon=True)
        resource_tracker.ensure_running()  # `start` would do it, and unblock SIGINT by that
        # Ctrl-C goes to the whole process group: the parent alone decides what it means. The child
        # inherits the mask, and so is deaf from its first instruction on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def close(self) -> None:
        self.pipe.close()
        self._process.join(_STOP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
