"""Guarded calls from a client: never a byte of one reaches the daemon, and each is answered."""

import socket

import pytest

from proxyd.relay.flow import REFUSALS_LIMIT, SPLICE_ABOVE
from proxyd.relay.guards import Guards
from proxyd.relay.loop import SCRATCH_SIZE
from proxyd.wire import failure
from proxyd.wire.failure import ErrorCode, Failure
from proxyd.wire.frame import HEADER_SIZE, FrameType, Status
from proxyd.wire.programs import Program, Remote
from tests.relay import frames
from tests.relay.session import SMALL_BUFFER, fill_up, open_descriptors, tcp_pair, unix_pair

GUARDED = [
    pytest.param(frames.set_identity(5), id="CALL"),
    pytest.param(frames.set_identity_with_descriptors(0, 5), id="CALL_WITH_FDS"),
    pytest.param(frames.second_open(5), id="OPEN"),
    pytest.param(frames.second_open(5, FrameType.CALL_WITH_FDS), id="OPEN WITH_FDS"),
    pytest.param(frames.second_open(5, status=Status.ERROR), id="OPEN that says ERROR"),
    pytest.param(frames.second_open(5, status=77), id="OPEN that says nonsense"),
]
TOLD = {
    Remote.CONNECT_SET_IDENTITY: (ErrorCode.ACCESS_DENIED, "access denied: "),
    Remote.CONNECT_OPEN: (ErrorCode.INTERNAL_ERROR, "internal error: connection already open"),
}


def is_refusal(arrived):
    header = arrived.header
    if header.procedure not in TOLD:
        return False
    said = Failure.unpack(arrived.wire[HEADER_SIZE:])
    code, beginning = TOLD[header.procedure]
    return (
        header.program == Program.REMOTE
        and (header.type, header.status) == (FrameType.REPLY, Status.ERROR)
        and said.code == code
        and said.message.startswith(beginning)
    )


def refused(session):
    """The serials of the refusals that the client has got."""
    return [each.serial for each in session.at_client.arrived if is_refusal(each)]


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
@pytest.mark.parametrize("wire", GUARDED)
def test_the_call_does_not_reach_the_daemon_and_is_refused(start, pair, wire):
    session = start(pair=pair)
    session.client.sendall(wire)
    session.turn_until(lambda: (session.at_client.take(), session.at_client.arrived)[1])
    assert refused(session) == [5]
    assert len(session.at_client.arrived) == 1
    assert session.at_daemon.taken == 0
    assert not session.ended


@pytest.mark.parametrize("wire", GUARDED)
def test_frames_around_it_pass_unchanged_in_order(session, wire):
    around = [frames.call(serial, bytes(serial)) for serial in range(10)]
    session.send(session.client, b"".join([*around[:5], wire, *around[5:]]))
    assert session.at_daemon.wires == around
    assert refused(session) == [5]


@pytest.mark.parametrize("wire", GUARDED)
def test_it_is_taken_out_wherever_it_was_cut(start, wire):
    chunk = frames.call(1) + wire + frames.call(2)
    for cut in range(len(chunk) + 1):
        session = start()
        session.client.sendall(chunk[:cut])
        session.relay()
        session.client.sendall(chunk[cut:])
        session.relay()
        assert session.at_daemon.wires == [frames.call(1), frames.call(2)]
        assert refused(session) == [5]
        session.close()


@pytest.mark.parametrize("wire", GUARDED)
def test_it_is_taken_out_when_it_comes_byte_by_byte(session, wire):
    for byte in wire + frames.call(6):
        session.client.send(bytes([byte]))
        session.relay()
    assert session.at_daemon.wires == [frames.call(6)]
    assert refused(session) == [5]


@pytest.mark.parametrize("wire", GUARDED)
@pytest.mark.parametrize(
    "size", [SPLICE_ABOVE + 29, SCRATCH_SIZE - 1, SCRATCH_SIZE, SCRATCH_SIZE + 1, 300_000]
)
def test_it_is_taken_out_directly_behind_a_long_frame(session, wire, size):
    long = frames.packet(size, 1)
    session.send(session.client, frames.call(2) + long + wire + long + wire + frames.call(3))
    assert session.at_daemon.wires == [frames.call(2), long, long, frames.call(3)]
    assert refused(session) == [5, 5]


