"""The calls of a session that are recorded: each once, whole and right, however the bytes come."""

import random

import pytest

from proxyd.relay.flow import REFUSALS_LIMIT
from proxyd.relay.trail import MOST_UNDER_WAY, Outcome, Trail, is_change
from proxyd.wire.failure import ErrorCode, Failure
from proxyd.wire.frame import HEADER_SIZE, FrameType, Status
from proxyd.wire.names import NAMES
from proxyd.wire.objects import KEPT, Named
from proxyd.wire.programs import Program, Remote
from proxyd.wire.xdr import Writer
from tests.relay import frames

_number = NAMES[Program.REMOTE].index
DESTROY, DEFINE_XML = _number("DOMAIN_DESTROY"), _number("DOMAIN_DEFINE_XML")
CREATE_WITH_FILES = _number("DOMAIN_CREATE_XML_WITH_FILES")
VOL_DELETE = _number("STORAGE_VOL_DELETE")
SNAPSHOT_DELETE = _number("DOMAIN_SNAPSHOT_DELETE")
OPEN_CONSOLE, MONITOR_COMMAND = _number("DOMAIN_OPEN_CONSOLE"), 1
UUID = bytes(range(16))
GUEST = Named("domain", b"guest", UUID)


def domain(name=b"guest", uuid=UUID):
    return Writer().opaque(name).fixed_opaque(uuid).i32(-1).take()


def destroy(serial, name=b"guest", **more):
    return frames.call(serial, domain(name), procedure=DESTROY, **more)


def destroyed(serial, status=Status.OK):
    return frames.reply(serial, procedure=DESTROY, status=status)


class Recorder:
    def __init__(self):
        self.refuses = False
        self.calls = []

    def put_call(self, call):
        assert call.who == "somebody"
        assert call.began_ns <= call.ended_ns
        self.calls.append(call)

    @property
    def told(self):
        return [(each.procedure, each.serial, each.about, each.outcome) for each in self.calls]


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def recorded(start, recorder):
    """Starts a session whose changes are recorded, or all of its calls."""

    def starting(*, reads=False, **kind):
        session = start(**kind)
        session.pair.record(Trail("somebody", recorder, reads=reads))
        return session

    return starting


def test_a_change_is_recorded_when_its_reply_comes(recorded, recorder):
    session = recorded()
    session.send(session.client, destroy(7))
    assert recorder.told == []
    session.send(session.daemon, destroyed(7))
    assert recorder.told == [(DESTROY, 7, GUEST, Outcome.OK)]


def test_what_the_daemon_refuses_is_an_error(recorded, recorder):
    session = recorded()
    session.send(session.client, destroy(7))
    session.send(session.daemon, destroyed(7, Status.ERROR))
    assert recorder.told == [(DESTROY, 7, GUEST, Outcome.ERROR)]


def test_nothing_is_recorded_of_reads(recorded, recorder):
    session = recorded()
    session.send(session.client, frames.call(1) + frames.call(2, procedure=Remote.CONNECT_OPEN + 2))
    session.send(session.daemon, frames.reply(1))
    session.client.close()
    session.relay()
    assert recorder.told == []


def test_of_all_calls_reads_are_recorded_too(recorded, recorder):
    session = recorded(reads=True)
    session.send(session.client, frames.call(1) + destroy(2))
    session.send(session.daemon, destroyed(2) + frames.reply(1))
    assert recorder.told == [
        (DESTROY, 2, GUEST, Outcome.OK),
        (frames.NODE_GET_INFO, 1, None, Outcome.OK),
    ]


