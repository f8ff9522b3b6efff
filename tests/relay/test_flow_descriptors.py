"""Descriptors: each rides on a byte of its own behind the frame that announced it.

Another process carries them. Everything holds with a kernel that can refuse them and with one that
cannot.
"""

import socket
import time

import pytest

from proxyd.endpoint import ancillary
from proxyd.endpoint.couriers import COURIERS
from proxyd.endpoint.plain import PlainEndpoint
from proxyd.relay.flow import REFUSALS_LIMIT, SPLICE_ABOVE
from proxyd.wire.frame import FrameType
from proxyd.wire.programs import Program
from tests.fakes.lingering import lingering
from tests.relay import frames
from tests.relay.receiver import Receiver
from tests.relay.session import (
    SMALL_BUFFER,
    fill_up,
    open_descriptors,
    tcp_pair,
)

AT_ONCE_S = 1.0
NO_SUCH_OPTION = 9999
UNANNOUNCED = "a descriptor that no frame announced"
DIRECTIONS = ["up", "down"]
CARRIER = {"up": FrameType.CALL_WITH_FDS, "down": FrameType.REPLY_WITH_FDS}
SIDE = {"up": "client", "down": "daemon"}


@pytest.fixture(autouse=True, params=["refusing", "older"])
def kernel(request, monkeypatch):
    if request.param == "older":
        monkeypatch.setattr(ancillary, "SO_PASSRIGHTS", NO_SUCH_OPTION)
    return request.param


def sides(session, direction):
    if direction == "up":
        return session.client, session.at_daemon
    return session.daemon, session.at_client


def carried(direction, descriptors, serial=1, payload=b"args"):
    return frames.counted(CARRIER[direction], descriptors, serial, payload)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("burst", [True, False], ids=["in one burst", "one at a time"])
@pytest.mark.parametrize("count", [1, 2, 32])
def test_descriptors_arrive_one_a_byte_and_in_order(
    session, files, inodes, direction, burst, count
):
    sender, receiver = sides(session, direction)
    wires = [frames.call(1), carried(direction, count, 2), frames.reply(3)]
    sender.sendall(wires[0] + wires[1])
    for descriptor in files[:count]:
        if not burst:
            session.relay()
        frames.send_descriptor(sender, descriptor)
    sender.sendall(wires[2])
    session.relay()
    assert receiver.wires == wires
    assert [each.files for each in receiver.arrived] == [(), inodes[:count], ()]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("padding", [0, 3000, SPLICE_ABOVE, 200_000, 2_000_000])
