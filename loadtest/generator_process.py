"""A generator in a process of its own, and the parent's end of it.

Every target has its own; one works at a time, the others wait for their turn on a pipe and cost
nothing.
"""

import gc
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from typing import Final

from .churn import Churn
from .failures import TargetFailure
from .generator import Generator
from .spawned import Spawned
from .turns import Open, Order, SessionOrder, Slice, Turn

_START_S: Final = 30.0  # an interpreter starts and imports; far more than it ever takes


def serve(pipe: Connection, order: Order) -> None:
    """The child process: None when it is there, and an answer to every Open and every Turn.

    It ends, and its sessions with it, when its parent closes the pipe, however that came about.
    """
    gc.disable()  # nothing here makes cycles, and a collection would look like latency
    with suppress(EOFError, BrokenPipeError):
        try:
            made = Churn(order) if isinstance(order, SessionOrder) else Generator(order)
            with closing(made) as generator:
                pipe.send(None)
                while True:
                    command = pipe.recv()
                    if isinstance(command, Turn):
                        pipe.send(generator.work(command))
                    else:
                        pipe.send(generator.open())
        except TargetFailure as failure:
            pipe.send(failure)


class GeneratorProcess:
    """The parent's end of a generator."""

    def __init__(self, order: Order) -> None:
        self._target = order.target.name
        self._wait_s = order.opening.wait_s
        self._spawned = Spawned(serve, order)
        self._pipe = self._spawned.pipe
        self.close = self._spawned.close

    def wait_until_started(self) -> None:
        self._answer(_START_S)

    def open(self) -> str | None:
        """One more connection; returns its cipher."""
        cipher = self._ask(Open(), _START_S + self._wait_s)
        assert cipher is None or isinstance(cipher, str)
        return cipher

    def work(self, turn: Turn) -> Slice:
        answer = self._ask(turn, turn.duration_ns / 1e9 + self._wait_s + _START_S)
        assert isinstance(answer, Slice)
        return answer

    def _ask(self, command: Open | Turn, wait_s: float) -> object:
        # A generator that is gone is found out by the read behind it.
        with suppress(BrokenPipeError):
            self._pipe.send(command)
        return self._answer(wait_s)

    def _answer(self, wait_s: float) -> object:
        try:
            if not self._pipe.poll(wait_s):
                raise TargetFailure(self._target, f"its generator is silent for {wait_s:g} s")
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise TargetFailure(self._target, "its generator has died") from None
        if isinstance(answer, TargetFailure):
            raise answer
        return answer
