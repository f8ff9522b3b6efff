"""One call and its reply, without the socket: proxyd as a client of a daemon, or of itself.

One call at a time. A reply counts if it echoes the call (docs/protocol/frames.md, section 5); what
else a daemon may say meanwhile, events and keepalive, is passed over, up to a limit. Whatever is
neither ends the dialogue by MalformedFrame.
"""

from dataclasses import dataclass
from typing import Final

from proxyd.wire.failure import Failure
from proxyd.wire.frame import Frame, FrameBuffer, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Keepalive, Program
from proxyd.wire.remote import is_keepalive, keepalive
from proxyd.wire.xdr import MalformedFrame

# Keepalive, and events. A daemon pings every 5 s, and has no event for who has registered for none.
UNANSWERING_LIMIT: Final = 32


@dataclass(frozen=True, slots=True)
class Returned:
    """The call was carried out; `payload` is what it returns."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """It was not; `failure` is the error of the reply."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Pinged:
    """The reply is still awaited. `pong` keeps a daemon that pings from hanging up."""

    pong: bytes


Answer = Returned | Failed


class Dialogue:
    """Calls of one program on one connection. Send what `call` returns, then feed `wanted` bytes
    at a time until there is an answer."""

    def __init__(self, program: int = Program.REMOTE, *, limit: int) -> None:
        """`limit` is the length of the longest frame, in bytes."""
        self._program = program
        self._buffer = FrameBuffer(limit)
        self._serial = -1
        self._awaited: Header | None = None  # but for its status
        self._unanswering = 0

    @property
    def wanted(self) -> int:
        """How many bytes to read next; zero while no call is under way."""
        return 0 if self._awaited is None else self._buffer.wanted

    def call(self, procedure: int, payload: bytes = b"") -> bytes:
        """The next call, as it goes over the wire."""
        if self._awaited is not None:
            raise ValueError("the call before has no answer yet")
        self._serial += 1
        header = Header(self._program, VERSION, procedure, FrameType.CALL, self._serial)
        self._awaited = header.replied(Status.OK)
        return Frame(header, payload).pack()

    def receive_data(self, received: bytes | bytearray | memoryview) -> Answer | Pinged | None:
        """Takes at most `wanted` bytes. Raises MalformedFrame."""
        if len(received) > self.wanted:
            raise ValueError("more was read than was wanted: whoever reads on would miss it")
        self._buffer.feed(received)
        frame = self._buffer.next_frame()
        return None if frame is None else self._dispatch(frame)

    def _dispatch(self, frame: Frame) -> Answer | Pinged | None:
        header = frame.header
        if is_keepalive(header):
            self._pass_over()
            ping = header.procedure == Keepalive.PING
            return Pinged(keepalive(Keepalive.PONG).pack()) if ping else None
        if header.program == self._program and header.type == FrameType.MESSAGE:
            self._pass_over()
            return None  # an event that nobody registered for
        if header._replace(status=Status.OK) != self._awaited:
            raise MalformedFrame(
                f"it replied to something that was not asked, procedure {header.procedure}"
            )
        self._awaited = None
        match header.status:
            case Status.OK:
                return Returned(frame.payload)
            case Status.ERROR:
                return Failed(Failure.unpack(frame.payload))
            case _:
                raise MalformedFrame(f"it replied neither yes nor no, status {header.status}")

    def _pass_over(self) -> None:
        self._unanswering += 1
        if self._unanswering > UNANSWERING_LIMIT:
            raise MalformedFrame(
                f"it sent more than {UNANSWERING_LIMIT} frames that answer nothing (events,"
                " keepalive) instead of its replies; restart it, and see its log"
            )
