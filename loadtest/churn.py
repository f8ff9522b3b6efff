"""Opens and closes sessions, N at a time, without a pause: one epoll loop, closed loop.

A session is: connect, TLS with a full handshake where the target has it, AUTH_LIST, SASL where the
target has that, CONNECT_OPEN, CONNECT_CLOSE, each with its reply, and the socket closed. When one
has ended the next begins.

Each is a Python generator that yields where it must wait for the server, so that what happens in
a session is read from top to bottom, and threads need not fight for the interpreter.
"""

import errno
import os
import select
import socket
from array import array
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from time import perf_counter_ns

from proxyd.wire.frame import Frame
from proxyd.wire.programs import Remote

from .client import SCRATCH_SIZE, Session, open_session
from .connecting import (
    Channel,
    reach,
    secure,
    send_at_once,
    tls_channel,
    until_done,
)
from .entrance import way_in
from .failures import TargetFailure
from .measured import measured
from .turns import SessionOrder, Slice, Turn


@dataclass(slots=True)
class _Visit:
    """A session under way."""

    sock: socket.socket
    steps: Iterator[None]
    begun: int


class Churn:
    """The loop itself; lives in a process of its own."""

    def __init__(self, order: SessionOrder) -> None:
        self._target, self._opening = order.target, order.opening
        self._connections = order.connections
        self._wait_s = order.opening.wait_s
        self._calls = (
            (Remote.CONNECT_OPEN, order.opening.arguments(order.target)),
            (Remote.CONNECT_CLOSE, b""),
        )
        self._scratch = bytearray(SCRATCH_SIZE)
        self._epoll = select.epoll()
        self._visits: dict[int, _Visit] = {}
        self._first: Session | None = None
        # Where the first session got to, so that no name is looked up between measured ones.
        self._family: int = socket.AF_UNSPEC
        self._place: str | tuple[object, ...] = ()

    def open(self) -> str | None:
        """A first session in the plain way, which tells best what is wrong; returns its cipher.

        It stays open: libvirt's test driver builds its world with the first connection and takes
        it down with the last, which is 1.0 of the 1.3 ms that a lone session costs it.
        """
        sock = reach(self._target, self._wait_s)
        self._family, self._place = sock.family, sock.getpeername()
        channel = secure(self._target, sock, self._wait_s, self._opening.credentials)
        self._first = open_session(self._target, self._opening, channel)
        return self._first.cipher

    def work(self, turn: Turn) -> Slice:
        """Ends when the last session that was begun in time is closed."""
        return measured(self._drive, turn, target=self._target.name, wait_s=self._wait_s)

    def close(self) -> None:
        """Without a goodbye, as the other generator does it."""
        self._epoll.close()
        if self._first is not None:
            self._first.sock.close()
        for visit in self._visits.values():
            visit.sock.close()

    def _drive(self, turn: Turn, latencies: "array[int]") -> None:
        until = perf_counter_ns() + turn.duration_ns
        for _ in range(self._connections):
            self._begin()
        while self._visits:
            ready = self._epoll.poll(self._wait_s)
            if not ready:
                reason = f"no new session got any further for {self._wait_s:g} s"
                raise TargetFailure(self._target.name, reason)
            for number, _ in ready:
                visit = self._visits[number]
                if _goes_on(visit):
                    continue
                del self._visits[number]
                now = perf_counter_ns()
                latencies.append(now - visit.begun)
                if now < until or len(latencies) < turn.least:
                    self._begin()

    def _begin(self) -> None:
        begun = perf_counter_ns()
        sock = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        code = sock.connect_ex(self._place)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            raise TargetFailure(self._target.name, _no_connection(code, self._target.address.place))
        send_at_once(sock)
        # Over loopback TCP connects at once, too; elsewhere that is announced as EPOLLOUT.
        self._epoll.register(sock, select.EPOLLOUT if code else select.EPOLLIN)
        visit = _Visit(sock, self._visit(sock, connected=code == 0), begun)
        self._visits[sock.fileno()] = visit
        _goes_on(visit)

    def _visit(self, sock: socket.socket, *, connected: bool) -> Iterator[None]:
        if not connected:
            yield
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise TargetFailure(
                    self._target.name, _no_connection(code, self._target.address.place)
                )
            self._epoll.modify(sock, select.EPOLLIN)
        channel: Channel = sock
        tls = tls_channel(sock, self._target.address, self._opening.credentials)
        if tls is not None:
            channel = tls
            yield from until_done(tls.handshake)
            yield from until_done(tls.confirm)
        session = Session(self._target, self._opening, channel)
        yield from self._come_in(session)
        for procedure, payload in self._calls:
            yield from self._called(session, procedure, payload)
        sock.close()

    def _come_in(self, session: Session) -> Iterator[None]:
        opening = self._opening
        calls = way_in(self._target, opening.tickets, session.sock, opening.account)
        try:
            asked = next(calls)
            while True:
                reply = yield from self._called(session, *asked)
                asked = calls.send(reply.payload)
        except StopIteration as done:
            session.sock = done.value

    def _called(
        self, session: Session, procedure: int, payload: bytes
    ) -> Generator[None, None, Frame]:
        session.begin(procedure, payload)
        yield
        while (reply := self._reply(session)) is None:
            yield
        return reply

    def _reply(self, session: Session) -> Frame | None:
        try:
            got = session.sock.recv_into(self._scratch)
        except BlockingIOError:
            return None  # a TLS record without data, or a part of a token
        session.feed(memoryview(self._scratch)[:got])
        return session.take_reply()


def _goes_on(visit: _Visit) -> bool:
    """Takes it as far as it gets; False at its end."""
    try:
        next(visit.steps)
    except StopIteration:
        return False
    return True


def _no_connection(code: int, place: str) -> str:
    if code == errno.EAGAIN:
        return (
            "its queue of new connections is full; ask for fewer with -c, "
            "or give the server a larger max_queued_clients"
        )
    return f"cannot connect to {place}: {os.strerror(code)}"
