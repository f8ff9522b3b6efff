"""A client's whole conversation before its connection is open: nobody unproven opens anything.

What the client has proven is known here from the outside alone, by the verdicts that were given
and by what it was told.
"""

from proxyd.negotiation.events import HangUp, NeedsPolkit, NeedsSasl, Send, WantsOpen
from proxyd.negotiation.server import (
    CALL_LIMIT,
    FRAME_LIMIT,
    ServerNegotiation,
    Stage,
    frame_limit,
)
from proxyd.wire import remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import HEADER, HEADER_SIZE, Frame, FrameType, Header, Status
from proxyd.wire.programs import VERSION, AuthMethod, Keepalive, Program, Remote
from tests.fuzz.supply import Supply

OFFERED = ("GSSAPI", "SCRAM-SHA-256")
DENIAL = Failure(45, 60, "no")
LOOKUP = Failure(38, 0, "nobody")
TURNED_AWAY = Failure(39, 7, "too many")
TOKENS = (None, b"", b"token", b"n,,n=joe,r=x")
PROCEDURES = (*Remote, 2, 419, 454, 0)
PONG = remote.keepalive(Keepalive.PONG).pack()
WORDS = (b"GSSAPI", b"SCRAM-SHA-256", b"qemu:///system", b"\x20\0\x80\x86", b"\0\0\0\x42")


def one_input(data):
    supply = Supply(data)
    talk = Talk(supply)
    while supply.left and talk.goes_on:
        if talk.awaited is None:
            talk.hear(next_bytes(supply), supply.cut())
        else:
            talk.decide(supply.byte())
        talk.check()


def next_bytes(supply):
    """Mostly what a client says, so that the deep stages are reached; now and then anything."""
    shape = supply.byte()
    procedure = supply.choice(PROCEDURES)
    if shape < 64:
        return remote.call(procedure, shape, supply.piece()).pack()
    if shape < 112:
        mechanism = supply.choice((*OFFERED, "", "PLAIN"))
        token = bytes(65530 + supply.byte() % 8) if shape == 64 else supply.choice(TOKENS)
        return remote.call(
            Remote.AUTH_SASL_START, shape, remote.SaslStart(mechanism, token).pack()
        ).pack()
    if shape < 144:
        arguments = remote.OpenArguments("qemu:///system", supply.byte())
        return remote.call(Remote.CONNECT_OPEN, shape, arguments.pack()).pack()
    if shape < 192:
        fields = (supply.word(), supply.word(), supply.signed(), supply.signed(), supply.word())
        return Frame(Header(*fields, supply.signed()), supply.piece()).pack()
    if shape < 208:
        return remote.keepalive(supply.choice(tuple(Keepalive))).pack()
    return supply.piece()