def test_descriptors_stay_behind_their_frame_when_the_destination_is_slow(
    start, files, inodes, direction, padding
):
    session = start(buffer=SMALL_BUFFER)
    sender, receiver = sides(session, direction)
    wires = [
        carried(direction, 2, 1, frames.noise(padding, 1)),
        frames.call(2),
        carried(direction, 1, 3),
        frames.reply(4),
    ]
    rest = [wires[0], *files[:2], wires[1] + wires[2], files[2], wires[3]]
    while rest:
        session.turn()
        receiver.take(700)
        try:
            if isinstance(rest[0], int):
                frames.send_descriptor(sender, rest[0])
                rest[0] = b""
            else:
                rest[0] = rest[0][fill_up(sender, rest[0]) :]
        except BlockingIOError:
            continue
        if not rest[0]:
            del rest[0]
    session.relay()
    assert receiver.wires == wires
    assert [each.files for each in receiver.arrived] == [inodes[:2], (), inodes[2:3], ()]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_destination_that_takes_nothing_holds_no_descriptor_in_the_relay(
    start, files, inodes, direction
):
    session = start(buffer=SMALL_BUFFER)
    sender, receiver = sides(session, direction)
    before = open_descriptors()
    wires = [carried(direction, 32, serial) for serial in range(10)]
    todo = [part for wire in wires for part in (wire, *files)]
    while todo:
        try:
            if isinstance(todo[0], int):
                frames.send_descriptor(sender, todo[0])
            else:
                assert sender.send(todo[0]) == len(todo[0])
        except BlockingIOError:
            break
        del todo[0]
        session.come_to_rest()
        assert open_descriptors() == before
    assert todo
    while todo:
        session.turn()
        receiver.take()
        try:
            if isinstance(todo[0], int):
                frames.send_descriptor(sender, todo[0])
            else:
                assert sender.send(todo[0]) == len(todo[0])
        except BlockingIOError:
            continue
        del todo[0]
    session.relay()
    assert receiver.wires == wires
    assert {each.files for each in receiver.arrived} == {inodes}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_count_of_zero_announces_nothing(session, direction):
    sender, receiver = sides(session, direction)
    session.send(sender, carried(direction, 0, 1) + frames.call(2))
    assert receiver.wires == [carried(direction, 0, 1), frames.call(2)]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_more_than_32_descriptors_are_a_protocol_error(session, direction):
    sender, receiver = sides(session, direction)
    sender.sendall(carried(direction, 33))
    session.relay()
    assert session.ended
    assert session.reason == (
        f"protocol error from the {SIDE[direction]}: 33 descriptors in a frame, 32 are allowed"
    )
    assert receiver.taken == 0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_frame_too_short_to_count_its_descriptors_is_a_protocol_error(session, direction):
    sender, _ = sides(session, direction)
    sender.sendall(frames.frame(CARRIER[direction]) + bytes(4))
    session.relay()
    assert session.ended
    assert "does not count them" in session.reason


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("sent", [b"\0", b"\0\0", frames.call(2)])
def test_a_missing_descriptor_is_a_protocol_error(session, direction, sent):
    sender, receiver = sides(session, direction)
    sender.sendall(carried(direction, 1) + sent)
    session.relay()
    assert session.ended
    assert session.reason.endswith("a descriptor is missing behind its frame")
    assert receiver.arrived == []


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("together", [2, 3, 40])
def test_several_descriptors_on_one_byte_are_a_protocol_error(session, files, direction, together):
    sender, _ = sides(session, direction)
    before = open_descriptors()
    sender.sendall(carried(direction, 2))
    socket.send_fds(sender, [b"\0"], (files * 2)[:together])
    session.relay()
    assert session.ended
    assert open_descriptors() == before - 2  # the session's own sockets


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_comes_in_one_piece_with_a_descriptor_follows_it(session, files, inodes, direction):
    """libvirt never sends that; its daemons, too, take the descriptor from the first byte."""
    sender, receiver = sides(session, direction)
    sender.sendall(carried(direction, 1))
    frames.send_descriptor(sender, files[0], b"\0" + frames.call(2))
    session.relay()
    assert receiver.wires == [carried(direction, 1), frames.call(2)]
    assert receiver.arrived[0].files == inodes[:1]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("many", [1, 5, 253])
@pytest.mark.parametrize("size", [1, 2, 30, 32])
def test_one_that_nobody_announced_ends_the_session(session, files, direction, many, size):
    sender, receiver = sides(session, direction)
    before = open_descriptors()
    session.send(sender, frames.call(1))
    wire = frames.call(2, b"args")
    sender.sendall(wire[: len(wire) - size])
    socket.send_fds(sender, [wire[len(wire) - size :]], (files * 8)[:many])
    session.relay()
    assert session.ended
    assert session.reason == f"protocol error from the {SIDE[direction]}: {UNANNOUNCED}"
    assert receiver.wires == [frames.call(1)]
    assert open_descriptors() == before - 2  # the session's own sockets


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_more_than_was_announced_ends_the_session(session, files, direction):
    sender, receiver = sides(session, direction)
    sender.sendall(carried(direction, 2))
    for each in files[:3]:
        frames.send_descriptor(sender, each)
    session.relay()
    assert session.reason.endswith(UNANNOUNCED)
    assert receiver.wires == [carried(direction, 2)]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_descriptor_that_came_with_the_frame_is_not_the_announced_one(session, files, direction):
    sender, receiver = sides(session, direction)
    frames.send_descriptor(sender, files[0], carried(direction, 1))
    session.relay()
    assert session.reason.endswith(UNANNOUNCED)
    assert receiver.arrived == []


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("at", [32, 33, 35])
def test_one_that_comes_before_its_frame_is_whole_is_not_the_announced_one(
    session, files, direction, at
):
    sender, _ = sides(session, direction)
    wire = carried(direction, 1)
    session.send(sender, wire[:at])
    frames.send_descriptor(sender, files[0], wire[at : at + 1])
    session.relay()
    assert session.reason.endswith(UNANNOUNCED)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("at", [28, 10_000, 99_999])