CALLS = [
    (destroy(1), destroyed(1), (DESTROY, 1, GUEST, Outcome.OK)),
    (
        frames.call(2, Writer().opaque(b"<domain/>").take(), procedure=DEFINE_XML),
        frames.reply(2, domain(b"made"), procedure=DEFINE_XML),
        (DEFINE_XML, 2, Named("domain", b"made", UUID), Outcome.OK),
    ),
    (frames.call(3), frames.reply(3), None),
    (
        frames.call(
            4,
            Writer().opaque(b"pool").opaque(b"volume").opaque(b"key").take(),
            procedure=VOL_DELETE,
        ),
        frames.reply(4, procedure=VOL_DELETE, status=Status.ERROR),
        (VOL_DELETE, 4, Named("storage_vol", b"volume", parent=b"pool"), Outcome.ERROR),
    ),
    (
        frames.call(5, Writer().opaque(b"s1").take() + domain(), procedure=SNAPSHOT_DELETE),
        frames.reply(5, procedure=SNAPSHOT_DELETE),
        (
            SNAPSHOT_DELETE,
            5,
            Named("snapshot", b"s1", parent=b"guest", parent_uuid=UUID),
            Outcome.OK,
        ),
    ),
    (
        frames.call(6, domain(), procedure=MONITOR_COMMAND, program=Program.QEMU),
        frames.reply(6, procedure=MONITOR_COMMAND, program=Program.QEMU),
        (MONITOR_COMMAND, 6, GUEST, Outcome.OK),
    ),
    (
        frames.call(7, domain(b"n" * 50_000), procedure=DESTROY),
        frames.reply(7, procedure=DESTROY),
        (DESTROY, 7, Named("domain", b"n" * (KEPT + 1), UUID), Outcome.OK),
    ),
    (
        frames.call_with_descriptors(0, 8, domain(), procedure=CREATE_WITH_FILES),
        frames.reply(8, domain(b"files"), procedure=CREATE_WITH_FILES),
        (CREATE_WITH_FILES, 8, Named("domain", b"files", UUID), Outcome.OK),
    ),
]


@pytest.mark.parametrize("seed", range(25))
def test_records_are_the_same_however_the_bytes_are_cut(recorded, recorder, seed):
    chance = random.Random(seed)
    session = recorded()
    up = b"".join(call for call, _, _ in CALLS)
    down = b"".join(reply for _, reply, _ in CALLS)
    for sender, wire in ((session.client, up), (session.daemon, down)):
        at = 0
        while at < len(wire):
            size = chance.choice((1, 3, 27, 28, 29, 60, 500, 40_000))
            session.send(sender, wire[at : at + size])
            at += size
    assert recorder.told == [record for _, _, record in CALLS if record]
    assert b"".join(session.at_daemon.wires) == up
    assert b"".join(session.at_client.wires) == down


def test_a_call_that_is_cut_off_with_its_session_has_no_answer(recorded, recorder):
    session = recorded()
    session.send(session.client, destroy(1) + destroy(2))
    session.loop.drop(session.pair.number, "kicked")
    session.turn(2)
    assert session.ended
    assert [each[3] for each in recorder.told] == [Outcome.UNANSWERED] * 2


def test_what_a_daemon_answers_after_its_client_has_gone_is_recorded(recorded, recorder):
    session = recorded(parting_s=5)
    session.send(session.client, destroy(1) + destroy(2))
    session.client.close()
    session.turn(5)
    assert session.ended
    assert recorder.told == []
    session.daemon.sendall(destroyed(1))
    session.turn(5)
    assert recorder.told == [(DESTROY, 1, GUEST, Outcome.OK)]
    session.daemon.close()
    session.turn(5)
    assert recorder.told[1:] == [(DESTROY, 2, GUEST, Outcome.UNANSWERED)]


def test_half_a_call_is_none(recorded, recorder):
    session = recorded()
    session.send(session.client, destroy(1)[:40])
    session.client.close()
    session.relay()
    assert recorder.told == []


def test_a_call_that_goes_no_further_is_recorded_as_refused(recorded, recorder):
    session = recorded()
    session.send(session.client, frames.set_identity(5))
    assert recorder.told == [(Remote.CONNECT_SET_IDENTITY, 5, None, Outcome.REFUSED)]


def test_a_serial_that_is_used_twice_hides_nothing(recorded, recorder):
    session = recorded()
    session.send(session.client, destroy(1, b"one") + destroy(1, b"two"))
    session.send(session.daemon, destroyed(1) + destroyed(1))
    assert [(each[2].name, each[3]) for each in recorder.told] == [
        (b"one", Outcome.UNANSWERED),
        (b"two", Outcome.OK),
    ]


def test_more_calls_than_are_remembered_are_recorded_at_once(recorded, recorder):
    session = recorded()
    many = MOST_UNDER_WAY + 10
    session.send(session.client, b"".join(destroy(serial) for serial in range(many)))
    assert [each[1] for each in recorder.told] == list(range(MOST_UNDER_WAY, many))
    session.client.close()
    session.relay()
    assert sorted(each[1] for each in recorder.told) == list(range(many))


@pytest.mark.parametrize("payload", [b"", b"\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x05guest\0\0\0"])
def test_arguments_that_cannot_be_understood_name_nothing(recorded, recorder, payload):
    session = recorded()
    session.send(session.client, frames.call(1, payload, procedure=DESTROY))
    session.send(session.daemon, destroyed(1, Status.ERROR))
    assert recorder.told == [(DESTROY, 1, None, Outcome.ERROR)]