class Talk:
    def __init__(self, supply):
        self.method = supply.choice(tuple(AuthMethod))
        shape = supply.byte()
        self.readonly, self.is_root = bool(shape & 1), bool(shape & 2)
        self.unknown = LOOKUP if shape & 0x1C == 0x1C else None
        self.turned_away = TURNED_AWAY if shape & 0xE0 == 0xE0 else None
        longest_token = remote.MAX_SASL_DATA if self.method is AuthMethod.SASL else 0
        self.server = ServerNegotiation(
            method=self.method,
            readonly=self.readonly,
            mechanisms=OFFERED,
            longest_token=longest_token,
            is_root=self.is_root,
            unknown=self.unknown,
            turned_away=self.turned_away,
        )
        self.proven = self.method is AuthMethod.NONE
        self.attempt = False  # a mechanism was chosen, and has not ended
        self.awaited = None  # the event that waits for a verdict
        self.longest = frame_limit(longest_token)
        self.heard = bytearray()  # of the frame that comes
        self.frames = 0

    @property
    def goes_on(self):
        return self.server.stage not in {Stage.OPEN, Stage.ENDED}

    def hear(self, wire, cut):
        """Gives the machine what it takes of these bytes, as a driver does."""
        cut = cut if len(wire) < FRAME_LIMIT else FRAME_LIMIT
        while wire and self.server.wanted:
            piece = wire[: min(self.server.wanted, cut)]
            wire = wire[len(piece) :]
            self.heard += piece
            events = self.server.receive_data(piece)
            for event in events:
                self.judge(event, is_last=event is events[-1])
            if self.server.stage is Stage.ENDED or self._frame_ended():
                self.heard.clear()
                self.frames += 1

    def _frame_ended(self):
        return len(self.heard) >= 4 and len(self.heard) == int.from_bytes(self.heard[:4], "big")

    def judge(self, event, *, is_last):
        match event:
            case Send():
                self.judge_reply(event.wire)
            case HangUp():
                assert event.reason
                assert is_last
                assert self.server.stage is Stage.ENDED
            case _:
                assert is_last
                assert self.unknown is None
                assert self.turned_away is None
                self.judge_request(event)
                self.awaited = event

    def judge_request(self, event):
        match event:
            case WantsOpen():
                assert self.proven
                assert not self.readonly or event.arguments.flags & remote.OPEN_READONLY
            case NeedsPolkit():
                assert self.method is AuthMethod.POLKIT
                assert not self.proven
            case NeedsSasl():
                assert self.method is AuthMethod.SASL
                assert not self.proven
                assert (event.mechanism is None) is self.attempt
                assert event.mechanism in {None, *OFFERED}
                assert event.data is None or len(event.data) <= remote.MAX_SASL_DATA
                self.attempt = True

    def judge_reply(self, wire):
        length, *fields = HEADER.unpack_from(wire)
        assert length == len(wire)
        reply, call = Header(*fields), Header(*HEADER.unpack_from(self.heard)[1:])
        if call.program == Program.KEEPALIVE and call.version == VERSION and call.type == 2:
            assert wire == PONG
            return
        assert call.type == FrameType.CALL
        assert reply in {call.replied(Status.OK), call.replied(Status.ERROR)}
        if reply.status == Status.ERROR:
            said = Failure.unpack(wire[HEADER_SIZE:]).message
            assert said
            tokens = {Remote.AUTH_SASL_START, Remote.AUTH_SASL_STEP}
            if reply.program == Program.REMOTE and reply.procedure in tokens:
                self.attempt = self.attempt and not said.startswith("authentication failed")
        elif reply.procedure == Remote.AUTH_LIST:
            self.proven |= self.is_root and self.method is AuthMethod.POLKIT
            told = AuthMethod.NONE if self.proven else self.method
            assert remote.unpack_auth_methods(wire[HEADER_SIZE:]) == [told]

    def decide(self, verdict):
        event, self.awaited = self.awaited, None
        yes = bool(verdict & 1)
        match event:
            case NeedsPolkit():
                wire = self.server.polkit_says(None if yes else DENIAL)
                self.proven = yes
            case NeedsSasl() if yes and verdict & 2:
                wire = self.server.sasl_goes_on(b"challenge")
            case NeedsSasl():
                wire = self.server.sasl_succeeded(None) if yes else self.server.sasl_failed()
                self.proven, self.attempt = yes, False
            case WantsOpen():
                wire = self.server.opened() if yes else self.server.refused(DENIAL)
                assert (self.server.stage is Stage.OPEN) is yes
        assert HEADER.unpack_from(wire)[6] == (Status.OK if yes else Status.ERROR)

    def check(self):
        server = self.server
        deaf = self.awaited is not None or not self.goes_on
        if not deaf and len(self.heard) >= 4:
            assert server.wanted <= self.longest
        assert deaf or server.wanted > 0
        assert not deaf or server.wanted == 0
        assert server.authenticated is (self.proven and server.stage is not Stage.ENDED)
        assert self.frames <= CALL_LIMIT or server.stage is Stage.ENDED
