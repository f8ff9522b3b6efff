"""Whatever a daemon answers: a connection counts as open only after its own yes to each call."""

from proxyd.negotiation.backend import FRAME_LIMIT, BackendNegotiation, BackendStage
from proxyd.negotiation.events import DaemonOpened, DaemonRefused, Send
from proxyd.negotiation.identity import ClientIdentity
from proxyd.wire import remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import HEADER, HEADER_SIZE, Frame, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Keepalive, Program, Remote
from tests.fuzz.supply import Supply

IDENTITY = ClientIdentity(uid=1000, user_name="fred").params()
ARGUMENTS = remote.OpenArguments("qemu:///system", 0)
REFUSAL = Failure(45, 7, "no").pack()
OVER = {BackendStage.OPEN, BackendStage.REFUSED}
PONG = remote.keepalive(Keepalive.PONG).pack()
WORDS = (b"\x20\0\x80\x86", b"\0\0\0\x1c", b"\0\0\1\xa3", b"\0\0\0\1\0\0\0\0", b"keep")


def one_input(data):
    supply = Supply(data)
    keepalive = supply.flag()
    order = [
        Remote.AUTH_LIST,
        *([Remote.CONNECT_SUPPORTS_FEATURE] if keepalive else []),
        Remote.CONNECT_OPEN,
        Remote.CONNECT_SET_IDENTITY,
    ]
    machine = BackendNegotiation(ARGUMENTS, IDENTITY, keepalive=keepalive)
    called = [header_of(machine.start())]
    heard = bytearray()
    while supply.left and machine.stage not in OVER:
        wire, cut = next_bytes(supply, called[-1]), supply.cut()
        while wire and machine.wanted:
            assert machine.wanted <= FRAME_LIMIT
            piece = wire[: min(cut, machine.wanted)]
            wire = wire[len(piece) :]
            heard += piece
            for event in machine.receive_data(piece):
                judge(event, machine, called, order, bytes(heard))
            if len(heard) >= 4 and len(heard) == int.from_bytes(heard[:4], "big"):
                heard.clear()
        assert [each.procedure for each in called] == order[: len(called)]
    assert (machine.wanted == 0) is (machine.stage in OVER)


def judge(event, machine, called, order, heard):
    match event:
        case Send(wire) if wire == PONG:
            assert heard[4:8] == b"keep"
        case Send(wire):
            assert_yes(heard, called[-1])
            called.append(header_of(wire))
        case DaemonOpened():
            assert_yes(heard, called[-1])
            assert len(called) == len(order)
            assert machine.stage is BackendStage.OPEN
        case DaemonRefused():
            assert event.failure.pack()
            assert machine.stage is BackendStage.REFUSED


def assert_yes(heard, call):
    """An OK to this very call; only the probe for keepalive may also be denied."""
    reply = header_of(heard)
    denied = call.procedure == Remote.CONNECT_SUPPORTS_FEATURE and reply.status == Status.ERROR
    assert reply == call.replied(Status.ERROR if denied else Status.OK)


def header_of(wire):
    return Header(*HEADER.unpack_from(wire)[1:])


def next_bytes(supply, call):
    shape = supply.byte()
    if shape < 96:
        payload = remote.pack_auth_methods([0]) if call.procedure == Remote.AUTH_LIST else b""
        return Frame(call.replied(Status.OK), payload + supply.bytes(shape & 7)).pack()
    if shape < 128:
        return Frame(call.replied(Status.OK), supply.piece()).pack()
    if shape < 160:
        return Frame(call.replied(Status.ERROR), supply.choice((REFUSAL, supply.piece()))).pack()
    if shape < 192:
        program = supply.choice((Program.REMOTE, Program.KEEPALIVE, Program.QEMU))
        kind = supply.choice((*FrameType, 7))
        fields = (program, supply.choice((VERSION, 0, 2)), supply.byte(), kind, supply.byte())
        return Frame(Header(*fields, supply.byte() % 4), supply.piece()).pack()
    if shape < 208:
        return remote.keepalive(supply.choice(tuple(Keepalive))).pack()
    if shape < 224:
        return HEADER.pack(supply.word(), *call_fields(call, supply))[:HEADER_SIZE]
    return supply.piece()


def call_fields(call, supply):
    kind = FrameType.REPLY
    return call.program, call.version, call.procedure, kind, call.serial, supply.byte() % 4