def test_each_of_several_in_a_row_is_refused_in_order(session):
    session.send(
        session.client,
        frames.set_identity(1) + frames.set_identity(2) + frames.call(3) + frames.set_identity(4),
    )
    assert session.at_daemon.serials == [3]
    assert refused(session) == [1, 2, 4]


@pytest.mark.parametrize("size", [29, 1000, SCRATCH_SIZE, SCRATCH_SIZE + 1, 3_000_000])
def test_it_is_taken_out_whatever_its_size(session, size):
    session.send(session.client, frames.set_identity(1, size=size) + frames.call(2))
    assert session.at_daemon.wires == [frames.call(2)]
    assert refused(session) == [1]


@pytest.mark.parametrize("burst", [True, False])
def test_its_descriptors_are_closed_and_it_is_refused_once_they_came(session, files, burst):
    session.client.sendall(frames.set_identity_with_descriptors(3, 1))
    before = open_descriptors()
    for descriptor in files[:3]:
        if not burst:
            session.relay()
            assert refused(session) == []
        frames.send_descriptor(session.client, descriptor)
    session.client.sendall(frames.call(2))
    session.relay()
    assert refused(session) == [1]
    assert session.at_daemon.serials == [2]
    assert open_descriptors() == before


def test_a_missing_descriptor_behind_it_is_a_protocol_error(session):
    session.client.sendall(frames.set_identity_with_descriptors(1, 1) + b"\0")
    session.relay()
    assert session.ended
    assert session.at_daemon.taken == 0


@pytest.mark.parametrize("procedure", sorted(TOLD))
def test_the_same_number_in_another_program_passes(session, procedure):
    wires = [
        frames.call(1, procedure=procedure, program=program)
        for program in (Program.QEMU, Program.LXC, Program.ADMIN)
    ]
    session.send(session.client, b"".join(wires))
    assert session.at_daemon.wires == wires


@pytest.mark.parametrize(
    "kind", [FrameType.REPLY, FrameType.MESSAGE, FrameType.STREAM, FrameType.STREAM_HOLE]
)
@pytest.mark.parametrize("procedure", sorted(TOLD))
def test_frames_that_are_no_calls_pass_with_its_number(session, kind, procedure):
    wire = frames.frame(kind, 1, procedure=procedure)
    session.send(session.client, wire)
    assert session.at_daemon.wires == [wire]
    assert session.up.refusals == 0


def test_it_passes_from_the_daemon_to_the_client(session):
    """Nothing is guarded on the way down: a client cannot be told who it is."""
    session.send(session.daemon, frames.set_identity(1) + frames.reply(2))
    assert session.at_client.serials == [1, 2]


def test_a_session_has_a_table_of_its_own(start):
    denied = failure.internal("not by this client")
    session = start(guards=Guards({(Program.QEMU, 1): denied}))
    wires = [frames.set_identity(2), frames.second_open(3)]
    session.send(session.client, wires[0] + frames.call(1, procedure=1, program=Program.QEMU))
    session.send(session.client, wires[1])
    assert session.at_daemon.wires == wires
    assert [each.wire[HEADER_SIZE:] for each in session.at_client.arrived] == [denied.pack()]


def test_it_is_no_call_in_the_figures(session):
    session.send(session.client, frames.set_identity(1) + frames.call(2))
    assert (session.up.calls, session.up.refusals) == (1, 1)
    assert sum(session.loop.figures.up.frames) == 1


