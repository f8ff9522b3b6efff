"""One place for a connection: opened, used, broken and opened again.

What takes several waits is a Python generator that yields where it must wait for the server, as in
`churn`; `steps` is the one under way. A plain call has none: the engine knows its reply at sight.
"""

import errno
import os
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from time import perf_counter_ns
from typing import Final

from proxyd.wire.frame import HEADER_SIZE, Frame, FrameBuffer, FrameType, Status
from proxyd.wire.programs import Keepalive, Program, Remote
from proxyd.wire.remote import call, is_keepalive, keepalive

from ..client import SCRATCH_SIZE, Opening
from ..connecting import Channel, cipher_of, send_at_once, tls_channel, until_done
from ..entrance import way_in
from ..targets import Target, UnixAddress
from .errors import ErrorReply, HungUp
from .parcels import Tally
from .requests import Asking, Request, answers

NEVER: Final = 1 << 62  # in nanoseconds
_FIRST_PAUSE_NS: Final = 50_000_000
_LONGEST_PAUSE_NS: Final = 2_000_000_000

# One for all connections of a process: nothing is left in it between two calls.
SCRATCH: Final = bytearray(SCRATCH_SIZE)
_SCRATCH_VIEW: Final = memoryview(SCRATCH)


class PatientSocket(socket.socket):
    """Keeps what the kernel has no room for until `flush`: no half record or token is ever lost."""

    def __init__(self, family: int) -> None:
        super().__init__(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.unsent = bytearray()

    def sendall(self, data: bytes | bytearray | memoryview, flags: int = 0, /) -> None:  # type: ignore[override]
        self.unsent += data
        self.flush()

    def flush(self) -> None:
        try:
            while self.unsent:
                del self.unsent[: self.send(self.unsent)]
        except BlockingIOError:
            pass  # epoll says when there is room


_Found = tuple[int, str | tuple[object, ...]]  # family and address


class ConnectFailed(OSError):
    """Nobody answers at this address; at another one of the name somebody may."""


class Places:
    """Where a target can be found: names are looked up once."""

    def __init__(self, target: Target) -> None:
        address = target.address
        if isinstance(address, UnixAddress):
            found: list[_Found] = [(socket.AF_UNIX, address.path)]
        else:
            infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            found = [(family, place) for family, _, _, _, place in infos]
        self.found = tuple(dict.fromkeys(found))
        self.best = self.found[0]

    def failed(self, place: _Found) -> None:
        """Nobody answers there. Whoever comes next tries the one behind it."""
        if place == self.best:  # else another connection has found that out already
            self.best = self.found[(self.found.index(place) + 1) % len(self.found)]


class Line:
    """What the engine knows of a connection, with all that happens on it but a plain call."""

    def __init__(
        self, target: Target, opening: Opening, places: Places, place: int, tally: Tally
    ) -> None:
        self._target, self._opening, self._places = target, opening, places
        self.place = place  # among those of its kind
        self._tally = tally
        self.sock: PatientSocket | None = None
        self.channel: Channel  # from `begin` on
        self.life: Callable[[bool], Iterator[None]]  # from its first start on; see Crew.start
        self.connecting = False
        self._place = places.best  # where it connects to
        self._failed = 0  # how many addresses of the name did, since it was connected last
        self.frames = FrameBuffer()
        self.steps: Iterator[None] | None = None
        self.request: Request | None = None  # the call under way
        self.intended_ns = 0  # when that was to be sent
        self.since_ns = NEVER  # the present wait; NEVER: nothing is waited for
        self.freed_ns = 0  # when the last call ended
        self.retry_ns = 0  # when it may be opened again; 0: it has not failed
        self.is_down = True
        self.settled = False  # it holds, and may be silent for ever
        self.wants_room = False  # whether epoll is asked for the room to send
        self._pause_ns = _FIRST_PAUSE_NS
        self._serial = 0

    @property
    def cipher(self) -> str | None:
        """What protects the connection, or None."""
        channel = self.channel
        return cipher_of(channel)

    def begin(self) -> bool:
        """A new socket; whether it is connected, or will be when there is room to send.

        Raises ConnectFailed, and OSError where there is no socket to be had.
        """
        self.frames = FrameBuffer()
        self._place = self._places.best
        family, address = self._place
        self.sock = PatientSocket(family)
        self.channel = self.sock
        code = self.sock.connect_ex(address)
        self.connecting = True
        if code not in (0, errno.EINPROGRESS):
            raise ConnectFailed(code, os.strerror(code), self._target.address.place)
        send_at_once(self.sock)
        return code == 0

    def may_try_elsewhere(self) -> bool:
        """After an address has failed: whether the name has one that has not, this time."""
        self._places.failed(self._place)
        self._failed += 1
        if self._failed < len(self._places.found):
            return True
        self._failed = 0
        return False

    def close(self) -> None:
        """Without a goodbye."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def pause(self) -> None:
        """Not opened again for a while, each time longer, until one has come about."""
        self.retry_ns = perf_counter_ns() + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, _LONGEST_PAUSE_NS)

    def opened(self, connected: bool) -> Iterator[None]:
        """From the end of the connect, however that came out, to the reply to CONNECT_OPEN."""
        assert self.sock is not None
        code = 0 if connected else self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise ConnectFailed(code, os.strerror(code), self._target.address.place)
        self.connecting, self._failed = False, 0
        tls = tls_channel(self.sock, self._target.address, self._opening.credentials)
        if tls is not None:
            self.channel = tls
            yield from until_done(tls.handshake)
            yield from until_done(tls.confirm)
        self._serial = 0
        yield from self._come_in()
        yield from self.called(Remote.CONNECT_OPEN, self._opening.arguments(self._target))
        self._pause_ns = _FIRST_PAUSE_NS

    def _come_in(self) -> Iterator[None]:
        opening = self._opening
        asking = way_in(self._target, opening.tickets, self.channel, opening.account)
        try:
            asked = next(asking)
            while True:
                asked = asking.send((yield from self.called(*asked)))
        except StopIteration as done:
            self.channel = done.value

    def asked(self, asking: Asking) -> Iterator[None]:
        """Makes all calls that somebody wants to make."""
        try:
            wanted = next(asking)
            while True:
                wanted = asking.send((yield from self.called(*wanted)))
        except StopIteration:
            return

    def called(self, procedure: int, arguments: bytes) -> Generator[None, None, bytes]:
        """One call, any call: the reply's payload, or ErrorReply."""
        self._serial += 1
        self.channel.sendall(call(procedure, self._serial, arguments).pack())
        while (frame := self.next_frame()) is None:
            yield
            self.feed()
        answers(frame, self._serial)
        return checked(frame)

    def feed(self) -> None:
        """What has come goes to `frames`; the end is HungUp."""
        with suppress(BlockingIOError):  # a TLS record without data, or a part of a token
            self.take(self.channel.recv_into(SCRATCH))

    def take(self, got: int) -> None:
        """That many bytes of SCRATCH; none at all mean that the server hung up."""
        if not got:
            raise HungUp
        self.frames.feed(_SCRATCH_VIEW[:got])

    def next_frame(self) -> Frame | None:
        """The next one of the call under way. A PING is answered, an event counted."""
        while (frame := self.frames.next_frame()) is not None and self.passes_by(frame):
            pass
        return frame

    def passes_by(self, frame: Frame) -> bool:
        """Whether it is none of a call's business."""
        header = frame.header
        if is_keepalive(header):
            if header.procedure == Keepalive.PING:
                self.channel.sendall(keepalive(Keepalive.PONG).pack())
            return True
        if header.type == FrameType.MESSAGE and header.program == Program.REMOTE:
            self._tally.events += 1
            return True
        return False

    def answered(self, request: Request) -> Iterator[None]:
        """A call of the mix, until its reply is here; ErrorReply. Its bytes are counted."""
        self.channel.sendall(request.wire)
        while (frame := self.next_frame()) is None:
            yield
            self.feed()
        self._tally.bytes_up += len(request.wire)
        self._tally.bytes_down += HEADER_SIZE + len(frame.payload)
        answers(frame, request.serial)
        checked(frame)

    def holding(self) -> Iterator[None]:
        """Nothing but answering PINGs and counting events, until the connection breaks."""
        self.settled = True
        while True:
            while (frame := self.next_frame()) is not None:
                checked(frame)
            yield
            self.feed()


def checked(frame: Frame) -> bytes:
    """The payload; ErrorReply if it is an error."""
    if frame.header.status == Status.ERROR:
        raise ErrorReply(frame.payload)
    return frame.payload