def test_a_name_ends_where_it_does_for_the_daemon(recorded, recorder):
    session = recorded()
    session.send(session.client, destroy(1, b"guest\0of nobody"))
    session.send(session.daemon, destroyed(1))
    assert recorder.told[0][2] == GUEST


def test_the_call_that_opens_a_stream_is_recorded_and_its_packets_are_not(recorded, recorder):
    session = recorded()
    console = frames.call(1, domain(), procedure=OPEN_CONSOLE)
    packet = frames.frame(
        FrameType.STREAM, 1, b"hello", procedure=OPEN_CONSOLE, status=Status.CONTINUE
    )
    session.send(session.client, console + packet + destroy(2))
    session.send(session.daemon, frames.reply(1, procedure=OPEN_CONSOLE) + packet)
    session.send(session.daemon, destroyed(2))
    assert recorder.told == [
        (OPEN_CONSOLE, 1, GUEST, Outcome.OK),
        (DESTROY, 2, GUEST, Outcome.OK),
    ]


def test_what_nobody_knows_counts_as_a_change():
    assert is_change(Program.REMOTE, 700)
    assert is_change(Program.QEMU, 8)
    assert not is_change(Program.REMOTE, frames.NODE_GET_INFO)
    assert not is_change(Program.KEEPALIVE, 1)


# While records cannot be written and have to be.


def denials(session):
    return [
        (each.serial, Failure.unpack(each.wire[HEADER_SIZE:]).code)
        for each in session.at_client.arrived
        if each.header.status == Status.ERROR
    ]


@pytest.mark.parametrize("cut", [0, 10, 28, 30, 60])
def test_no_change_passes_and_reads_do(recorded, recorder, cut):
    session = recorded()
    recorder.refuses = True
    wire = destroy(1)
    session.send(session.client, wire[:cut])
    session.send(session.client, wire[cut:] + frames.call(2) + destroy(3))
    assert session.at_daemon.wires == [frames.call(2)]
    assert denials(session) == [(1, ErrorCode.ACCESS_DENIED), (3, ErrorCode.ACCESS_DENIED)]
    assert recorder.told == [
        (DESTROY, 1, GUEST, Outcome.REFUSED),
        (DESTROY, 3, GUEST, Outcome.REFUSED),
    ]
    recorder.refuses = False
    session.send(session.client, destroy(4))
    assert session.at_daemon.serials[1:] == [4]
    assert not session.ended


def test_a_long_change_does_not_pass_either(recorded, recorder):
    session = recorded()
    recorder.refuses = True
    long = frames.call(1, Writer().opaque(bytes(300_000)).take(), procedure=DEFINE_XML)
    session.send(session.client, long + frames.call(2))
    assert session.at_daemon.wires == [frames.call(2)]
    assert denials(session) == [(1, ErrorCode.ACCESS_DENIED)]


def test_a_change_with_descriptors_does_not_pass_either(recorded, recorder, files):
    session = recorded()
    recorder.refuses = True
    wire = frames.call_with_descriptors(2, 1, domain(), procedure=CREATE_WITH_FILES)
    session.send(session.client, wire)
    for each in files[:2]:
        frames.send_descriptor(session.client, each)
    session.turn_until(lambda: (session.at_client.take(), session.at_client.arrived)[1])
    session.send(session.client, frames.call(2))
    assert session.at_daemon.wires == [frames.call(2)]
    assert denials(session) == [(1, ErrorCode.ACCESS_DENIED)]


def test_who_tries_again_and_again_keeps_the_session(recorded, recorder):
    session = recorded()
    recorder.refuses = True
    for serial in range(2 * REFUSALS_LIMIT):
        session.send(session.client, destroy(serial))
    assert len(denials(session)) == 2 * REFUSALS_LIMIT
    assert not session.ended
    assert (session.up.refusals, session.up.denials) == (0, 2 * REFUSALS_LIMIT)


def test_recording_can_begin_and_end_in_a_live_session(start, recorder):
    session = start()
    session.send(session.client, destroy(1))
    session.loop.record(session.pair, Trail("somebody", recorder, reads=False))
    session.relay()
    session.send(session.client, destroy(2))
    session.loop.record(session.pair, Trail("somebody", recorder, reads=True))
    session.relay()
    session.send(session.daemon, destroyed(1) + destroyed(2))
    assert [each[1] for each in recorder.told] == [2]
    session.loop.record(session.pair, None)
    session.relay()
    session.send(session.client, destroy(3))
    session.send(session.daemon, destroyed(3))
    assert [each[1] for each in recorder.told] == [2]
