"""proxyd towards a client, from its first byte until its connection is open.

Order is the table `ANSWERED`: what is answered at which stage. Everything else gets the error
that a real daemon sends (docs/protocol/errors.md, section 5), and the
connection stays as it was. What must stay true:

* Only `AUTH_LIST` from a peer that needs no proof, or a verdict that came in through
  `polkit_says` or `sasl_succeeded`, leads from GREETED to TRUSTED. No frame does.
* Each token that goes to a SASL mechanism belongs to one attempt: INIT, START with an offered name,
  STEPs. Anything else ends the attempt, so that tokens of two of them never meet.
* Only TRUSTED answers CONNECT_OPEN. WantsOpen is therefore never an unproven client's.
* While a verdict is awaited (DECIDING) nothing is read: `wanted` is zero. A client cannot pile
  up calls behind a slow daemon or a password prompt, and has at most one OPEN on its way.
* The driver reads `wanted` bytes at a time, so nothing behind the frame that opens the
  connection is ever taken from the socket here. What a client pipelined, with the descriptors
  that ride on it, is still in the kernel when the relay takes over.

Frames are bounded (FRAME_LIMIT, more where a mechanism has long tokens) and so is their number
(CALL_LIMIT, and UNCALLED_LIMIT for those that are no calls): a client that has not opened anything
costs one small buffer and a bounded number of turns.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from proxyd.negotiation.events import (
    HangUp,
    NeedsPolkit,
    NeedsSasl,
    Send,
    ServerEvent,
    WantsOpen,
)
from proxyd.negotiation.preamble import PONG, Kind, kind_of, refusal_of
from proxyd.wire import failure, remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import Frame, FrameBuffer, Header
from proxyd.wire.programs import AuthMethod, Feature, Program, Remote
from proxyd.wire.xdr import MalformedFrame

# The longest frame that has business here is a CONNECT_OPEN; a URI is bounded far below this.
FRAME_LIMIT: Final = 16384
_BESIDE_A_TOKEN: Final = 4096  # the header and a mechanism's name, with room to spare

# virsh makes four calls before its connection is open, and retries polkit five times.
CALL_LIMIT: Final = 100

# Keepalive, and what is dropped. A client of libvirt's pings every 5 s, and none does so before its
# connection is open.
UNCALLED_LIMIT: Final = 20

_SERVED: Final = frozenset({Program.REMOTE, Program.QEMU, Program.LXC})
_AUTHENTICATION: Final = frozenset(
    {
        Remote.AUTH_LIST,
        Remote.AUTH_SASL_INIT,
        Remote.AUTH_SASL_START,
        Remote.AUTH_SASL_STEP,
        Remote.AUTH_POLKIT,
    }
)


_OPEN: Final = frozenset({Remote.CONNECT_OPEN})
_POLKIT: Final = frozenset({Remote.AUTH_POLKIT})
_SASL_TOKENS: Final = frozenset({Remote.AUTH_SASL_START, Remote.AUTH_SASL_STEP})


class Attempt(Enum):
    """How far a SASL exchange is."""

    NONE = auto()
    OFFERED = auto()  # the client knows the mechanisms
    RUNNING = auto()  # it has chosen one


class Stage(Enum):
    GREETED = auto()  # who it is has not been proven
    TRUSTED = auto()  # may open a connection
    DECIDING = auto()  # a verdict is awaited
    OPEN = auto()  # belongs to the relay
    ENDED = auto()


ANSWERED: Final[dict[Stage, frozenset[Remote]]] = {
    Stage.GREETED: _AUTHENTICATION,
    Stage.TRUSTED: _AUTHENTICATION
    | {Remote.CONNECT_SUPPORTS_FEATURE, Remote.CONNECT_OPEN, Remote.CONNECT_CLOSE},
    Stage.DECIDING: frozenset(),
    Stage.OPEN: frozenset(),
    Stage.ENDED: frozenset(),
}


def frame_limit(longest_token: int) -> int:
    """In bytes. A token has four times as many on the wire (docs/protocol/xdr.md, section 2)."""
    return max(FRAME_LIMIT, 4 * longest_token + _BESIDE_A_TOKEN)


class ServerNegotiation:
    """The sans-io server side. Feed it `wanted` bytes at a time, carry out its events.

    `method` is the listener's authentication; `mechanisms` is what it offers where that is SASL,
    the best one first, and `longest_token` what one of theirs may have in bytes; `is_root` is what
    the kernel says of a UNIX peer;
    `unknown` is the failure that every call gets when the kernel's answer about the peer could
    not be understood (docs/protocol/identity.md, section 2). `turned_away` is what the first call
    of a client is answered with that is not to make a second one.
    """

    def __init__(
        self,
        *,
        method: AuthMethod,
        readonly: bool,
        mechanisms: Sequence[str] = (),
        longest_token: int = 0,
        is_root: bool = False,
        unknown: Failure | None = None,
        turned_away: Failure | None = None,
    ) -> None:
        self._method = method
        self._mechanisms = mechanisms
        self._attempt = Attempt.NONE
        self._readonly = readonly
        self._is_root = is_root
        self._unknown = unknown
        self._turned_away = turned_away
        self._buffer = FrameBuffer(frame_limit(longest_token))
        self._calls = 0
        self._uncalled = 0
        self._keepalive = False
        self._awaiting: Header | None = None
        self.stage = Stage.TRUSTED if method is AuthMethod.NONE else Stage.GREETED

    @property
    def wanted(self) -> int:
        """How many bytes to read next: zero while a verdict is awaited and at the end."""
        if self.stage is Stage.TRUSTED or self.stage is Stage.GREETED:
            return self._buffer.wanted
        return 0

    @property
    def opening(self) -> bool:
        """Whether it is the daemon's connection that is awaited."""
        return self._awaiting is not None and self._awaiting.procedure == Remote.CONNECT_OPEN

    @property
    def called(self) -> bool:
        """Whether the client has made a call."""
        return self._calls > 0

    @property
    def has_offered(self) -> bool:
        """Whether the client has the list of mechanisms, and has chosen none of them so far."""
        return self._attempt is Attempt.OFFERED

    @property
    def authenticated(self) -> bool:
        """Whether the client has proven itself or its listener asks for no proof."""
        if self._awaiting is not None:
            return self._awaiting.procedure == Remote.CONNECT_OPEN
        return self.stage in {Stage.TRUSTED, Stage.OPEN}

    def receive_data(self, received: bytes | bytearray | memoryview) -> list[ServerEvent]:
        """Takes at most `wanted` bytes and says what to do. Lengths that cannot be end it."""
        if len(received) > self.wanted:
            raise ValueError("more was read than was wanted: descriptors would be lost")
        self._buffer.feed(received)
        try:
            frame = self._buffer.next_frame()
        except MalformedFrame as error:
            return self._hang_up(f"protocol error: {error}")
        if frame is None:
            return []
        kind = kind_of(frame.header)
        return self._one_too_many(kind) or self._dispatch(kind, frame)

    def opened(self) -> bytes:
        """The daemon is open: the reply that the client waits for. The relay takes over."""
        return remote.reply(self._decided(_OPEN, Stage.OPEN)).pack()

    def refused(self, reason: Failure) -> bytes:
        """The connection could not be opened: the error reply. The client may try again."""
        return reason.reply_to(self._decided(_OPEN, Stage.TRUSTED)).pack()

    def polkit_says(self, denial: Failure | None) -> bytes:
        """polkit's verdict; None means that it said yes."""
        if denial is None:
            header = self._decided(_POLKIT, Stage.TRUSTED)
            return remote.reply(header, remote.pack_int(1)).pack()
        return denial.reply_to(self._decided(_POLKIT, Stage.GREETED)).pack()

    def sasl_goes_on(self, data: bytes | None) -> bytes:
        """The mechanism's answer, upon which the client takes the next step."""
        header = self._decided(_SASL_TOKENS, Stage.GREETED)
        return remote.reply(header, remote.SaslReply(complete=False, data=data).pack()).pack()

    def sasl_succeeded(self, data: bytes | None) -> bytes:
        """The mechanism knows who the client is, and that one may come in."""
        self._attempt = Attempt.NONE
        header = self._decided(_SASL_TOKENS, Stage.TRUSTED)
        return remote.reply(header, remote.SaslReply(complete=True, data=data).pack()).pack()

    def sasl_failed(self) -> bytes:
        """Whatever was wrong, the client is not told; it may begin again."""
        header = self._decided(_SASL_TOKENS, Stage.GREETED)
        return self._no_sasl().reply_to(header).pack()

    def _decided(self, calls: frozenset[Remote], stage: Stage) -> Header:
        """Ends the wait for the verdict on `calls`; one on another call must lead nowhere."""
        header = self._awaiting
        if header is None or header.procedure not in calls:
            raise ValueError(f"no verdict is awaited on {' or '.join(call.name for call in calls)}")
        self._awaiting = None
        self.stage = stage
        return header

    def _await_verdict(self, header: Header) -> None:
        self._awaiting = header
        self.stage = Stage.DECIDING

    def _one_too_many(self, kind: Kind) -> list[ServerEvent]:
        """Counts a frame; the end, if that was beyond what anybody has to say."""
        if kind is Kind.CALL:
            self._calls += 1
            if self._calls > CALL_LIMIT:
                return self._hang_up(f"more than {CALL_LIMIT} calls and nothing opened")
        else:
            self._uncalled += 1
            if self._uncalled > UNCALLED_LIMIT:
                return self._hang_up(
                    f"more than {UNCALLED_LIMIT} frames that are no calls, and nothing opened"
                )
        return []

    def _hang_up(self, reason: str) -> list[ServerEvent]:
        self.stage = Stage.ENDED
        return [HangUp(reason)]

    def _dispatch(self, kind: Kind, frame: Frame) -> list[ServerEvent]:
        match kind:
            case Kind.PING:
                return [PONG]
            case Kind.DESCRIPTORS:
                return self._hang_up("descriptors before the connection was opened")
            case Kind.CALL:
                return self._called_with(frame)
            case Kind.DROPPED:
                return []

    def _called_with(self, frame: Frame) -> list[ServerEvent]:
        """One call, the checks in the order of docs/protocol/errors.md, section 5."""
        header = frame.header
        if self._turned_away is not None:
            said = Send(self._turned_away.reply_to(header).pack())
            return [said, *self._hang_up(self._turned_away.message)]
        refusal = self._refusal(header)
        if refusal is not None:
            return [Send(refusal.reply_to(header).pack())]
        try:
            return self._answer(frame)
        except MalformedFrame as error:
            return [Send(failure.undecodable(str(error)).reply_to(header).pack())]

    def _refusal(self, header: Header) -> Failure | None:
        """Why this call is not looked into at this stage, or None when it is."""
        refusal = refusal_of(header, _SERVED)
        if refusal is not None:
            return refusal
        if header.program == Program.REMOTE and header.procedure in ANSWERED[self.stage]:
            return None
        if self.stage is Stage.GREETED:
            return failure.authentication_required()
        return self._unknown or failure.not_open()

    def _answer(self, frame: Frame) -> list[ServerEvent]:
        """A call that is answered at this stage. Raises MalformedFrame for its arguments."""
        header = frame.header
        match header.procedure:
            case Remote.CONNECT_SUPPORTS_FEATURE:
                feature = remote.unpack_int(frame.payload)
                return self._known(header) or self._supports_feature(header, feature)
            case Remote.CONNECT_OPEN:
                arguments = remote.OpenArguments.unpack(frame.payload)
                return self._known(header) or self._open(header, arguments)
            case Remote.AUTH_SASL_START:
                start = remote.SaslStart.unpack(frame.payload)
                return self._known(header) or self._sasl_start(header, start)
            case Remote.AUTH_SASL_STEP:
                data = remote.unpack_sasl_step(frame.payload)
                return self._known(header) or self._sasl_step(header, data)
            case _:
                return self._known(header) or self._answer_bare(header)

    def _answer_bare(self, header: Header) -> list[ServerEvent]:
        """A call without arguments."""
        # No table of bound methods: with it the machine would hold itself, and what a peer that is
        # gone has sent would wait for the garbage collector.
        match header.procedure:
            case Remote.AUTH_LIST:
                return self._auth_list(header)
            case Remote.AUTH_SASL_INIT:
                return self._sasl_init(header)
            case Remote.AUTH_POLKIT:
                return self._auth_polkit(header)
            case Remote.CONNECT_CLOSE:
                return self._close(header)
            case _:
                raise AssertionError(f"procedure {header.procedure} is in no table")

    def _known(self, header: Header) -> list[ServerEvent]:
        """What every call gets from a peer that could not be looked up."""
        return [Send(self._unknown.reply_to(header).pack())] if self._unknown else []

    def _auth_list(self, header: Header) -> list[ServerEvent]:
        if self.stage is Stage.GREETED and self._method is AuthMethod.POLKIT and self._is_root:
            self.stage = Stage.TRUSTED
        method = AuthMethod.NONE if self.stage is Stage.TRUSTED else self._method
        return [Send(remote.reply(header, remote.pack_auth_methods([method])).pack())]

    def _sasl_init(self, header: Header) -> list[ServerEvent]:
        greeted = self.stage is Stage.GREETED and self._method is AuthMethod.SASL
        if not greeted or self._attempt is not Attempt.NONE or not self._mechanisms:
            # An attempt that is going on is not disturbed by this.
            return [Send(failure.authentication_failed().reply_to(header).pack())]
        self._attempt = Attempt.OFFERED
        return [Send(remote.reply(header, remote.pack_sasl_mechanisms(self._mechanisms)).pack())]

    def _sasl_start(self, header: Header, start: remote.SaslStart) -> list[ServerEvent]:
        if self._attempt is not Attempt.OFFERED or start.mechanism not in self._mechanisms:
            return [Send(self._no_sasl().reply_to(header).pack())]
        self._attempt = Attempt.RUNNING
        self._await_verdict(header)
        return [NeedsSasl(start.mechanism, start.data)]

    def _sasl_step(self, header: Header, data: bytes | None) -> list[ServerEvent]:
        if self._attempt is not Attempt.RUNNING:
            return [Send(self._no_sasl().reply_to(header).pack())]
        self._await_verdict(header)
        return [NeedsSasl(None, data)]

    def _no_sasl(self) -> Failure:
        """Ends the attempt. The same answer for every reason (docs/protocol/sasl.md, section 2)."""
        self._attempt = Attempt.NONE
        return failure.authentication_failed()

    def _auth_polkit(self, header: Header) -> list[ServerEvent]:
        if self.stage is not Stage.GREETED or self._method is not AuthMethod.POLKIT:
            refusal = failure.internal("polkit authentication is not asked for here")
            return [Send(refusal.reply_to(header).pack())]
        self._await_verdict(header)
        return [NeedsPolkit(f"org.libvirt.unix.{'monitor' if self._readonly else 'manage'}")]

    def _supports_feature(self, header: Header, feature: int) -> list[ServerEvent]:
        if feature != Feature.PROGRAM_KEEPALIVE:
            return [Send(failure.not_open().reply_to(header).pack())]
        self._keepalive = True
        return [Send(remote.reply(header, remote.pack_int(1)).pack())]

    def _open(self, header: Header, asked: remote.OpenArguments) -> list[ServerEvent]:
        if self._readonly:
            asked = remote.OpenArguments(asked.name, asked.flags | remote.OPEN_READONLY)
        self._await_verdict(header)
        return [WantsOpen(asked, self._keepalive)]

    def _close(self, header: Header) -> list[ServerEvent]:
        said = Send(remote.reply(header).pack())
        self.stage = Stage.ENDED
        return [said, HangUp("the client closed before it opened anything", orderly=True)]
