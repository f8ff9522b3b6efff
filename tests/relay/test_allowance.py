"""Who may not do everything: what its allowance does not have goes no further, and is answered."""

import sys
from collections import Counter

import pytest

from proxyd.relay.flow import REFUSALS_LIMIT
from proxyd.relay.guards import GUARDED, restricted
from proxyd.relay.loop import SCRATCH_SIZE
from proxyd.relay.moving import LONGEST_REFUSALS
from proxyd.relay.trail import Outcome
from proxyd.rules.allowance import Allowance
from proxyd.rules.permissions import allowance_of
from proxyd.wire.failure import Domain, ErrorCode, Failure
from proxyd.wire.frame import HEADER_SIZE, FrameType, Status
from proxyd.wire.names import NAMES
from proxyd.wire.programs import Program
from proxyd.wire.xdr import Writer
from tests.relay import frames
from tests.relay.moving import Recorder, Travelling
from tests.relay.session import SMALL_BUFFER, fill, tcp_pair, unix_pair

_number = NAMES[Program.REMOTE].index
DESTROY, XML_DESC = _number("DOMAIN_DESTROY"), _number("DOMAIN_GET_XML_DESC")
UPLOAD, DOWNLOAD = _number("STORAGE_VOL_UPLOAD"), _number("STORAGE_VOL_DOWNLOAD")
LATER = len(NAMES[Program.REMOTE]) + 6
READING = restricted(allowance_of(["read", "storage_vol:data_write"]))
GUEST = Writer().string("guest").fixed_opaque(bytes(range(16))).i32(-1).take()


def xml_desc(serial, flags=0, more=b"", **header):
    return frames.call(
        serial, GUEST + Writer().u32(flags).take() + more, procedure=XML_DESC, **header
    )


def destroy(serial, payload=GUEST):
    return frames.call(serial, payload, procedure=DESTROY)


def upload(kind, serial, payload=b"", procedure=UPLOAD, status=Status.CONTINUE):
    return frames.frame(kind, serial, payload, procedure=procedure, status=status)


FORBIDDEN = [
    pytest.param(destroy(5), id="CALL"),
    pytest.param(frames.call_with_descriptors(0, 5, GUEST, procedure=DESTROY), id="CALL_WITH_FDS"),
    pytest.param(destroy(5, GUEST + bytes(70_000)), id="a long one"),
    pytest.param(xml_desc(5, 1), id="by its flags"),
    pytest.param(xml_desc(5, 1, bytes(4)), id="by its flags, and other words behind them"),
    pytest.param(xml_desc(5)[:-4] + b"", id="without its flags"),
    pytest.param(frames.call(5, procedure=LATER), id="nobody knows it"),
    pytest.param(frames.call(5, procedure=-7), id="a negative number"),
    pytest.param(frames.call(5, procedure=2**31 - 1), id="a huge number"),
    pytest.param(frames.call(5, procedure=318), id="an event"),
    pytest.param(frames.call(5, procedure=3, program=Program.QEMU), id="QEMU"),
    pytest.param(frames.call(5, procedure=1, program=Program.LXC), id="LXC"),
    pytest.param(frames.call(5, procedure=16, program=77), id="a program nobody knows"),
    pytest.param(frames.call(5, procedure=1, program=Program.KEEPALIVE), id="keepalive"),
]
FORBIDDEN[5] = pytest.param(
    frames.call(5, GUEST + bytes(2), procedure=XML_DESC), id="without its flags"
)
DROPPED = [
    pytest.param(frames.frame(kind, 5, GUEST, procedure=DESTROY), id=f"type {kind}")
    for kind in (1, 2, 3, 5, 6, 7, -1, 2**31 - 1)
] + [
    pytest.param(frames.frame(FrameType.MESSAGE, 5, GUEST, procedure=XML_DESC), id="by its flags"),
    pytest.param(upload(FrameType.STREAM, 5, bytes(200_000), DOWNLOAD), id="long"),
    pytest.param(
        frames.frame(FrameType.MESSAGE, 5, program=Program.KEEPALIVE, procedure=3), id="keepalive"
    ),
]


@pytest.fixture
def reading(start):
    return start(guards=READING)


def refused(session):
    """The serials of the refusals that the client has got."""
    found = []
    for each in session.at_client.arrived:
        header = each.header
        if (header.type, header.status) == (FrameType.REPLY, Status.ERROR):
            said = Failure.unpack(each.wire[HEADER_SIZE:])
            assert (said.code, said.domain) == (ErrorCode.ACCESS_DENIED, Domain.ACCESS)
            found.append(header.serial)
    return found


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
@pytest.mark.parametrize("wire", FORBIDDEN)
def test_a_call_does_not_reach_the_daemon_and_is_refused(start, pair, wire):
    session = start(pair=pair, guards=READING)
    session.send(session.client, wire)
    session.turn_until(lambda: (session.at_client.take(), session.at_client.arrived)[1])
    assert refused(session) == [5]
    assert session.at_daemon.taken == 0
    assert (session.up.forbidden, session.up.refusals, session.up.calls) == (1, 0, 0)
    assert not session.ended


