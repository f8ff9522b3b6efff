"""The admin socket's conversation, carried out on a host that does nothing but remember it."""

from proxyd.admin.procedures import answer
from proxyd.admin.view import CallRefused
from proxyd.negotiation.admin import FRAME_LIMIT, AdminNegotiation, Asked, Stage
from proxyd.negotiation.events import HangUp, Send
from proxyd.wire import adminrpc, proxyd_program, remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import HEADER, HEADER_SIZE, Frame, FrameType, Header, Status
from proxyd.wire.params import Param, ParamType
from proxyd.wire.programs import OWN_PROGRAM, Admin, Keepalive, Own, Program
from tests.fakes.admin import FakeServer, FakeView
from tests.fuzz.supply import Supply

SERVERS = ("virtproxyd", "admin", "libvirtd", "")
FIELDS = ("minWorkers", "maxWorkers", "prioWorkers", "nclients_max", "nclients_unauth_max", "x")
TEXTS = (None, "", "1:rpc", "1:stderr", "3:file:/nonexistent/log", "3:syslog:x 4:journald", "5:x")
KNOWN = {Program.ADMIN: set(Admin), OWN_PROGRAM: set(Own)}
PONG = remote.keepalive(Keepalive.PONG).pack()
WORDS = (b"\x06\x90\x06\x90", b"prxy", b"virtproxyd\0\0", b"maxWorkers\0\0", b"1:stderr", b"1:rpc")


def one_input(data):
    supply = Supply(data)
    service, host = AdminNegotiation(), FakeView(FakeServer("admin"))
    for _ in range(supply.byte() % 4):
        host.main.join()
    host.listed = [{"id": 1}, {"id": 2}]
    heard = bytearray()
    while supply.left and service.stage is not Stage.ENDED:
        wire, cut = next_bytes(supply), supply.cut()
        while wire and service.wanted:
            assert service.wanted <= FRAME_LIMIT
            piece = wire[: min(cut, service.wanted)]
            wire = wire[len(piece) :]
            heard += piece
            events = service.receive_data(piece)
            if events:
                judge(events, service, host, Header(*header_fields(heard)))
            if not service.midway:
                heard.clear()


def header_fields(heard):
    return HEADER.unpack_from(bytes(heard).ljust(HEADER_SIZE, b"\0"))[1:]


def judge(events, service, host, call):
    replies = []
    for event in events:
        match event:
            case Send(wire):
                replies.append(wire)
            case Asked():
                assert is_a_call(call)
                replies.append(carried_out(service, host, event))
            case HangUp():
                assert event.reason
                assert service.wanted == 0
    if is_a_call(call):
        (reply,) = replies
        _, *fields = HEADER.unpack_from(reply)
        assert Header(*fields) in {call.replied(Status.OK), call.replied(Status.ERROR)}
        if fields[-1] == Status.ERROR:
            assert Failure.unpack(reply[HEADER_SIZE:]).message


def is_a_call(header):
    return (
        header.version == 1
        and header.type == FrameType.CALL
        and header.status == Status.OK
        and header.procedure in KNOWN.get(header.program, ())
    )


def carried_out(service, host, asked):
    try:
        return service.answered(returned_by(answer(host, asked.procedure, asked.payload)))
    except CallRefused as refusal:
        return service.refused(refusal.failure)


def returned_by(coroutine):
    """Of one that never has to wait: this host does not, and has few clients."""
    try:
        coroutine.send(None)
    except StopIteration as over:
        return over.value
    raise AssertionError("it waits")


def next_bytes(supply):
    shape = supply.byte()
    if shape < 160:
        program, procedures = (OWN_PROGRAM, Own) if shape & 7 == 7 else (Program.ADMIN, Admin)
        header = Header(program, 1, supply.choice(tuple(procedures)), FrameType.CALL, shape)
        return Frame(header, next_payload(supply)).pack()
    if shape < 200:
        fields = (supply.choice((*KNOWN, 0x20008086)), supply.byte() % 3, supply.byte() % 24)
        kind, status = supply.byte() % 8, supply.byte() % 4
        return Frame(Header(*fields, kind, supply.word(), status), supply.piece()).pack()
    if shape < 216:
        return remote.keepalive(supply.choice(tuple(Keepalive))).pack()
    return supply.piece()


def next_payload(supply):
    shape, flags = supply.byte(), supply.choice((0, 0, 0, 1, 2))
    server = supply.choice(SERVERS)
    match shape % 8:
        case 0:
            return adminrpc.OfServer(server, flags).pack()
        case 1:
            return adminrpc.ListClients(server, bool(shape & 8), flags).pack()
        case 2:
            entry = adminrpc.ClientEntry(server, supply.byte() % 4)
            return adminrpc.OfClient(entry, flags).pack()
        case 3:
            return adminrpc.SetLogging(supply.choice(TEXTS), flags).pack()
        case 4:
            params = tuple(
                Param(supply.choice(FIELDS), supply.choice((ParamType.UINT,) * 3 + (1,)), value)
                for value in supply.bytes(supply.byte() % 4)
            )
            return adminrpc.SetParams(server, params, flags).pack()
        case 5:
            return adminrpc.LookUpClient(server, supply.byte() % 4, flags).pack()
        case 6:
            return proxyd_program.AskPage(supply.byte(), supply.word()).pack()
        case _:
            return supply.piece()
