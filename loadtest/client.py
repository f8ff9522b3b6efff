"""One session with a target: synchronous, with a deadline on every wait.

The deadline is the kernel's own (SO_RCVTIMEO, SO_SNDTIMEO) and not `settimeout`: that one puts
a poll(2) in front of every call, which would be measured with it and make every ratio look
better than it is.

A session has one call outstanding at most, so all measured calls may carry the same serial and
the request is bytes that were made once. What comes back is first compared with the header that
the first reply had; only what differs (a PING in between, an event, half a frame, an error)
takes the long way through the codec.
"""

import os
import socket
import struct
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Final

from loadtest.failures import TargetFailure
from loadtest.targets import Target, UnixAddress
from proxyd.wire.failure import Failure
from proxyd.wire.frame import HEADER_SIZE, Frame, FrameBuffer, FrameType, Status
from proxyd.wire.names import procedure_name
from proxyd.wire.programs import AuthMethod, Keepalive, Program, Remote
from proxyd.wire.remote import (
    OPEN_READONLY,
    OpenArguments,
    call,
    is_keepalive,
    keepalive,
    unpack_auth_methods,
)
from proxyd.wire.xdr import MalformedFrame

SCRATCH_SIZE: Final = 65536  # libvirt's own initial buffer; a small reply is far below
_TIMEVAL: Final = struct.Struct("ll")


@dataclass(frozen=True, slots=True)
class Opening:
    """How a session is opened, and how long any single wait may last."""

    uri: str
    readonly: bool
    wait_s: float


def connect(target: Target, wait_s: float) -> socket.socket:
    """A connected, blocking socket whose operations give up after `wait_s`."""
    match target.address:
        case UnixAddress(path):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            whole_s, rest_s = divmod(wait_s, 1)
            timeval = _TIMEVAL.pack(int(whole_s), int(rest_s * 1_000_000))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
            try:
                sock.connect(path)
            except OSError as error:
                sock.close()
                reason = f"cannot connect to {path}: {_reason(error, wait_s)}"
                raise TargetFailure(target.name, reason) from error
            return sock


def _reason(error: OSError, wait_s: float) -> str:
    # A wait that ran out is EAGAIN, whose own text ("try again") would mislead here.
    if isinstance(error, BlockingIOError):
        return f"nothing happened for {wait_s:g} s"
    return os.strerror(error.errno) if error.errno else str(error)


class Session:
    """An open connection on which one small call is made again and again."""

    def __init__(self, target: Target, opening: Opening) -> None:
        self._target = target.name
        self._wait_s = opening.wait_s
        self._frames = FrameBuffer()
        self._serial = -1
        self._procedure = 0
        self._failed = False
        self._scratch = bytearray(SCRATCH_SIZE)
        # What `prepare` makes: read by the generator, which drives `sock` itself.
        self.request = b""
        self._usual_header = b""
        self._usual_size = 0
        self.sock = connect(target, opening.wait_s)
        try:
            self._greet(target.uri if target.uri is not None else opening.uri, opening.readonly)
        except BaseException:
            self.sock.close()
            raise

    def call(self, procedure: int, payload: bytes = b"") -> Frame:
        """One call, any call, and its reply; an error in the reply is a TargetFailure."""
        self._serial += 1
        self._procedure = procedure
        self._send(call(procedure, self._serial, payload).pack())
        return self._reply()

    def prepare(self, procedure: int) -> None:
        """Makes the call that `round_trip` will repeat, and remembers what its reply is like."""
        reply = self.call(procedure).pack()
        self.request = call(procedure, self._serial).pack()
        self._usual_header, self._usual_size = reply[:HEADER_SIZE], len(reply)

    def round_trip(self) -> int:
        """The prepared call: nanoseconds from before it is sent until its reply is here."""
        try:
            began = perf_counter_ns()
            self.sock.sendall(self.request)
            got = self.sock.recv_into(self._scratch)
            ended = perf_counter_ns()
        except OSError as error:
            raise self.failure(_reason(error, self._wait_s)) from error
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
            raise self.failure("the server closed the connection")
        self._frames.feed(received)

    def take_reply(self) -> Frame | None:
        """The reply to the call under way, or None while bytes are missing.

        PINGs are answered and events dropped on the way.
        """
        try:
            while (frame := self._frames.next_frame()) is not None:
                if self._is_the_reply(frame):
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

    def _greet(self, uri: str, readonly: bool) -> None:
        try:
            methods = unpack_auth_methods(self.call(Remote.AUTH_LIST).payload)
        except MalformedFrame as error:
            raise self.failure(f"the server sent no list of methods: {error}") from error
        if methods and AuthMethod.NONE not in methods:
            known = {method.value: method.name for method in AuthMethod}
            wanted = ", ".join(known.get(method, str(method)) for method in methods)
            raise self.failure(f"the server wants {wanted}; only NONE can be measured so far")
        arguments = OpenArguments(uri, OPEN_READONLY if readonly else 0)
        self.call(Remote.CONNECT_OPEN, arguments.pack())

    def _reply(self) -> Frame:
        while (reply := self.take_reply()) is None:
            try:
                got = self.sock.recv_into(self._scratch)
            except OSError as error:
                raise self.failure(_reason(error, self._wait_s)) from error
            self.feed(memoryview(self._scratch)[:got])
        return reply

    def _is_the_reply(self, frame: Frame) -> bool:
        header = frame.header
        if is_keepalive(header):
            if header.procedure == Keepalive.PING:
                self._send(keepalive(Keepalive.PONG).pack())
            return False
        if header.type == FrameType.MESSAGE:
            return False  # an event: nobody here asked for it
        if header.type != FrameType.REPLY or header.serial != self._serial:
            raise self.failure(f"unexpected frame of type {header.type}, serial {header.serial}")
        if header.status != Status.OK:
            raise self.failure(Failure.unpack(frame.payload).message)
        return True

    def _send(self, wire: bytes) -> None:
        try:
            self.sock.sendall(wire)
        except OSError as error:
            raise self.failure(_reason(error, self._wait_s)) from error
