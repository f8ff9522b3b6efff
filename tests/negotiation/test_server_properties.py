"""Frames in any order, in any cut, with any verdict: nobody unproven ever opens a connection.

The conversation is a state machine of hypothesis. What the client has proven is known here from
the outside alone: from what it was told and from the verdicts that the test itself gave.
"""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from proxyd.negotiation.events import (
    HangUp,
    NeedsPolkit,
    NeedsSasl,
    Send,
    ServerEvent,
    WantsOpen,
)
from proxyd.negotiation.server import (
    CALL_LIMIT,
    FRAME_LIMIT,
    ServerNegotiation,
    Stage,
    frame_limit,
)
from proxyd.wire import remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import Frame, FrameType, Header, Status
from proxyd.wire.programs import AuthMethod, Keepalive, Program, Remote
from proxyd.wire.remote import OpenArguments
from tests.bed.examples import examples
from tests.negotiation.talk import frames_in
from tests.wire.strategies import FRAMES, U32

OFFERED = ("GSSAPI", "SCRAM-SHA-256")
DENIAL = Failure(45, 60, "no")
LOOKUP = Failure(38, 0, "nobody")
FOREVER_DEAF = {Stage.OPEN, Stage.ENDED}

METHODS = st.sampled_from(AuthMethod)
# Mostly what a real client says, so that the deep stages are reached, and now and then anything.
_WAY_IN = st.sampled_from(
    [
        Remote.AUTH_LIST,
        Remote.AUTH_POLKIT,
        Remote.AUTH_SASL_INIT,
        Remote.AUTH_SASL_START,
        Remote.AUTH_SASL_START,
        Remote.AUTH_SASL_STEP,
        Remote.CONNECT_SUPPORTS_FEATURE,
        Remote.CONNECT_OPEN,
        Remote.CONNECT_OPEN,
    ]
)
_PROCEDURES = st.sampled_from([*Remote, 454]) | st.integers(-2, 500)
_TOKENS = st.sampled_from([None, b"", b"token", b"token", b"token", bytes(65536), bytes(65537)])
_PAYLOADS = st.one_of(
    st.builds(remote.SaslStart, st.sampled_from([*OFFERED, "PLAIN", ""]), _TOKENS).map(
        remote.SaslStart.pack
    ),
    _TOKENS.map(remote.pack_sasl_step),
    st.builds(OpenArguments, st.none() | st.just("qemu:///system"), U32).map(OpenArguments.pack),
    st.sampled_from([0, 1, 10, 14]).map(remote.pack_int),
    st.binary(max_size=20),
)
_USUAL = st.builds(
    Frame,
    st.builds(
        Header,
        st.just(Program.REMOTE),
        st.just(1),
        _WAY_IN,
        st.just(FrameType.CALL),
        U32,
        st.just(Status.OK),
    ),
    _PAYLOADS,
)
_UNUSUAL = st.builds(
    Frame,
    st.builds(
        Header,
        st.sampled_from(Program) | U32,
        st.integers(0, 2),
        _PROCEDURES,
        st.integers(-1, 8),
        U32,
        st.integers(-1, 3),
    ),
    _PAYLOADS,
)
_STRANGE = _UNUSUAL | FRAMES | st.just(remote.keepalive(Keepalive.PING))
CONVERSED = st.integers(0, 3).flatmap(lambda roll: _STRANGE if roll == 3 else _USUAL)
CUTS = st.integers(1, 40) | st.just(FRAME_LIMIT)


def echoes(reply, call):
    """Whether this frame is an answer to that call, a PONG being the answer to a PING."""
    if call.program == Program.KEEPALIVE and call.type == FrameType.MESSAGE:
        return reply == remote.keepalive(Keepalive.PONG)
    return reply.header in {call.replied(Status.OK), call.replied(Status.ERROR)}


