"""One session with a target: synchronous, with a deadline on every wait.

A session has one call outstanding at most, so all measured calls may carry the same serial and
the request is bytes that were made once. What comes back is first compared with the header that
the first reply had; only what differs (a PING in between, an event, half a frame, an error)
takes the long way through the codec.
"""

from dataclasses import dataclass
from time import perf_counter_ns
from typing import ClassVar, Final

from proxyd.wire.failure import ErrorCode, Failure
from proxyd.wire.frame import HEADER_SIZE, Frame, FrameBuffer, FrameType, Status
from proxyd.wire.names import procedure_name
from proxyd.wire.programs import Keepalive, Program, Remote
from proxyd.wire.remote import OPEN_READONLY, OpenArguments, call, is_keepalive, keepalive
from proxyd.wire.xdr import MalformedFrame

from .connecting import Channel, cipher_of, connect, reason_of
from .credentials import Account, Credentials
from .entrance import way_in
from .failures import TargetFailure
from .targets import Target
from .tickets import Tickets

# libvirt's own initial buffer: a small reply is far below, and it is LARGE_ENOUGH for `tls` and
# `sasl`.
SCRATCH_SIZE: Final = 65536
_HUNG_UP: Final = "the server closed the connection"


@dataclass(frozen=True, slots=True)
class Opening:
    """How a session is opened, and how long any single wait may last."""

    uri: str
    readonly: bool
    wait_s: float
    credentials: Credentials | None = None  # for TLS targets, which must have some
    tickets: Tickets | None = None  # for GSSAPI targets, likewise
    account: Account | None = None  # for SCRAM targets, likewise

    def arguments(self, target: Target) -> bytes:
        """Of CONNECT_OPEN."""
        uri = target.uri if target.uri is not None else self.uri
        return OpenArguments(uri, OPEN_READONLY if self.readonly else 0).pack()


def open_session(target: Target, opening: Opening, channel: Channel | None = None) -> "Session":
    """Connects unless that is done, authenticates, opens the hypervisor connection."""
    if channel is None:
        channel = connect(target, opening.wait_s, opening.credentials)
    session = Session(target, opening, channel)
    try:
        _come_in(session, target, opening)
        session.call(Remote.CONNECT_OPEN, opening.arguments(target))
    except BaseException:
        session.sock.close()
        raise
    return session


def _come_in(session: "Session", target: Target, opening: Opening) -> None:
    calls = way_in(target, opening.tickets, session.sock, opening.account)
    try:
        asked = next(calls)
        while True:
            asked = calls.send(session.call(*asked).payload)
    except StopIteration as done:
        session.sock = done.value


