"""Keeps N connections to one target busy: one epoll loop, closed loop.

Each connection sends its prepared call, waits for the reply and sends the next: N calls are
under way at any time.
"""

import select
from array import array
from time import perf_counter_ns

from .client import SCRATCH_SIZE, Session, open_session
from .failures import TargetFailure
from .measured import measured
from .turns import CallOrder, Slice, Turn


class Generator:
    """The loop itself; lives in a process of its own."""

    def __init__(self, order: CallOrder) -> None:
        self._order = order
        self._target = order.target.name
        self._wait_s = order.opening.wait_s
        self._sessions: dict[int, Session] = {}
        self._epoll = select.epoll()

    def open(self) -> str | None:
        """One more connection, with its first call made; returns its cipher."""
        session = open_session(self._order.target, self._order.opening)
        self._sessions[session.sock.fileno()] = session
        session.prepare(self._order.procedure)
        session.sock.setblocking(False)
        self._epoll.register(session.sock, select.EPOLLIN)
        return session.cipher

    def work(self, turn: Turn) -> Slice:
        """Ends when the last call that was begun in time has its reply."""
        return measured(self._drive, turn, target=self._target, wait_s=self._wait_s)

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
                try:
                    got = session.sock.recv_into(scratch)
                except BlockingIOError:
                    continue  # a TLS record without data, or a part of a token
                if not session.is_usual(scratch, got) and not _is_whole(session, scratch, got):
                    continue
                now = clock()
                latencies.append(now - begun[number])
                if now < until or len(latencies) < turn.least:
                    begun[number] = now
                    session.sock.send(session.request)
                else:
                    outstanding -= 1


def _is_whole(session: Session, scratch: bytearray, got: int) -> bool:
    session.feed(memoryview(scratch)[:got])
    return session.take_reply() is not None
