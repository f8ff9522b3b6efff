"""One direction of a session: what it costs, where frames end, how much is held, how it ends."""

import hashlib
import select
import socket
import struct
import time

import pytest

from proxyd.endpoint.contract import HungUp
from proxyd.relay.figures import DirectionFigures
from proxyd.relay.flow import SPLICE_ABOVE, Flow
from proxyd.relay.loop import SCRATCH_SIZE
from proxyd.relay.pipes import PIPE_SIZE, PipePool
from proxyd.wire.frame import HEADER, HEADER_SIZE, MAX_FRAME, FrameType, Status
from proxyd.wire.programs import Program
from tests.fakes.endpoints import CountingPlainEndpoint, CountingUnixEndpoint, ScriptedEndpoint
from tests.relay import frames
from tests.relay.session import DEADLINE_S, SMALL_BUFFER, fill, fill_up, tcp_pair, unix_pair

DIRECTIONS = ["up", "down"]
SHORT_READ = 4096


class Scripted:
    """A flow between two scripted endpoints."""

    def __init__(self, *arriving, room=None, guarded=True):
        self.src = ScriptedEndpoint(*arriving)
        self.dst = ScriptedEndpoint(room=room)
        self.figures = DirectionFigures()
        self.flow = Flow(self.src, self.dst, PipePool().of(""), self.figures)
        if guarded:
            self.flow.guard()
        self.scratch = memoryview(bytearray(SCRATCH_SIZE))

    def pump(self, times=1):
        for _ in range(times):
            self.flow.pump(self.scratch)

    @property
    def written(self):
        return bytes(self.dst.written)


def sides(session, direction):
    """The socket that sends, the receiver that takes, and the flow between them."""
    if direction == "up":
        return session.client, session.at_daemon, session.up
    return session.daemon, session.at_client, session.down


def carried(direction, descriptors, serial):
    make = frames.call_with_descriptors if direction == "up" else frames.reply_with_descriptors
    return make(descriptors, serial, b"args")


# What it costs.


@pytest.mark.parametrize("guarded", [True, False], ids=DIRECTIONS)
@pytest.mark.parametrize("count", [1, 2, 100])
def test_frames_in_one_chunk_cost_one_read_and_one_write(guarded, count):
    chunk = b"".join(frames.call(serial, b"small") for serial in range(count))
    scripted = Scripted(chunk, guarded=guarded)
    scripted.pump()
    assert (scripted.src.reads, scripted.dst.writes) == (1, 1)
    assert scripted.written == chunk


@pytest.mark.parametrize("guarded", [True, False], ids=DIRECTIONS)
def test_a_small_frame_that_came_alone_goes_on_before_it_is_counted(guarded):
    frame = frames.call(1) if guarded else frames.reply(1)
    scripted = Scripted(frame, guarded=guarded)
    write, counted = scripted.dst.write, []
    scripted.dst.write = lambda view: (counted.append(scripted.flow.calls), write(view))[1]
    scripted.pump()
    assert (counted, scripted.flow.calls, scripted.flow.moved) == ([0], 1, len(frame))
    assert scripted.written == frame


def test_a_reply_that_nobody_takes_any_more_is_counted():
    scripted = Scripted(frames.reply(1), guarded=False)

    def gone(view):
        raise HungUp("gone", while_writing=True)

    scripted.dst.write = gone
    with pytest.raises(HungUp):
        scripted.pump()
    assert (scripted.flow.calls, scripted.flow.moved) == (1, len(frames.reply(1)))


def test_what_the_destination_does_not_take_costs_one_more_write_later():
    scripted = Scripted(frames.call(1, bytes(1000)), room=500)
    scripted.pump()
    assert scripted.flow.stalled
    scripted.dst.room = None
    scripted.flow.flush()
    assert not scripted.flow.stalled
    assert (scripted.src.reads, scripted.dst.writes) == (1, 2)
    assert scripted.written == frames.call(1, bytes(1000))