# Where the refusal goes.


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
@pytest.mark.parametrize("size", [100, 40_000, 200_000, 2_000_000])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_a_refusal_waits_for_the_end_of_the_frame_that_is_under_way(start, pair, size, part):
    session = start(pair=pair)
    wires = [frames.packet(size, 1), frames.packet(size, 2)]
    cut = max(HEADER_SIZE, int(size * part))
    session.send(session.daemon, wires[0][:cut])
    session.send(session.client, frames.call(3) + frames.set_identity(4) + frames.call(5))
    assert session.at_client.arrived == []
    assert session.at_daemon.serials == [3, 5]
    session.send(session.daemon, wires[0][cut:] + wires[1])
    session.turn_until(lambda: (session.at_client.take(), len(session.at_client.arrived) == 3)[1])
    assert session.at_client.wires[0::2] == wires
    assert refused(session) == [4]


@pytest.mark.parametrize("cut", [1, 3, 4, 10, HEADER_SIZE - 1])
def test_a_refusal_goes_before_a_frame_of_which_only_a_part_of_the_header_came(session, cut):
    wire = frames.reply(1)
    session.send(session.daemon, wire[:cut])
    session.send(session.client, frames.set_identity(2))
    assert refused(session) == [2]
    session.send(session.daemon, wire[cut:])
    assert session.at_client.wires[1:] == [wire]


@pytest.mark.parametrize("payload", [b"", bytes(100_000)])
def test_a_refusal_waits_for_the_descriptors_of_the_frame_under_way(
    session, files, inodes, payload
):
    wire = frames.reply_with_descriptors(2, 1, payload)
    session.send(session.daemon, wire)
    for descriptor in files[:2]:
        session.send(session.client, frames.set_identity(descriptor))
        assert session.at_client.arrived == []
        frames.send_descriptor(session.daemon, descriptor)
        session.relay()
    assert session.at_client.wires[0] == wire
    assert session.at_client.arrived[0].files == inodes[:2]
    assert refused(session) == files[:2]


def test_a_refusal_waits_in_a_frame_that_counts_descriptors_at_every_byte(start, files, inodes):
    wire = frames.reply_with_descriptors(1, 1, b"args")
    for cut in range(len(wire) + 1):
        session = start()
        session.send(session.daemon, wire[:cut])
        session.send(session.client, frames.set_identity(2))
        session.send(session.daemon, wire[cut:])
        frames.send_descriptor(session.daemon, files[0])
        session.relay()
        session.send(session.daemon, frames.reply(3))
        assert sorted(session.at_client.serials) == [1, 2, 3]
        assert refused(session) == [2]
        assert [each.files for each in session.at_client.arrived if each.files] == [inodes[:1]]
        session.close()


def test_a_client_that_waits_for_its_refusal_is_not_read(session):
    session.send(session.daemon, frames.packet(1000)[:500])
    session.send(session.client, frames.set_identity(1) + frames.call(2))
    assert session.up.paused
    session.client.sendall(frames.call(3))
    session.relay()
    assert session.at_daemon.serials == [2]
    assert session.waits()
    session.send(session.daemon, frames.packet(1000)[500:])
    assert not session.up.paused
    assert session.at_daemon.serials == [2, 3]
    assert refused(session) == [1]


def test_refusals_wait_for_a_client_that_reads_nothing(start):
    session = start(buffer=SMALL_BUFFER)
    stream = frames.packet(400, 9) * 1000
    sent = 0
    while not session.down.stalled:
        sent += fill_up(session.daemon, stream[sent:])
        session.come_to_rest()
    session.client.sendall(frames.set_identity(1) + frames.call(2) + frames.set_identity(3))
    session.come_to_rest()
    session.at_daemon.take()
    assert session.at_daemon.serials == [2]
    session.relay()
    session.send(session.daemon, stream[sent:])
    assert refused(session) == [1, 3]
    assert len(session.at_client.arrived) == 1002


def test_a_client_that_does_it_again_and_again_is_thrown_out(session):
    once = frames.set_identity(1)
    session.client.sendall(once * REFUSALS_LIMIT)
    session.relay()
    assert not session.ended
    assert refused(session) == [1] * REFUSALS_LIMIT
    session.client.sendall(once)
    session.relay()
    assert session.ended
    assert session.reason == (
        "protocol error from the client: calls that are refused, again and again"
    )
    assert session.at_daemon.taken == 0