def test_one_in_a_long_frame_is_seen_before_its_byte_is_spliced(
    session, files, inodes, direction, at
):
    sender, receiver = sides(session, direction)
    reader, sock = lingering()
    wire = frames.packet(100_000, 1)
    session.send(sender, wire[:at])
    frames.send_descriptor(sender, sock.fileno(), wire[at : at + 10_000])
    sock.close()  # the last one is in the queue then, and its close would wait
    began = time.monotonic()
    session.relay()
    assert session.reason.endswith(UNANNOUNCED)
    assert receiver.cut_off == wire[:at]
    assert time.monotonic() - began < AT_ONCE_S
    reader.close()


def test_from_who_may_only_read_none_comes(start, files, kernel):
    session = start(readonly=True)
    session.send(session.client, frames.call(1))
    if kernel == "refusing":
        with pytest.raises(PermissionError):
            frames.send_descriptor(session.client, files[0])
        session.send(session.client, frames.call(2))
        assert session.at_daemon.serials == [1, 2]
    else:
        frames.send_descriptor(session.client, files[0])
        session.relay()
        assert session.reason.endswith(UNANNOUNCED)
        assert session.at_daemon.serials == [1]


def test_who_may_only_read_cannot_announce_any(start):
    session = start(readonly=True)
    session.client.sendall(frames.call_with_descriptors(1))
    session.relay()
    assert session.reason.endswith("descriptors where none are carried")
    assert session.at_daemon.taken == 0


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("size", [SPLICE_ABOVE, 70_000, 300_000, 3_000_000])
def test_descriptors_behind_a_spliced_frame_arrive(session, files, inodes, direction, size):
    sender, receiver = sides(session, direction)
    wire = carried(direction, 3, 1, frames.noise(size, 1))
    session.send(sender, wire)
    for descriptor in files[:3]:
        frames.send_descriptor(sender, descriptor)
    sender.sendall(frames.packet(50_000, 2))
    session.relay()
    assert receiver.wires == [wire, frames.packet(50_000, 2)]
    assert receiver.arrived[0].files == inodes[:3]


@pytest.mark.parametrize(
    ("direction", "kind"), [("up", FrameType.REPLY_WITH_FDS), ("down", FrameType.CALL_WITH_FDS)]
)
def test_the_other_directions_frame_with_descriptors_is_a_plain_one(session, direction, kind):
    sender, receiver = sides(session, direction)
    wires = [frames.counted(kind, 1), frames.call(2), frames.counted(kind, 99), frames.reply(3)]
    session.send(sender, b"".join(wires))
    assert receiver.wires == wires
    assert not session.ended


def test_a_client_cannot_hide_a_call_behind_a_frame_that_only_the_relay_would_wait_for(
    session, files
):
    """The desynchronisation attack.

    A daemon takes a REPLY_WITH_FDS from a client for a plain frame: it looks for descriptors
    behind a CALL_WITH_FDS alone. A relay that waited for one would count the byte that carries
    it as no part of any frame, and from there on see frames one byte later than the daemon
    does. Here the byte is the first of a length word, so what the daemon reads is the
    CONNECT_SET_IDENTITY, and what such a relay would read is the padding around it.
    """
    hidden = frames.set_identity(7, size=256)
    assert hidden[:1] == b"\0"
    # 00000100 20..: one byte later that length reads 0x00010020, a plain frame over all of it.
    session.client.sendall(frames.counted(FrameType.REPLY_WITH_FDS, 1, 5))
    frames.send_descriptor(session.client, files[0], hidden[:1])
    session.client.sendall(hidden[1:] + frames.call(8))
    session.relay()
    assert session.at_daemon.serials == [5]
    assert session.reason.endswith(UNANNOUNCED)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("where", ["client", "daemon"])
def test_descriptors_where_one_side_cannot_carry_them_are_a_protocol_error(start, direction, where):
    session = start(**{f"{where}_end": PlainEndpoint})
    sender, receiver = sides(session, direction)
    sender.sendall(carried(direction, 0, 1) + carried(direction, 1, 2))
    session.relay()
    assert session.ended
    assert "where none are carried" in session.reason
    assert receiver.serials in ([], [1])