def test_a_read_that_finds_nothing_costs_no_write():
    scripted = Scripted()
    scripted.pump()
    assert (scripted.src.reads, scripted.dst.writes, scripted.dst.ends) == (1, 0, 0)


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
def test_a_small_call_and_its_reply_cost_one_read_and_one_write_each(start, pair):
    kind = CountingUnixEndpoint if pair is unix_pair else CountingPlainEndpoint
    session = start(pair=pair, client_end=kind, daemon_end=kind)
    near, far = session.pair.client.endpoint, session.pair.backend.endpoint
    session.send(session.client, frames.call(1))
    session.send(session.daemon, frames.reply(1))
    assert (near.reads, near.writes, far.reads, far.writes) == (1, 1, 1, 1)


# Frames keep their bytes and their order, however they are cut.


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_frames_cut_at_any_byte_arrive_unchanged_and_in_order(start, files, inodes, direction):
    before = frames.call(1, b"first") + carried(direction, 2, 2)
    behind = frames.reply(3, b"third")
    for cut in range(len(before) + 1):
        session = start()
        sender, receiver, _ = sides(session, direction)
        for part in (before[:cut], before[cut:]):
            sender.sendall(part)
            session.relay()
        for descriptor in files[:2]:
            frames.send_descriptor(sender, descriptor)
            session.relay()
        session.send(sender, behind)
        assert receiver.wires == [frames.call(1, b"first"), carried(direction, 2, 2), behind]
        assert receiver.arrived[1].files == inodes[:2]
        session.close()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_frames_cut_at_any_byte_behind_descriptors_arrive_unchanged(
    start, files, inodes, direction
):
    before, behind = carried(direction, 1, 1), frames.call(2, b"xyz") + frames.reply(3)
    for cut in range(len(behind) + 1):
        session = start()
        sender, receiver, _ = sides(session, direction)
        sender.sendall(before)
        frames.send_descriptor(sender, files[0])
        sender.sendall(behind[:cut])
        session.relay()
        sender.sendall(behind[cut:])
        session.relay()
        assert b"".join(receiver.wires) == before + behind
        assert receiver.arrived[0].files == inodes[:1]
        session.close()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_frames_that_come_byte_by_byte_arrive_unchanged(session, direction):
    sender, receiver, _ = sides(session, direction)
    wires = [frames.call(1), frames.reply(2, b"abc"), frames.packet(100, 3)]
    for byte in b"".join(wires):
        sender.send(bytes([byte]))
        session.relay()
    assert receiver.wires == wires


@pytest.mark.parametrize("cut", range(1, HEADER_SIZE))
def test_a_header_in_parts_is_held_back_until_it_is_whole(cut):
    wire = frames.call(1, b"args")
    scripted = Scripted(wire[:cut], wire[cut:])
    scripted.pump()
    assert scripted.written == b""
    scripted.pump()
    assert scripted.written == wire


@pytest.mark.parametrize("cut", range(HEADER_SIZE, HEADER_SIZE + 4))
def test_a_frame_that_counts_descriptors_is_held_back_until_the_count_is_whole(cut):
    wire = frames.call_with_descriptors(0, 1, b"args")
    scripted = Scripted(wire[:cut], wire[cut:])
    scripted.pump()
    assert scripted.written == b""
    scripted.pump()
    assert scripted.written == wire


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_many_frames_that_come_at_once_arrive_in_order(session, direction):
    sender, receiver, _ = sides(session, direction)
    wires = [frames.call(serial, frames.noise(serial % 90, serial)) for serial in range(3000)]
    session.send(sender, b"".join(wires))
    assert receiver.wires == wires


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
@pytest.mark.parametrize(
    "size",
    [
        SPLICE_ABOVE - 1,
        SPLICE_ABOVE + HEADER_SIZE,
        SPLICE_ABOVE + HEADER_SIZE + 1,
        SCRATCH_SIZE - 1,
        SCRATCH_SIZE,
        SCRATCH_SIZE + 1,
        SCRATCH_SIZE + SPLICE_ABOVE,
        SCRATCH_SIZE + SPLICE_ABOVE + 1,
        PIPE_SIZE + SCRATCH_SIZE + 1,
    ],
)
def test_frames_around_the_sizes_that_matter_arrive_unchanged(start, pair, size):
    session = start(pair=pair)
    wires = [frames.call(1), frames.packet(size, 2), frames.packet(size, 3), frames.call(4)]
    session.send(session.client, b"".join(wires))
    assert session.at_daemon.wires == wires


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
def test_the_largest_legal_frame_arrives_without_passing_through_user_space(start, pair):
    kind = CountingUnixEndpoint if pair is unix_pair else CountingPlainEndpoint
    session = start(pair=pair, client_end=kind)
    header = HEADER.pack(MAX_FRAME, Program.REMOTE, 1, 208, FrameType.STREAM, 1, Status.CONTINUE)
    block = frames.noise(1 << 20, 1)
    sent, received = hashlib.sha256(), hashlib.sha256()

    def take():
        try:
            received.update(part := session.daemon.recv(1 << 20))
        except BlockingIOError:
            return 0
        return len(part)

    arrived = 0
    last = block[: MAX_FRAME - HEADER_SIZE - 31 * len(block)]
    for part in (header, *[block] * 31, last):
        sent.update(part)
        rest = memoryview(part)
        while rest:
            rest = rest[fill(session.client, rest) :]
            session.turn()
            arrived += take()
    while arrived < MAX_FRAME:
        session.loop.turn(0.001)
        arrived += take()
    assert received.digest() == sent.digest()
    assert session.pair.client.endpoint.copied <= SCRATCH_SIZE + HEADER_SIZE
    session.send(session.client, frames.call(2))
    assert session.at_daemon.wires == [frames.call(2)]


