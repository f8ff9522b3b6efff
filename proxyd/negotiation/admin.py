"""One admin connection, without its socket: bytes in, events out.

Source: docs/protocol/admin.md, section 1.

Nobody proves anything here: whoever is connected has been let in by its uid. CONNECT_OPEN comes
first by custom, and libvirt's server does not insist on it; neither do we. What must stay true:

* One call at a time: while one is answered (ANSWERING) nothing is read, `wanted` is zero, and a
  client that pipelines waits in its socket.
* Every call of the ADMIN program, and of proxyd's own one beside it, gets exactly one reply, with
  its own serial; a stray one would make the client hang up (docs/protocol/frames.md, section 5).
* Anything that is no such call changes nothing.

Errors and their order are those of docs/protocol/errors.md, section 5.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from proxyd.negotiation.events import HangUp, Send
from proxyd.negotiation.preamble import PONG, Kind, kind_of, refusal_of
from proxyd.wire import adminrpc, failure, remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import Frame, FrameBuffer, Header
from proxyd.wire.programs import OWN_PROGRAM, Admin, Own, Program
from proxyd.wire.xdr import MalformedFrame

# The longest call sets log filters or outputs; a command line that holds them has one argument of
# 128 KiB at most. libvirt would take 32 MiB.
FRAME_LIMIT: Final = 262144
_SERVED: Final = frozenset({Program.ADMIN, OWN_PROGRAM})


@dataclass(frozen=True, slots=True)
class Asked:
    """Do what is asked, then call `answered` or `refused`; read nothing until then."""

    procedure: Admin | Own
    payload: bytes


Event = Send | HangUp | Asked


class Stage(Enum):
    LISTENING = auto()
    ANSWERING = auto()  # a call is being carried out
    ENDED = auto()


class AdminNegotiation:
    """The sans-io server side. Feed it `wanted` bytes at a time, carry out its events."""

    def __init__(self) -> None:
        self._buffer = FrameBuffer(FRAME_LIMIT)
        self._awaiting: Header | None = None
        self.stage = Stage.LISTENING
        self.spoken_to = False  # a call of the program has come

    @property
    def wanted(self) -> int:
        """How many bytes to read next: zero while a call is answered and at the end."""
        return self._buffer.wanted if self.stage is Stage.LISTENING else 0

    @property
    def midway(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._buffer.held > 0

    def receive_data(self, received: bytes | bytearray | memoryview) -> list[Event]:
        """Takes at most `wanted` bytes and says what to do. Lengths that cannot be end it."""
        if len(received) > self.wanted:
            raise ValueError("more was read than was wanted")
        self._buffer.feed(received)
        try:
            frame = self._buffer.next_frame()
        except MalformedFrame as error:
            return self._hang_up(f"protocol error: {error}")
        return [] if frame is None else self._dispatch(frame)

    def answered(self, payload: bytes) -> bytes:
        """It is done; what the call returns goes to the client."""
        return remote.reply(self._called(), payload).pack()

    def refused(self, reason: Failure) -> bytes:
        """It was not done, and nothing has changed."""
        return reason.reply_to(self._called()).pack()

    def _called(self) -> Header:
        header = self._awaiting
        if header is None:
            raise ValueError("no call is waiting for an answer")
        self._awaiting = None
        self.stage = Stage.LISTENING
        return header

    def _hang_up(self, reason: str, *, orderly: bool = False) -> list[Event]:
        self.stage = Stage.ENDED
        return [HangUp(reason, orderly)]

    def _dispatch(self, frame: Frame) -> list[Event]:
        match kind_of(frame.header):
            case Kind.PING:
                return [PONG]
            case Kind.DESCRIPTORS:
                return self._hang_up("descriptors on the admin socket")
            case Kind.CALL:
                return self._called_with(frame)
            case Kind.DROPPED:
                return []

    def _called_with(self, frame: Frame) -> list[Event]:
        header = frame.header
        refusal = refusal_of(header, _SERVED)
        if refusal is not None:
            return [Send(refusal.reply_to(header).pack())]
        self.spoken_to = True
        if header.program == OWN_PROGRAM:
            return self._ask(frame, Own(header.procedure))
        match header.procedure:
            case Admin.CONNECT_OPEN:
                return [self._open(frame)]
            case Admin.CONNECT_CLOSE:
                said = Send(remote.reply(header).pack())
                return [said, *self._hang_up("the client closed the connection", orderly=True)]
        return self._ask(frame, Admin(header.procedure))

    def _ask(self, frame: Frame, procedure: Admin | Own) -> list[Event]:
        self._awaiting = frame.header
        self.stage = Stage.ANSWERING
        return [Asked(procedure, frame.payload)]

    def _open(self, frame: Frame) -> Send:
        try:
            flags = adminrpc.Flags.unpack(frame.payload).flags
        except MalformedFrame as error:
            return Send(failure.undecodable(str(error)).reply_to(frame.header).pack())
        if flags:
            refusal = failure.unsupported_flags(flags, Admin.CONNECT_OPEN.name)
            return Send(refusal.reply_to(frame.header).pack())
        return Send(remote.reply(frame.header).pack())
