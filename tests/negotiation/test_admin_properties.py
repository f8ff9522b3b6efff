"""Any frames, in any order and any cut: each call gets one reply, nothing else is acted upon."""

import trio
from hypothesis import given
from hypothesis import strategies as st

from proxyd.admin.procedures import answer
from proxyd.admin.view import CallRefused
from proxyd.negotiation.admin import AdminNegotiation, Asked, Stage
from proxyd.negotiation.events import HangUp, Send
from proxyd.wire import proxyd_program, remote
from proxyd.wire.adminrpc import ClientEntry, ListClients, OfClient, OfServer, SetLogging
from proxyd.wire.failure import Failure
from proxyd.wire.frame import Frame, FrameType, Header, Status
from proxyd.wire.programs import OWN_PROGRAM, Admin, Keepalive, Own, Program
from proxyd.wire.proxyd_program import AskPage, AskStatus
from tests.admin.asking import counts
from tests.bed.examples import examples
from tests.fakes.admin import FakeServer, FakeView
from tests.negotiation.talk import frames_in
from tests.wire.strategies import FRAMES, U32, U64

_SERVERS = st.sampled_from(["virtproxyd", "admin", "libvirtd"])
_PAYLOADS = st.one_of(
    st.builds(OfServer, _SERVERS, st.sampled_from([0, 0, 0, 1])).map(OfServer.pack),
    st.builds(ListClients, _SERVERS, st.booleans(), st.just(0)).map(ListClients.pack),
    st.builds(ClientEntry, _SERVERS, st.integers(0, 3), st.just(0), st.just(0)).map(
        lambda client: OfClient(client).pack()
    ),
    st.sampled_from([None, "", "1:rpc", "1:stderr", "x"]).map(lambda text: SetLogging(text).pack()),
    st.builds(lambda name, count: counts(name, maxWorkers=count).pack(), _SERVERS, U32),
    st.builds(lambda name, count: counts(name, nclients_max=count).pack(), _SERVERS, U32),
    st.builds(AskStatus, U32).map(AskStatus.pack),
    st.builds(AskPage, U64, U32).map(AskPage.pack),
    st.integers(0, 3).map(proxyd_program.pack_number),
    st.binary(max_size=40),
)
_PROCEDURES = st.sampled_from(
    [(Program.ADMIN, number) for number in Admin] + [(OWN_PROGRAM, number) for number in Own]
)
_USUAL = st.builds(
    lambda called, serial, payload: Frame(Header(called[0], 1, called[1], 0, serial), payload),
    _PROCEDURES,
    U32,
    _PAYLOADS,
)
_UNUSUAL = st.builds(
    Frame,
    st.builds(
        Header,
        st.sampled_from([*Program, OWN_PROGRAM]) | U32,
        st.integers(0, 2),
        st.integers(-2, 25),
        st.integers(-1, 8),
        U32,
        st.integers(-1, 3),
    ),
    _PAYLOADS,
)
_STRANGE = _UNUSUAL | FRAMES | st.just(remote.keepalive(Keepalive.PING))
CONVERSED = st.integers(0, 3).flatmap(lambda roll: _STRANGE if roll == 3 else _USUAL)


def is_a_call(frame):
    header = frame.header
    known = {Program.ADMIN: {*Admin}, OWN_PROGRAM: {*Own}}.get(header.program, ())
    return (
        header.version == 1
        and header.type == FrameType.CALL
        and header.status == Status.OK
        and header.procedure in known
    )


def receive(service, wire, piece):
    """The events of these bytes, until it takes no more."""
    events = []
    while wire and service.wanted:
        size = min(service.wanted, piece, len(wire))
        events += service.receive_data(wire[:size])
        wire = wire[size:]
    return events


def carried_out(service, host, asked):
    async def do():
        try:
            return service.answered(await answer(host, asked.procedure, asked.payload))
        except CallRefused as refusal:
            return service.refused(refusal.failure)

    return trio.run(do)


@examples(150)
@given(st.lists(CONVERSED, max_size=12), st.integers(1, 40))
def test_every_call_gets_one_reply_and_only_a_call_is_carried_out(frames, piece):
    service, host = AdminNegotiation(), FakeView(FakeServer("admin"))
    host.main.join()
    host.listed = [{"id": 1}, {"id": 2}]
    for frame in frames:
        said, over, asked = b"", False, False
        for event in receive(service, frame.pack(), piece):
            match event:
                case Send(wire):
                    said += wire
                case Asked():
                    asked = True
                    said += carried_out(service, host, event)
                case HangUp():
                    over = True
        replies = frames_in(said)
        if is_a_call(frame):
            (reply,) = replies
            assert reply.header in {
                frame.header.replied(Status.OK),
                frame.header.replied(Status.ERROR),
            }
            if reply.header.status == Status.ERROR:
                assert Failure.unpack(reply.payload).message
        else:
            assert not asked
            assert len(replies) <= 1
        assert over == (service.stage is Stage.ENDED)
        if over:
            assert service.wanted == 0
            return


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_taken_or_end_it(garbage, piece):
    service = AdminNegotiation()
    for event in receive(service, garbage, piece):
        if isinstance(event, Asked):
            service.answered(b"")
    assert service.wanted > 0 or service.stage in {Stage.ENDED, Stage.ANSWERING}
