"""A worker: an engine in a process of its own, and the parent's end of it."""

import gc
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from typing import Final

from ..connecting import reason_of
from ..failures import TargetFailure
from ..spawned import Spawned
from .engine import Engine
from .parcels import Done, Opened, Parcel
from .plan import Order

_START_S: Final = 60.0  # an interpreter starts and imports; far more than it ever takes


def serve(pipe: Connection, order: Order) -> None:
    """The child process: it prepares at once, is told when to begin, and then sends parcels.

    What it is told after that, or the end of the pipe, means that it shall stop.
    """
    gc.disable()  # nothing here makes cycles, and a collection would look like latency
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            with closing(Engine(order)) as engine:
                pipe.send(engine.prepare())
                begins_ns = pipe.recv()
                pipe.send(engine.run(begins_ns, pipe.send, pipe.poll))
        except OSError as error:
            if isinstance(error, BrokenPipeError | ConnectionResetError):
                raise
            reason = reason_of(error, order.opening.wait_s)
            pipe.send(TargetFailure(order.target.name, reason))


class Worker:
    """The parent's end."""

    def __init__(self, order: Order) -> None:
        self._target = order.target.name
        self._wait_s = order.opening.wait_s
        self._spawned = Spawned(serve, order)
        self.pipe = self._spawned.pipe
        self.close = self._spawned.close

    def opened(self) -> Opened:
        """What became of its connections; waits for it."""
        if not self.pipe.poll(_START_S + 10 * self._wait_s):
            raise TargetFailure(self._target, "its worker does not come about")
        answer = self.receive()
        assert isinstance(answer, Opened)
        return answer

    def begin(self, at_ns: int) -> None:
        self._tell(at_ns)

    def stop(self) -> None:
        """Before its time is over; what it has measured still comes."""
        self._tell(None)

    def receive(self) -> Opened | Parcel | Done:
        """What it sent; TargetFailure if it failed or is gone."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            raise TargetFailure(self._target, "its worker has died") from None
        if isinstance(answer, TargetFailure):
            raise answer
        assert isinstance(answer, Opened | Parcel | Done)
        return answer

    def _tell(self, what: int | None) -> None:
        # One that is gone is found out by the read behind it.
        with suppress(BrokenPipeError):
            self.pipe.send(what)
