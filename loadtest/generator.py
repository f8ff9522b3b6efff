"""Keeps N connections to one target busy, in a process of its own: one epoll loop, closed loop.

Each connection sends its prepared call, waits for the reply and sends the next: N calls are
under way at any time. Every target has its own generator; one works at a time, the others wait
for their turn on a pipe and cost nothing.
"""

import gc
import multiprocessing
import os
import select
import signal
from array import array
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter_ns, process_time_ns
from typing import Final

from loadtest.client import SCRATCH_SIZE, Opening, Session
from loadtest.failures import TargetFailure
from loadtest.targets import Target

_START_S: Final = 30.0  # an interpreter starts and imports; far more than it ever takes
_STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a generator is started with."""

    target: Target
    opening: Opening
    procedure: int


@dataclass(frozen=True, slots=True)
class Open:
    """What it is told: one more connection."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What it is told: work for so long, but until so many calls are made at least."""

    duration_ns: int
    least_calls: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """What it answers to a turn. Latencies are 64-bit nanoseconds as bytes, which pickle fast."""

    elapsed_ns: int
    cpu_ns: int
    latencies: bytes

    def samples(self) -> "array[int]":
        samples = array("q")
        samples.frombytes(self.latencies)
        return samples


class Generator:
    """The loop itself; lives in the child process."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._target = order.target.name
        self._wait_s = order.opening.wait_s
        self._sessions: dict[int, Session] = {}
        self._epoll = select.epoll()

    def open(self) -> None:
        """One more connection, with its first call made."""
        session = Session(self._order.target, self._order.opening)
        self._sessions[session.sock.fileno()] = session
        session.prepare(self._order.procedure)
        session.sock.setblocking(False)
        self._epoll.register(session.sock, select.EPOLLIN)

    def work(self, turn: Turn) -> Slice:
        """Ends when the last call that was begun in time has its reply."""
        latencies = array("q")
        cpu_before, began = process_time_ns(), perf_counter_ns()
        try:
            self._drive(turn, latencies)
        except OSError as error:
            raise TargetFailure(self._target, os.strerror(error.errno or 0)) from error
        elapsed = perf_counter_ns() - began
        return Slice(elapsed, process_time_ns() - cpu_before, latencies.tobytes())

    def close(self) -> None:
        """Without a goodbye: a server that has failed would be waited for once per session."""
        self._epoll.close()
        for session in self._sessions.values():
            session.sock.close()

    def _drive(self, turn: Turn, latencies: "array[int]") -> None:
        # The path of every measured call: names are local because each look-up would be paid
        # for once per call.
        sessions, poll, clock, wait_s = (
            self._sessions,
            self._epoll.poll,
            perf_counter_ns,
            self._wait_s,
        )
        scratch = bytearray(SCRATCH_SIZE)
        until = clock() + turn.duration_ns
        begun = {}
        for number, session in sessions.items():
            begun[number] = clock()
            session.sock.sendall(session.request)
        outstanding = len(sessions)
        while outstanding:
            ready = poll(wait_s)
            if not ready:
                raise TargetFailure(self._target, f"no reply for {wait_s:g} s")
            for number, _ in ready:
                session = sessions[number]
                got = session.sock.recv_into(scratch)
                if not session.is_usual(scratch, got) and not _is_whole(session, scratch, got):
                    continue
                now = clock()
                latencies.append(now - begun[number])
                if now < until or len(latencies) < turn.least_calls:
                    begun[number] = now
                    session.sock.send(session.request)
                else:
                    outstanding -= 1


def _is_whole(session: Session, scratch: bytearray, got: int) -> bool:
    session.feed(memoryview(scratch)[:got])
    return session.take_reply() is not None


def serve(pipe: Connection, order: Order) -> None:
    """The child process: None when it is there and for every connection, a slice for every turn.

    It ends, and its sessions with it, when its parent closes the pipe, however that came about.
    """
    # Ctrl-C goes to the whole process group: the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # nothing here makes cycles, and a collection would look like latency
    with suppress(EOFError, BrokenPipeError):
        try:
            with closing(Generator(order)) as generator:
                pipe.send(None)
                while True:
                    command = pipe.recv()
                    if isinstance(command, Turn):
                        pipe.send(generator.work(command))
                    else:
                        generator.open()
                        pipe.send(None)
        except TargetFailure as failure:
            pipe.send(failure)


class GeneratorProcess:
    """The parent's end of a generator."""

    def __init__(self, order: Order) -> None:
        # Not forked: the parent's histograms and descriptors are none of the child's business.
        context = multiprocessing.get_context("spawn")
        self._target = order.target.name
        self._wait_s = order.opening.wait_s
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, order), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_started(self) -> None:
        self._answer(_START_S)

    def open(self) -> None:
        """One more connection."""
        self._ask(Open(), _START_S + self._wait_s)

    def work(self, turn: Turn) -> Slice:
        answer = self._ask(turn, turn.duration_ns / 1e9 + self._wait_s + _START_S)
        assert isinstance(answer, Slice)
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.join(_STOP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

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