@pytest.mark.parametrize("burst", [True, False], ids=["in one burst", "one at a time"])
def test_a_client_that_does_it_hundreds_of_times_and_reads_nothing_is_bounded(start, burst):
    session = start(buffer=SMALL_BUFFER)
    stream = frames.packet(300_000, 9)
    sent = fill_up(session.daemon, stream)
    session.come_to_rest()
    sent += fill_up(session.daemon, stream[sent:])
    session.come_to_rest()
    most = 0
    rest = frames.set_identity(1) * 500
    step = len(rest) if burst else len(rest) // 500
    while rest:
        more = fill_up(session.client, rest[:step]) if not session.ended else 0
        if not more:
            break
        rest = rest[more:]
        session.come_to_rest()
        most = max(most, len(session.down.inserting))
    assert session.ended or session.waits()
    assert most <= REFUSALS_LIMIT * 600
    assert session.up.refusals <= REFUSALS_LIMIT + 1
    assert session.at_daemon.taken == 0


# When there is nobody to tell, or no way to.


def test_no_refusal_follows_the_end_that_the_client_was_told(session):
    session.daemon.shutdown(socket.SHUT_WR)
    session.relay()
    assert session.at_client.ended
    session.client.sendall(frames.set_identity(1) + frames.call(2))
    session.relay()
    assert session.at_daemon.wires == [frames.call(2)]
    assert not session.up.paused
    session.client.sendall(frames.call(3))
    session.client.shutdown(socket.SHUT_WR)
    session.relay()
    assert session.at_daemon.serials == [2, 3]
    assert session.ended


def test_a_refusal_that_waits_for_a_frame_which_never_ends_is_given_up(session):
    session.send(session.daemon, frames.packet(1000)[:500])
    session.send(session.client, frames.set_identity(1))
    session.client.sendall(frames.call(2))
    session.daemon.shutdown(socket.SHUT_WR)
    session.relay()
    assert session.at_client.ended
    assert session.at_client.cut_off == frames.packet(1000)[:500]
    assert session.at_daemon.serials == [2]


def test_a_refusal_that_waits_for_a_slow_client_comes_before_the_end(start):
    session = start(buffer=SMALL_BUFFER)
    stream = frames.packet(400, 9) * 1000
    sent = 0
    while not session.down.stalled:
        sent += fill_up(session.daemon, stream[sent:])
        session.come_to_rest()
    session.client.sendall(frames.set_identity(1))
    session.client.shutdown(socket.SHUT_WR)
    session.come_to_rest()
    session.relay()
    session.send(session.daemon, stream[sent:])
    session.daemon.shutdown(socket.SHUT_WR)
    session.relay()
    assert refused(session) == [1]
    assert len(session.at_client.arrived) == 1001
    assert session.ended


def test_what_a_client_sent_behind_it_still_arrives_when_the_client_has_gone(session):
    session.client.sendall(frames.call(1) + frames.set_identity(2) + frames.call(3))
    session.client.close()
    session.relay()
    assert session.at_daemon.serials == [1, 3]
    assert session.ended
    assert "daemon" not in session.reason


def test_a_client_that_reads_no_more_is_not_taken_for_a_daemon_that_is_gone(session):
    session.client.shutdown(socket.SHUT_RD)
    session.client.sendall(frames.call(1) + frames.set_identity(2) + frames.call(3))
    session.relay()
    assert session.at_daemon.serials == [1, 3]
    session.client.sendall(frames.call(4))
    session.relay()
    assert session.at_daemon.serials == [1, 3, 4]
    session.client.shutdown(socket.SHUT_WR)
    session.relay()
    assert session.at_daemon.ended
    assert "daemon" not in session.reason


@pytest.mark.parametrize("kept", [HEADER_SIZE, HEADER_SIZE + 3, HEADER_SIZE + 4])
@pytest.mark.parametrize("wire", GUARDED)
def test_no_part_of_it_reaches_the_daemon_when_the_client_ends_in_the_middle(session, wire, kept):
    session.client.sendall(wire[:kept])
    session.client.shutdown(socket.SHUT_WR)
    session.relay()
    assert session.at_daemon.ended
    assert session.at_daemon.taken == 0