@pytest.mark.parametrize("wire", DROPPED)
def test_what_is_no_call_is_dropped_as_a_daemon_would(reading, wire):
    reading.send(reading.client, wire + frames.call(6))
    assert reading.at_daemon.wires == [frames.call(6)]
    assert reading.at_client.arrived == []
    assert reading.up.forbidden == 0


@pytest.mark.parametrize("wire", [*FORBIDDEN, *DROPPED])
def test_it_is_taken_out_wherever_it_was_cut(start, wire):
    chunk = frames.call(1) + wire + xml_desc(2)
    step = 1 if len(chunk) < 1000 else 4999
    for cut in [*range(0, 200, 1), *range(200, len(chunk), step), len(chunk) - 60]:
        session = start(guards=READING)
        session.send(session.client, chunk[:cut])
        session.send(session.client, chunk[cut:])
        assert session.at_daemon.wires == [frames.call(1), xml_desc(2)]
        session.close()


@pytest.mark.parametrize("wire", FORBIDDEN)
@pytest.mark.parametrize("size", [40_000, SCRATCH_SIZE, 300_000])
def test_it_is_taken_out_behind_a_long_frame_that_is_allowed(reading, wire, size):
    long = upload(FrameType.STREAM, 1, frames.noise(size))
    reading.send(reading.client, frames.call(2) + long + wire + long + wire + frames.call(3))
    assert reading.at_daemon.wires == [frames.call(2), long, long, frames.call(3)]
    assert refused(reading) == [5, 5]


@pytest.mark.parametrize(
    "wire",
    [
        xml_desc(1),
        xml_desc(1, 2),
        frames.call_with_descriptors(0, 1, GUEST + bytes(4), procedure=XML_DESC),
        frames.frame(FrameType.MESSAGE, 1, program=Program.KEEPALIVE, procedure=1),
        frames.frame(FrameType.MESSAGE, 1, program=Program.KEEPALIVE, procedure=2),
        frames.frame(FrameType.REPLY, 1),
        frames.call(1, status=77),
    ],
)
def test_this_passes(reading, wire):
    reading.send(reading.client, wire)
    assert reading.at_daemon.wires == [wire]


@pytest.mark.parametrize(
    ("wire", "what"),
    [
        (destroy(1), "call DOMAIN_DESTROY (domain:stop)"),
        (xml_desc(1, 1), "call DOMAIN_GET_XML_DESC with these flags (domain:read_secure)"),
        (frames.call(1, procedure=11), "call DOMAIN_DEFINE_XML (domain:write, domain:save)"),
        (frames.call(1, procedure=318), "call DOMAIN_EVENT_CALLBACK_LIFECYCLE"),
        (frames.call(1, procedure=LATER), f"call procedure {LATER}"),
        (frames.call(1, procedure=3, program=Program.QEMU), "call DOMAIN_AGENT_COMMAND (qemu:…)"),
        (frames.call(1, procedure=99, program=Program.LXC), "call procedure 99 (lxc:…)"),
        (frames.call(1, program=77), "make calls of program 0x4d"),
    ],
)
def test_the_caller_is_told_what_it_may_not_do(reading, wire, what):
    reading.send(reading.client, wire)
    (answer,) = reading.at_client.arrived
    said = Failure.unpack(answer.wire[HEADER_SIZE:])
    beginning = "'proxyd' denied access: its rules do not let this client"
    assert said.message == f"access denied: {beginning} {what}"


def test_a_number_that_is_named_passes_and_others_beside_it_do_not(start):
    session = start(
        guards=restricted(allowance_of([f"remote:{LATER}", "qemu:domain_monitor_command"]))
    )
    passing = [
        frames.call(1, procedure=LATER),
        frames.call(2, procedure=1, program=Program.QEMU),
    ]
    session.send(
        session.client,
        passing[0]
        + frames.call(3, procedure=LATER + 1)
        + passing[1]
        + frames.call(4, procedure=2, program=Program.QEMU),
    )
    assert session.at_daemon.wires == passing
    assert refused(session) == [3, 4]


def test_the_guards_of_every_session_say_what_they_always_say(reading):
    reading.send(reading.client, frames.set_identity(1) + frames.second_open(2))
    assert reading.up.refusals == 2
    assert reading.up.forbidden == 0