class Conversation(RuleBasedStateMachine):
    @initialize(
        method=METHODS,
        readonly=st.booleans(),
        is_root=st.booleans(),
        unknown=st.sampled_from([None] * 5 + [LOOKUP]),
    )
    def meet(self, method, readonly, is_root, unknown):
        self.longest_token = remote.MAX_SASL_DATA if method is AuthMethod.SASL else 0
        self.server = ServerNegotiation(
            method=method,
            readonly=readonly,
            mechanisms=OFFERED,
            longest_token=self.longest_token,
            is_root=is_root,
            unknown=unknown,
        )
        self.method, self.readonly, self.is_root = method, readonly, is_root
        self.unknown = unknown
        self.proven = method is AuthMethod.NONE
        # The event that waits for a verdict, and the call that it is about.
        self.awaited: tuple[ServerEvent, Header] | None = None
        self.frames = 0
        self.attempt = False  # a SASL mechanism was chosen and has not ended

    def reads(self):
        return self.server.wanted > 0

    @precondition(reads)
    @rule(frame=CONVERSED, cut=CUTS, twice=st.booleans())
    def a_frame_comes(self, frame, cut, twice):
        for _ in range(1 + twice):
            events: list[ServerEvent] = []
            rest = frame.pack()
            while rest and not events and self.server.wanted:
                size = min(self.server.wanted, cut)
                events = self.server.receive_data(rest[:size])
                rest = rest[size:]
            self.frames += 1
            self.judge(events, frame.header)
            if not self.server.wanted:
                return

    def judge(self, events, call):
        for event in events:
            match event:
                case Send():
                    (reply,) = frames_in(event.wire)
                    assert echoes(reply, call)
                    self.note_the_end_of_an_attempt(reply)
                    self.note_a_root_that_was_let_in(reply)
                case WantsOpen():
                    assert self.proven
                    assert self.unknown is None
                    assert self.awaited is None
                    assert not self.readonly or event.arguments.flags & 1
                    self.awaited = event, call
                case NeedsPolkit():
                    assert self.method is AuthMethod.POLKIT
                    assert not self.proven
                    self.awaited = event, call
                case NeedsSasl():
                    assert self.method is AuthMethod.SASL
                    assert self.unknown is None
                    assert not self.proven
                    # A token without a name belongs to the attempt that goes on, if one does.
                    assert (event.mechanism is None) is self.attempt
                    assert event.mechanism in {None, *OFFERED}
                    assert event.data is None or len(event.data) <= remote.MAX_SASL_DATA
                    self.attempt = True
                    self.awaited = event, call
                case HangUp():
                    assert event.reason
                    assert event is events[-1]
                    assert self.server.stage is Stage.ENDED

    def note_the_end_of_an_attempt(self, reply):
        token = reply.header.procedure in {Remote.AUTH_SASL_START, Remote.AUTH_SASL_STEP}
        if not (token and reply.header.program == Program.REMOTE):
            return
        # Undecodable arguments are told of before anybody looks at what they are for.
        if Failure.unpack(reply.payload).message.startswith("authentication failed"):
            self.attempt = False

    def note_a_root_that_was_let_in(self, reply):
        asked = reply.header.procedure == Remote.AUTH_LIST and reply.header.status == Status.OK
        if asked and reply.header.program == Program.REMOTE:
            root = self.is_root and self.method is AuthMethod.POLKIT
            self.proven = self.proven or root
            told = AuthMethod.NONE if self.proven else self.method
            assert remote.unpack_auth_methods(reply.payload) == [told]

    @precondition(lambda self: self.awaited is not None)
    @rule(yes=st.booleans(), step=st.booleans())
    def a_verdict_comes(self, yes, step):
        assert self.awaited is not None
        (event, call), self.awaited = self.awaited, None
        match event:
            case NeedsPolkit():
                wire = self.server.polkit_says(None if yes else DENIAL)
                self.proven = yes
            case NeedsSasl() if yes and step:
                wire = self.server.sasl_goes_on(b"challenge")
            case NeedsSasl():
                wire = self.server.sasl_succeeded(None) if yes else self.server.sasl_failed()
                self.proven = yes
                self.attempt = False
            case WantsOpen():
                wire = self.server.opened() if yes else self.server.refused(DENIAL)
        (reply,) = frames_in(wire)
        assert reply.header == call.replied(Status.OK if yes else Status.ERROR)
        assert (self.server.stage is Stage.OPEN) is (yes and isinstance(event, WantsOpen))

    @rule(more=st.integers(1, 9))
    def too_much_is_read(self, more):
        before = self.server.wanted
        try:
            self.server.receive_data(bytes(before + more))
        except ValueError:
            assert self.server.wanted == before
        else:
            raise AssertionError("it was taken")

    @invariant()
    def it_reads_exactly_when_it_may(self):
        deaf = self.awaited is not None or self.server.stage in FOREVER_DEAF
        assert (self.server.wanted == 0) is deaf
        assert (self.server.stage is Stage.DECIDING) is (self.awaited is not None)
        assert self.server.wanted <= frame_limit(self.longest_token)

    @invariant()
    def it_believes_what_was_proven(self):
        assert self.server.authenticated is (self.proven and self.server.stage is not Stage.ENDED)

    @invariant()
    def it_does_not_talk_for_ever(self):
        assert self.frames <= CALL_LIMIT or self.server.stage is Stage.ENDED


TestConversation = Conversation.TestCase
TestConversation.settings = examples(200, stateful_step_count=20)


@given(METHODS, st.booleans(), st.lists(CONVERSED, max_size=6), CUTS)
def test_any_cut_of_a_conversation_gives_the_same_events(method, is_root, frames, cut):
    def hear(piece):
        server = ServerNegotiation(method=method, readonly=False, is_root=is_root)
        events, rest = [], b"".join(frame.pack() for frame in frames)
        while rest and server.wanted:
            size = min(server.wanted, piece)
            events += server.receive_data(rest[:size])
            rest = rest[size:]
        # How much of a frame that ends it was read matters to nobody.
        return events, server.stage, rest if server.stage is not Stage.ENDED else b""

    assert hear(cut) == hear(FRAME_LIMIT)


@given(METHODS, st.binary(max_size=200), CUTS)
@examples(200)
def test_any_bytes_of_a_stranger_give_frames_or_an_end(method, stream, cut):
    server = ServerNegotiation(method=method, readonly=False)
    events = []
    while stream and server.wanted:
        size = min(server.wanted, cut)
        events += server.receive_data(stream[:size])
        stream = stream[size:]
    for event in events:
        assert isinstance(event, HangUp | Send)
        assert isinstance(event, HangUp) or frames_in(event.wire)