def test_descriptors_over_tcp_are_a_protocol_error(start):
    session = start(pair=tcp_pair)
    session.client.sendall(frames.call_with_descriptors(1))
    session.turn_until(lambda: session.ended)
    assert "where none are carried" in session.reason


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_end_where_a_descriptor_was_due_is_passed_on(session, files, inodes, direction):
    sender, receiver = sides(session, direction)
    sender.sendall(carried(direction, 2))
    frames.send_descriptor(sender, files[0])
    sender.shutdown(socket.SHUT_WR)
    session.relay()
    assert receiver.ended
    assert receiver.cut_off == carried(direction, 2)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_a_descriptor_that_waits_for_a_destination_is_closed_with_it(start, files, direction, how):
    session = start(buffer=SMALL_BUFFER)
    sender, receiver = sides(session, direction)
    before = open_descriptors()
    sender.sendall(carried(direction, 32, 1, bytes(100)))
    session.come_to_rest()
    flow = session.up if direction == "up" else session.down
    for descriptor in files:
        frames.send_descriptor(sender, descriptor)
        session.come_to_rest()
        if flow.stalled:
            break
    assert flow.stalled
    assert open_descriptors() == before
    if how == "closed":
        receiver.sock.close()
        session.come_to_rest()
        assert open_descriptors() <= before - 1
    else:
        session.loop.drop(session.pair.number, "told so")
        session.come_to_rest()
        assert open_descriptors() == before - 2


def test_a_daemon_passes_none_before_a_call_that_may_bring_some(start, files, kernel):
    session = start(asked=False)
    session.send(session.client, frames.call(1) + frames.frame(program=Program.KEEPALIVE))
    if kernel == "refusing":
        with pytest.raises(PermissionError):
            frames.send_descriptor(session.daemon, files[0])
    for header in (
        {"procedure": frames.DOMAIN_OPEN_GRAPHICS_FD},
        {"procedure": 100_000},
        {"program": Program.LXC, "procedure": 1},
        {"program": Program.QEMU, "procedure": 7},
    ):
        session = start(asked=False)
        session.send(session.client, frames.call(2, **header))
        session.daemon.sendall(frames.reply_with_descriptors(1, 2))
        frames.send_descriptor(session.daemon, files[0])
        session.relay()
        assert [len(each.files) for each in session.at_client.arrived] == [1]


def test_the_sessions_end_while_one_is_carried_loses_nothing_of_others(start, files, inodes):
    session = start()
    client, daemon, other = session.open()
    for sock in (client, session.client):
        sock.sendall(frames.call_with_descriptors(1, 3))
        frames.send_descriptor(sock, files[0])
    session.turn_until(lambda: session.up.errand is not None and other.up.errand is not None)
    session.loop.drop(session.pair.number, "told so")
    receiver = Receiver.at_daemon(daemon)
    session.turn_until(lambda: (receiver.take(), receiver.arrived)[1])
    assert receiver.arrived[0].files == inodes[:1]
    assert session.ended


def test_refused_calls_with_descriptors_again_and_again_end_their_session_alone(start, files):
    session = start()
    client, daemon, _ = session.open()
    for serial in range(REFUSALS_LIMIT + 1):
        session.client.sendall(frames.set_identity_with_descriptors(1, serial))
        frames.send_descriptor(session.client, files[0])
        session.relay()
    assert session.ended
    assert session.reason == (
        "protocol error from the client: calls that are refused, again and again"
    )
    client.sendall(frames.call(1))
    receiver = Receiver.at_daemon(daemon)
    session.turn_until(lambda: (receiver.take(), receiver.arrived)[1])


def test_a_client_that_goes_just_before_its_descriptor_has_arrived_ends_its_session_alone(
    start, files, monkeypatch
):
    """A refusal has waited for the descriptor, and is written before epoll tells of the end."""
    session = start()
    client, daemon, _ = session.open()
    errands = []
    with monkeypatch.context() as patch:
        patch.setattr(COURIERS, "carry", lambda _, errand: errands.append(errand))
        session.daemon.sendall(carried("down", 1))
        frames.send_descriptor(session.daemon, files[0])
        session.turn_until(lambda: errands)
    session.client.sendall(frames.set_identity(2))
    session.turn_until(lambda: session.down.inserting)
    session.client.close()
    errands[0].end("")
    session.loop._take_orders()
    session.daemon.close()
    session.turn_until(lambda: session.ended)
    assert session.reason.startswith("the client is gone: ")
    client.sendall(frames.call(1))
    receiver = Receiver.at_daemon(daemon)
    session.turn_until(lambda: (receiver.take(), receiver.arrived)[1])