def test_descriptors_behind_a_refused_call_go_nowhere(start, files):
    session = start(guards=READING)
    session.client.send(frames.call_with_descriptors(2, 5, GUEST, procedure=DESTROY))
    for each in files[:2]:
        frames.send_descriptor(session.client, each)
    session.send(session.client, frames.call(6))
    assert session.at_daemon.wires == [frames.call(6)]
    assert refused(session) == [5]


def test_a_stream_that_a_refused_call_would_have_opened_is_dropped(reading):
    reading.send(
        reading.client,
        frames.call(1, procedure=DOWNLOAD)
        + upload(FrameType.STREAM, 1, bytes(9), DOWNLOAD)
        + upload(FrameType.STREAM_HOLE, 1, bytes(12), DOWNLOAD)
        + upload(FrameType.STREAM, 1, b"", DOWNLOAD, Status.OK)
        + frames.call(2),
    )
    assert reading.at_daemon.serials == [2]
    assert refused(reading) == [1]
    assert not reading.pair.ledger.streams


def test_who_is_refused_again_and_again_goes_on(reading):
    """A monitor may ask every ten seconds, for years, for what it is not to know."""
    for serial in range(3 * REFUSALS_LIMIT):
        reading.send(reading.client, destroy(serial))
    assert refused(reading) == list(range(3 * REFUSALS_LIMIT))
    assert reading.up.forbidden == 3 * REFUSALS_LIMIT
    assert not reading.ended


def test_who_sends_refused_calls_and_reads_nothing_makes_the_relay_keep_little(start):
    session = start(buffer=SMALL_BUFFER, guards=READING)
    wire = b"".join(destroy(serial, b"") for serial in range(5000))
    sent, most = 0, 0
    while more := fill(session.client, wire[sent:]):
        sent += more
        session.turn(3)
        most = max(most, len(session.down.inserting) + len(session.down._unsent))
    session.come_to_rest()
    assert session.up.paused
    assert 0 < most < LONGEST_REFUSALS / 10
    assert len(session.up._head) <= SCRATCH_SIZE

    session.send(session.client, wire[sent:])
    assert refused(session) == list(range(5000))


def test_others_wait_little_for_one_who_is_refused(start):
    """One turn takes some of what one read has brought, and puts off the rest."""
    session = start(guards=READING)
    session.client.setblocking(True)
    session.client.sendall(b"".join(frames.call(at, procedure=DESTROY) for at in range(1000)))
    session.client.setblocking(False)
    counts = []
    while session.up.forbidden < 1000:
        before = session.up.forbidden
        session.turn()
        session.at_client.take()
        counts.append(session.up.forbidden - before)
    assert 0 < max(counts) <= 150


def test_what_is_behind_them_waits_and_goes_on_in_its_order(start):
    session = start(guards=READING)
    wires = [frames.call(at) if at % 100 == 99 else destroy(at, b"") for at in range(1000)]
    session.send(session.client, b"".join(wires))
    assert session.at_daemon.serials == list(range(99, 1000, 100))
    assert Counter(refused(session)) == Counter(at for at in range(1000) if at % 100 != 99)


@pytest.mark.parametrize("parting_s", [0, 5])
def test_who_ends_behind_refused_calls_has_its_allowed_ones_carried_out(start, parting_s):
    session = start(guards=READING, parting_s=parting_s)
    wires = [frames.call(at) if at % 100 == 99 else destroy(at, b"") for at in range(500)]
    session.client.setblocking(True)
    session.client.sendall(b"".join(wires))
    session.client.close()
    session.turn_until(lambda: (session.at_daemon.take(), len(session.at_daemon.arrived) >= 5)[1])
    assert session.at_daemon.serials[:5] == list(range(99, 500, 100))


@pytest.mark.parametrize("cut", [0, 10, 27, 28, 40, 60])
@pytest.mark.parametrize("wire", [xml_desc(1, 1), xml_desc(1), destroy(1)])
def test_of_who_ends_within_a_call_nothing_goes_on_that_may_be_forbidden(start, wire, cut):
    session = start(guards=READING)
    session.send(session.client, wire[:cut])
    session.client.close()
    session.turn_until(lambda: (session.at_daemon.take(), session.at_daemon.ended)[1])
    assert session.at_daemon.taken == 0


# ----------------------------------------------------------------------------- other guards


@pytest.mark.parametrize("wire", [destroy(1), xml_desc(1, 1), frames.call(1, procedure=LATER)])
def test_from_the_next_frame_on_it_is_refused_and_later_allowed_again(session, wire):
    for guards, reaches in ((READING, False), (GUARDED, True), (READING, False)):
        session.loop.restrict(session.pair, guards)
        session.turn()
        before = len(session.at_daemon.arrived)
        session.send(session.client, wire)
        assert (len(session.at_daemon.arrived) > before) is reaches
    assert refused(session) == [1, 1]