class Session:
    """A connection on which calls are made, one at a time."""

    # One for all sessions of a process: nothing is left in it between two calls.
    _scratch: ClassVar = bytearray(SCRATCH_SIZE)

    def __init__(self, target: Target, opening: Opening, channel: Channel) -> None:
        self._target = target.name
        self._wait_s = opening.wait_s
        self._frames = FrameBuffer()
        self.serial = -1  # of the call made last
        self._procedure = 0
        self._failed = False
        # What `prepare` makes: read by the generator, which drives `sock` itself.
        self.request = b""
        self._usual_header = b""
        self._usual_size = 0
        self.sock = channel

    @property
    def cipher(self) -> str | None:
        """What protects the connection, or None."""
        return cipher_of(self.sock)

    def begin(self, procedure: int, payload: bytes = b"") -> None:
        """Sends a call without waiting for its reply."""
        self.serial += 1
        self._procedure = procedure
        self.send(call(procedure, self.serial, payload).pack())

    def call(self, procedure: int, payload: bytes = b"") -> Frame:
        """One call, any call, and its reply; an error in the reply is a TargetFailure."""
        self.begin(procedure, payload)
        return self._reply()

    def prepare(self, procedure: int) -> None:
        """Makes the call that `round_trip` will repeat, and remembers what its reply is like."""
        reply = self.call(procedure).pack()
        self.request = call(procedure, self.serial).pack()
        self._usual_header, self._usual_size = reply[:HEADER_SIZE], len(reply)

    def round_trip(self) -> int:
        """The prepared call: nanoseconds from before it is sent until its reply is here."""
        try:
            began = perf_counter_ns()
            self.sock.sendall(self.request)
            got = self.sock.recv_into(self._scratch)
            ended = perf_counter_ns()
        except OSError as error:
            raise self.failure(reason_of(error, self._wait_s)) from error
        if self.is_usual(self._scratch, got):
            return ended - began
        self.feed(memoryview(self._scratch)[:got])
        self._reply()
        return perf_counter_ns() - began

    def is_usual(self, received: bytearray, size: int) -> bool:
        """Whether these bytes are one whole reply as the first one was, and nothing else."""
        return (
            size == self._usual_size
            and received.startswith(self._usual_header)
            and not self._frames.held
        )

    def feed(self, received: memoryview) -> None:
        """Bytes that are not the usual reply; none at all mean that the server hung up."""
        if not received:
            raise self.failure(_HUNG_UP)
        self._frames.feed(received)

    def take_reply(self) -> Frame | None:
        """The reply to the call under way, or None while bytes are missing.

        PINGs are answered and events dropped on the way.
        """
        try:
            while (frame := self._frames.next_frame()) is not None:
                if not self.passes_by(frame):
                    self.check(frame)
                    break
        except MalformedFrame as error:
            raise self.failure(f"the server sent what is no frame: {error}") from error
        return frame

    def close(self) -> None:
        """Says goodbye, as a client does, and closes the socket whatever comes back."""
        try:
            if not self._failed:
                self.call(Remote.CONNECT_CLOSE)
        except TargetFailure:
            pass  # it was measured; how it parts does not change the figures
        finally:
            self.sock.close()

    def failure(self, reason: str) -> TargetFailure:
        """What to raise: the session is of no use after it, and `close` will not try to talk."""
        self._failed = True
        name = procedure_name(Program.REMOTE, self._procedure)
        return TargetFailure(self._target, f"{name}: {reason}")

    def receive(self, buffer: bytearray | memoryview) -> memoryview:
        """What has come, with a wait for it if need be; the end is a TargetFailure."""
        try:
            got = self.sock.recv_into(buffer)
        except OSError as error:
            raise self.failure(reason_of(error, self._wait_s)) from error
        if not got:
            raise self.failure(_HUNG_UP)
        return memoryview(buffer)[:got]

    def passes_by(self, frame: Frame) -> bool:
        """Whether it is none of a call's business. A PING is answered, an event dropped."""
        if is_keepalive(frame.header):
            if frame.header.procedure == Keepalive.PING:
                self.send(keepalive(Keepalive.PONG).pack())
            return True
        return frame.header.type == FrameType.MESSAGE

    def check(self, frame: Frame, expected: FrameType = FrameType.REPLY) -> None:
        """Raises unless it answers the call under way and says OK."""
        header = frame.header
        if header.type != expected or header.serial != self.serial:
            raise self.failure(f"unexpected frame of type {header.type}, serial {header.serial}")
        if header.status != Status.OK:
            try:
                told = Failure.unpack(frame.payload)
            except MalformedFrame as error:
                reason = f"the server sent an error that cannot be read: {error}"
                raise self.failure(reason) from error
            # Of authentication a server tells its log alone what was wrong.
            more = "; its log says why" if told.code == ErrorCode.AUTH_FAILED else ""
            raise self.failure(told.message + more)

    def send(self, wire: bytes | memoryview) -> None:
        try:
            self.sock.sendall(wire)
        except OSError as error:
            raise self.failure(reason_of(error, self._wait_s)) from error

    def _reply(self) -> Frame:
        while (reply := self.take_reply()) is None:
            self.feed(self.receive(self._scratch))
        return reply