def test_short_frames_between_long_ones_do_not_make_the_long_ones_copied(start):
    # A volume comes as packets of 256 KiB that alternate with packets of 24 bytes.
    session = start(client_end=CountingUnixEndpoint)
    wires = [frames.packet(size, 1) for _ in range(10) for size in (262_144, 52)]
    session.send(session.client, b"".join(wires))
    assert session.at_daemon.wires == wires
    # The first buffer and short tails are; a quarter of everything was, before.
    assert session.pair.client.endpoint.copied < sum(map(len, wires)) / 16


@pytest.mark.parametrize("size", [HEADER_SIZE, 100, 400])
def test_whoever_sends_a_crowd_of_short_frames_is_read_in_short_pieces(size):
    crowd = frames.call(1, bytes(size - HEADER_SIZE)) * (SCRATCH_SIZE * 3 // size)
    scripted = Scripted(crowd)
    scripted.pump()
    assert scripted.src.longest_read == SCRATCH_SIZE
    scripted.src.longest_read = 0
    while scripted.src.arriving:
        scripted.pump()
        assert scripted.src.longest_read <= SHORT_READ
    assert scripted.written == crowd


def test_who_sends_longer_frames_again_is_read_in_long_pieces_again():
    calm = frames.call(2, bytes(30_000)) * 40
    scripted = Scripted(frames.call(1) * 1000 + calm)
    while scripted.src.arriving:
        scripted.src.longest_read = 0
        scripted.pump()
    assert scripted.src.longest_read > SHORT_READ
    assert scripted.written == frames.call(1) * 1000 + calm


# What is no frame.


@pytest.mark.parametrize("length", [0, 4, HEADER_SIZE - 1, MAX_FRAME + 1, 0xFFFFFFFF])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_length_that_cannot_be_ends_the_session(session, direction, length):
    sender, receiver, _ = sides(session, direction)
    good = frames.call(1)
    sender.sendall(good + struct.pack(">I", length) + frames.call(2)[4:])
    session.relay()
    side = "client" if direction == "up" else "daemon"
    assert session.ended
    assert session.reason.startswith(f"protocol error from the {side}: a frame length of {length},")
    assert receiver.cut_off == b""
    assert receiver.serials in ([], [1])


@pytest.mark.parametrize("length", [HEADER_SIZE, MAX_FRAME])
def test_the_shortest_and_the_longest_length_are_legal(length):
    scripted = Scripted(struct.pack(">I", length) + frames.call(1)[4:])
    scripted.pump()
    assert scripted.figures.frames[frames.NODE_GET_INFO] == 1
    assert scripted.flow.between_frames is (length == HEADER_SIZE)


# What is counted.


@pytest.mark.parametrize("length", [HEADER_SIZE, 1000, SPLICE_ABOVE + 1000, 30_000_000])
@pytest.mark.parametrize("came", [0, 1, 100, 70_000])
def test_bytes_are_counted_as_they_come_whatever_a_header_announces(session, length, came):
    came = min(came, length - HEADER_SIZE)
    header = frames.call(1)[4:]
    session.send(session.client, struct.pack(">I", length) + header + bytes(came))
    assert session.loop.figures.up.bytes[frames.NODE_GET_INFO] == HEADER_SIZE + came
    assert session.up.moved == HEADER_SIZE + came


def test_calls_replies_errors_and_bytes_are_counted_by_procedure(session):
    session.send(session.client, frames.call(1, bytes(12)) + frames.call(2, procedure=209))
    session.send(session.client, frames.call_with_descriptors(0, 3, procedure=209))
    session.send(session.client, frames.packet(200000, 2))
    session.send(
        session.daemon,
        frames.reply(1, bytes(4))
        + frames.reply(2, bytes(60), procedure=209, status=Status.ERROR)
        + frames.frame(FrameType.MESSAGE, procedure=1, program=Program.KEEPALIVE),
    )
    up, down = session.loop.figures.up, session.loop.figures.down
    assert (session.up.calls, session.up.errors) == (3, 0)
    assert (session.down.calls, session.down.errors) == (2, 1)
    assert (up.frames[6], up.bytes[6], up.frames[209], up.bytes[209]) == (1, 40, 3, 200060)
    assert (down.frames[6], down.bytes[6], down.errors[6]) == (1, 32, 0)
    assert (down.frames[209], down.bytes[209], down.errors[209]) == (1, 88, 1)
    assert (down.frames[0], down.bytes[0], sum(up.frames)) == (1, 28, 4)
    assert (session.up.moved, session.down.moved) == (200100, 148)


@pytest.mark.parametrize("procedure", [-1, -(2**31), 2**31 - 1, 100000])
def test_a_procedure_that_nobody_knows_is_counted_as_such(procedure):
    scripted = Scripted(frames.call(1, procedure=procedure))
    scripted.pump()
    assert (scripted.figures.frames[0], sum(scripted.figures.frames)) == (1, 1)


def test_figures_do_not_depend_on_how_frames_were_cut():
    wire = frames.call(1, b"12345678") + frames.call_with_descriptors(0, 2) + frames.packet(99)
    whole = Scripted(wire)
    whole.pump()
    for cut in range(1, len(wire)):
        parts = Scripted(wire[:cut], wire[cut:])
        parts.pump(2)
        assert parts.figures.frames == whole.figures.frames
        assert parts.figures.bytes == whole.figures.bytes
        assert parts.flow.calls == whole.flow.calls == 2


# How it ends.


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kept", [1, 3, HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + 3])
def test_a_frame_that_was_cut_off_by_the_end_is_delivered_as_far_as_it_came(
    session, direction, kept
):
    sender, receiver, _ = sides(session, direction)
    wire = frames.call(2, b"some arguments")[:kept]
    sender.sendall(frames.call(1) + wire)
    session.relay()
    sender.shutdown(socket.SHUT_WR)
    session.relay()
    assert receiver.wires == [frames.call(1)]
    assert receiver.cut_off == wire
    assert receiver.ended


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
def test_an_end_is_passed_on_while_the_other_direction_still_moves(start, direction, pair):
    session = start(pair=pair)
    sender, receiver, flow = sides(session, direction)
    sender.sendall(frames.call(1))
    sender.shutdown(socket.SHUT_WR)
    session.turn_until(lambda: flow.done)
    session.relay()
    assert receiver.wires == [frames.call(1)]
    assert receiver.ended
    assert not session.ended
    back = [frames.reply(1), frames.packet(300000, 1), frames.reply(2)]
    session.send(receiver.sock, b"".join(back))
    answered = session.at_client if direction == "down" else session.at_daemon
    other = session.at_daemon if answered is session.at_client else session.at_client
    assert other.wires == back
    receiver.sock.shutdown(socket.SHUT_WR)
    session.turn_until(lambda: session.ended)


@pytest.mark.parametrize("size", [200_000, 2_000_000])
def test_an_end_waits_until_everything_before_it_was_taken(start, size):
    session = start(buffer=SMALL_BUFFER)
    wire = frames.packet(size, 1)
    sent = 0
    while sent < len(wire):
        sent += fill(session.client, wire[sent:])
        session.turn()
        session.at_daemon.take(1000)
    session.client.shutdown(socket.SHUT_WR)
    session.come_to_rest()
    assert not session.up.done
    session.relay()
    assert session.at_daemon.wires == [wire]
    assert session.at_daemon.ended


def test_the_end_is_told_once():
    scripted = Scripted(frames.call(1), b"")
    scripted.pump(2)
    scripted.flow.end()
    scripted.flow.flush()
    assert scripted.flow.done
    assert scripted.dst.ends == 1


# What it holds.


def test_a_destination_that_takes_nothing_stops_the_source(start):
    session = start(buffer=SMALL_BUFFER)
    wires = [frames.call(serial, frames.noise(900, serial)) for serial in range(2000)]
    wire, sent = b"".join(wires), 0
    while True:
        more = fill_up(session.client, wire[sent:])
        session.come_to_rest()
        if not more:
            break
        sent += more
    assert sent < len(wire)
    assert session.up.stalled
    assert session.up.moved <= SCRATCH_SIZE + 16 * SMALL_BUFFER
    session.send(session.client, wire[sent:])
    assert session.at_daemon.wires == wires


def test_a_flow_holds_no_more_than_one_scratch_buffer():
    chunks = [frames.call(serial, bytes(SCRATCH_SIZE - HEADER_SIZE)) for serial in range(3)]
    scripted = Scripted(*chunks, room=1000)
    scripted.pump()
    assert scripted.flow.stalled
    assert scripted.flow.moved == SCRATCH_SIZE
    for _ in range(100):
        scripted.dst.room = 1000
        if scripted.flow.stalled:
            scripted.flow.flush()
    assert not scripted.flow.stalled
    assert scripted.written == chunks[0]


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
def test_a_destination_that_takes_nothing_stops_a_splice_at_one_pipe(start, pair):
    session = start(pair=pair, buffer=SCRATCH_SIZE)
    wires = [frames.packet(8 * PIPE_SIZE, 1), frames.call(2)]
    rest = memoryview(b"".join(wires))
    deadline = time.monotonic() + DEADLINE_S
    while select.select([], [session.client], [], 0.05)[1] or not session.up.stalled:
        assert time.monotonic() < deadline
        rest = rest[fill(session.client, rest) :]
        session.turn()
    assert session.up.moved < PIPE_SIZE + 10 * SCRATCH_SIZE
    assert session.waits()
    while session.at_daemon.serials != [1, 2]:
        assert time.monotonic() < deadline
        rest = rest[fill(session.client, rest) :] if rest else rest
        session.loop.turn(0.001)
        session.at_daemon.take()
    assert session.at_daemon.wires == wires


def test_a_slow_reader_in_one_direction_does_not_hold_up_the_other(start):
    session = start(buffer=SMALL_BUFFER)
    stream = frames.packet(500_000, 1)
    sent = fill_up(session.daemon, stream)
    session.come_to_rest()
    sent += fill_up(session.daemon, stream[sent:])
    session.come_to_rest()
    assert session.down.stalled
    for serial in range(50):
        session.client.sendall(frames.call(serial))
        session.come_to_rest()
        session.at_daemon.take()
    assert session.at_daemon.serials == list(range(50))


# Urgent data: libvirt knows none, but TCP lets anybody send it.


def test_urgent_data_in_the_middle_of_a_long_frame_does_not_stop_it(start):
    session = start(pair=tcp_pair)
    wire = frames.packet(500_000, 1)
    cut = 300_000
    sent = 0
    while sent < cut:
        sent += fill(session.client, wire[sent:cut])
        session.turn()
        session.at_daemon.take()
    session.come_to_rest()
    session.client.send(b"!", socket.MSG_OOB)  # never part of the stream of bytes
    session.send(session.client, wire[cut:])
    assert session.at_daemon.wires == [wire]


def test_urgent_data_does_not_make_the_loop_spin(start):
    session = start(pair=tcp_pair)
    wire = frames.packet(500_000, 1)
    session.send(session.client, wire[:400_000])
    session.client.send(b"!", socket.MSG_OOB)
    session.send(session.client, wire[400_000:401_000])
    assert session.waits()


@pytest.mark.parametrize("sent", [0, 10, 50_000])
def test_a_readiness_that_was_none_costs_nothing(session, sent):
    wire = frames.packet(100_000, 1)
    session.send(session.client, wire[:sent])
    session.up.pump(memoryview(bytearray(SCRATCH_SIZE)))
    session.send(session.client, wire[sent:])
    assert session.at_daemon.wires == [wire]