@pytest.mark.parametrize("order", [(GUARDED, READING), (READING, GUARDED)])
@pytest.mark.parametrize("wire", [*FORBIDDEN[:6], *DROPPED[-3:]])
def test_in_the_midst_of_a_frame_it_goes_on_whole_or_not_at_all(start, wire, order):
    before, after = order
    for cut in [*range(1, min(len(wire), 120)), len(wire) - 1]:
        session = start(guards=before)
        session.send(session.client, frames.call(1) + wire[:cut])
        session.loop.restrict(session.pair, after)
        session.turn()
        session.send(session.client, wire[cut:] + frames.call(2))
        wires = session.at_daemon.wires
        assert wires in ([frames.call(1), frames.call(2)], [frames.call(1), wire, frames.call(2)])
        kind = session.at_client.arrived and refused(session)
        is_call = wire[19] in (FrameType.CALL, FrameType.CALL_WITH_FDS)
        assert bool(kind) is (len(wires) == 2 and is_call)
        session.close()


def test_a_stream_that_is_open_goes_on(session):
    session.send(session.client, frames.call(1, procedure=UPLOAD))
    session.send(session.daemon, frames.reply(1, procedure=UPLOAD))
    session.loop.restrict(session.pair, restricted(allowance_of(["read"])))
    packets = [upload(FrameType.STREAM, 1, bytes(size)) for size in (9, 100_000)]
    session.send(
        session.client, b"".join([*packets, frames.call(2, procedure=UPLOAD), frames.call(3)])
    )
    assert session.at_daemon.wires[1:] == [*packets, frames.call(3)]
    assert refused(session) == [2]


def test_a_call_that_waits_for_its_descriptor_may_be_refused_meanwhile(start, files):
    session = start()
    wire = frames.call_with_descriptors(1, 5, procedure=3, program=Program.QEMU)
    session.client.send(wire)
    session.come_to_rest()
    session.loop.restrict(session.pair, READING)
    session.turn()
    frames.send_descriptor(session.client, files[0])
    session.send(session.client, frames.call(6))
    assert session.at_daemon.wires == [frames.call(6)]
    assert refused(session) == [5]


# ----------------------------------------------------------------------------- recorded


@pytest.mark.parametrize("cut", [28, 29, 40, 56, 57, 60])
@pytest.mark.parametrize("kind", [FrameType.CALL, FrameType.CALL_WITH_FDS])
def test_it_is_recorded_which_guest_a_refused_call_was_about_wherever_it_was_cut(cut, kind):
    recorder = Recorder()
    session = Travelling(guards=READING, trail=recorder.trail)
    payload = (bytes(4) if kind == FrameType.CALL_WITH_FDS else b"") + GUEST + bytes(20_000)
    wire = frames.frame(kind, 5, payload, procedure=DESTROY)
    session.send(session.client, wire[:cut])
    assert session.move()
    session.send(session.client, wire[cut:] + frames.call(6))
    ((program, procedure, serial, about, outcome),) = recorder.calls
    assert (program, procedure, serial, outcome) == (Program.REMOTE, DESTROY, 5, Outcome.REFUSED)
    assert about.name == b"guest"
    assert session.at_daemon.serials == [6]
    session.close()


# ----------------------------------------------------------------------------- the budget


def calls_of_a_turn(session, wire):
    """All calls of functions, of Python's and of C's, by which a frame goes up."""
    session.client.send(wire)
    called = []

    def profile(frame, event, argument):
        if event == "call":
            called.append(frame.f_code.co_qualname)
        elif event == "c_call":
            called.append(argument.__qualname__)

    sys.setprofile(profile)
    session.loop.turn(0)
    sys.setprofile(None)
    session.relay()
    return called


@pytest.mark.parametrize("payload", [b"", bytes(2000)])
def test_a_call_that_is_allowed_costs_no_call_more(start, payload):
    free, bound = start(), start(guards=READING)
    wire = frames.call(1, payload)
    for session in (free, bound):
        calls_of_a_turn(session, wire)
    assert calls_of_a_turn(bound, wire) == calls_of_a_turn(free, wire)
    assert bound.at_daemon.serials == [1, 1]


def test_the_table_of_a_session_is_its_grants():
    """One for all of them: numbers, 20 KiB."""
    guards = restricted(allowance_of(["read"]))
    assert sys.getsizeof(guards.procedures) < 40 << 10
    assert restricted(None) is GUARDED
    assert restricted(Allowance(plain=frozenset(), conditional={})).procedures > guards.procedures
