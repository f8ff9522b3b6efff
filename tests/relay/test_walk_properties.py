"""Whatever is sent, however it is cut and whoever is slow: the relay does what a slow parser says.

The parser below sees a whole direction at once, as bytes and the places of the descriptors
among them. It knows nothing of reads, scratch buffers, pipes and sockets that are full.
"""

import os
import struct
import tempfile
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxyd.relay.flow import SPLICE_ABOVE
from proxyd.relay.loop import SCRATCH_SIZE
from proxyd.wire.frame import HEADER, HEADER_SIZE, MAX_DESCRIPTORS, MAX_FRAME, FrameType
from proxyd.wire.programs import Program, Remote
from tests.bed.examples import examples
from tests.fakes.endpoints import HesitantEndpoint
from tests.relay import frames
from tests.relay.session import HandTurned, fill, open_descriptors, tcp_pair

CARRIER = {"up": FrameType.CALL_WITH_FDS, "down": FrameType.REPLY_WITH_FDS}
WITH_COUNT = set(CARRIER.values())
CALLS = {FrameType.CALL, FrameType.CALL_WITH_FDS}
SMALL = 8192


class Direction:
    """What one side sends: bytes, and at which of them which file rides."""

    def __init__(self):
        self.stream = bytearray()
        self.files = {}

    def add(self, wire):
        self.stream += wire

    def add_descriptor(self, file):
        self.files[len(self.stream)] = file
        self.stream += b"\0"


@dataclass
class Outcome:
    """What the slow parser says: frames and the inodes behind each, serials refused, an error."""

    passed: list = field(default_factory=list)
    refused: list = field(default_factory=list)
    broken: bool = False


def parse_slowly(direction, side, inodes):
    outcome = Outcome()
    stream, files, at = bytes(direction.stream), dict(direction.files), 0
    while at + HEADER_SIZE <= len(stream):
        length, program, _, procedure, kind, serial, _ = HEADER.unpack_from(stream, at)
        if not HEADER_SIZE <= length <= MAX_FRAME:
            outcome.broken = True
            return outcome
        wire, due = stream[at : at + length], 0
        if kind == CARRIER[side]:
            if length < HEADER_SIZE + 4:
                outcome.broken = True
                return outcome
            (due,) = struct.unpack_from(">I", stream, at + HEADER_SIZE)
            if due > MAX_DESCRIPTORS:
                outcome.broken = True
                return outcome
        if at + length > len(stream):
            return outcome
        at += length
        behind = ()
        for _ in range(due):
            if at not in files:
                outcome.broken = True
                return outcome
            behind += (inodes[files.pop(at)],)
            at += 1
        is_call = program == Program.REMOTE and kind in CALLS
        if side == "up" and is_call and procedure == Remote.CONNECT_SET_IDENTITY:
            outcome.refused.append(serial)
        else:
            outcome.passed.append((wire, behind))
    return outcome


SIZES = [
    HEADER_SIZE,
    HEADER_SIZE + 3,
    HEADER_SIZE + 4,
    100,
    5000,
    SPLICE_ABOVE - 1,
    SPLICE_ABOVE,
    SPLICE_ABOVE + HEADER_SIZE,
    SPLICE_ABOVE + HEADER_SIZE + 1,
    SCRATCH_SIZE - 1,
    SCRATCH_SIZE,
    SCRATCH_SIZE + 1,
    SCRATCH_SIZE + SPLICE_ABOVE + 1,
    250_000,
]

shapes = st.tuples(
    st.sampled_from(FrameType),
    st.sampled_from([6, 209, int(Remote.CONNECT_SET_IDENTITY)]),
    st.sampled_from([Program.REMOTE, Program.REMOTE, Program.QEMU]),
    st.sampled_from(SIZES) | st.integers(HEADER_SIZE, 400),
    st.integers(0, 3),
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["client sends", "daemon sends", "turn", "client takes", "daemon takes"]),
        st.sampled_from([1, 3, 27, 28, 29, 31, 32, 33, 60, 1000, 40_000, 300_000]),
    ),
    max_size=60,
)
tails = st.sampled_from(["", "", "", "length", "descriptor", "count", "header", "payload"])


def make(shapes, side, tail):
    direction = Direction()
    for serial, (kind, procedure, program, size, descriptors) in enumerate(shapes):
        payload = frames.noise(size - HEADER_SIZE, serial)
        carries = kind == CARRIER[side]
        if kind in WITH_COUNT and (carries or len(payload) >= 4):
            payload = struct.pack(">I", descriptors if carries else 40) + payload[4:]
        direction.add(frames.frame(kind, serial, payload, procedure=procedure, program=program))
        for each in range(descriptors if carries else 0):
            direction.add_descriptor((serial + each) % 3)
    if tail == "length":
        direction.add(struct.pack(">I", HEADER_SIZE - 1) + bytes(HEADER_SIZE))
    elif tail == "descriptor":
        direction.add(frames.counted(CARRIER[side], 1) + b"\0")
    elif tail == "count":
        direction.add(frames.counted(CARRIER[side], 33))
    elif tail == "header":
        direction.add(frames.call(1)[:17])
    elif tail == "payload":
        direction.add(frames.packet(200_000)[:150_000])
    return direction


class Feeder:
    """Sends a direction piece by piece; each descriptor by a sendmsg of its own."""

    def __init__(self, sock, direction, files):
        self.sock, self.direction, self.files = sock, direction, files
        self.at = 0

    @property
    def done(self):
        return self.at == len(self.direction.stream)

    def feed(self, limit):
        """Sends at most `limit` bytes; returns how much the socket took."""
        began = self.at
        try:
            while limit > 0 and not self.done:
                if self.at in self.direction.files:
                    file = self.files[self.direction.files[self.at]]
                    frames.send_descriptor(self.sock, file)
                    sent = 1
                else:
                    behind = [at for at in self.direction.files if at > self.at]
                    stop = min([self.at + limit, len(self.direction.stream), *behind])
                    sent = fill(self.sock, bytes(self.direction.stream[self.at : stop]))
                if not sent:
                    break
                self.at += sent
                limit -= sent
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass  # full, or the session has ended over a broken frame
        return self.at - began


class Play:
    """A session, what each side is going to send, and what has to come of it."""

    def __init__(self, up, down, files, **kind):
        inodes = [os.fstat(file).st_ino for file in files]
        self.session = HandTurned(**kind)
        self.client = Feeder(self.session.client, up, files)
        self.daemon = Feeder(self.session.daemon, down, files)
        self.up = parse_slowly(up, "up", inodes)
        self.down = parse_slowly(down, "down", inodes)

    def take_steps(self, steps):
        session = self.session
        actions = {
            "client sends": self.client.feed,
            "daemon sends": self.daemon.feed,
            "turn": lambda times: session.turn(min(times, 5)),
            "client takes": session.at_client.take,
            "daemon takes": session.at_daemon.take,
        }
        for action, amount in steps:
            actions[action](amount)

    def run_out(self):
        """Sends what is left while both sides take what comes, as long as anything moves."""
        session, idle = self.session, 0
        while idle < 20 and not (session.ended or (self.client.done and self.daemon.done)):
            moved = self.client.feed(1 << 20) + self.daemon.feed(1 << 20)
            session.relay()
            idle = 0 if moved else idle + 1
            if idle:
                session.loop.turn(0.001)
        session.relay()

    @property
    def at_daemon(self):
        return [(each.wire, each.files) for each in self.session.at_daemon.arrived]

    @property
    def at_client(self):
        return [
            (each.wire, each.files)
            for each in self.session.at_client.arrived
            if not self.is_refusal(each)
        ]

    @property
    def refused(self):
        return [each.serial for each in self.session.at_client.arrived if self.is_refusal(each)]

    def is_refusal(self, arrived):
        return b"cannot be replaced" in arrived.wire


def is_prefix(some, whole):
    return some == whole[: len(some)]


@pytest.fixture(scope="module")
def three_files():
    with (
        tempfile.TemporaryFile() as one,
        tempfile.TemporaryFile() as two,
        tempfile.TemporaryFile() as three,
    ):
        yield [each.fileno() for each in (one, two, three)]


directions = st.lists(shapes, max_size=8)
PARTING = st.sampled_from([0, 30])  # seconds; 0: the daemon is shown the client's end as it is


takes = st.lists(st.sampled_from([0, 1, 10, 28, 33, 1000, 1 << 30]), max_size=12)


@given(directions, directions, steps, st.sampled_from([None, SMALL]), takes, takes, PARTING)
@examples(200)
@example([(FrameType.CALL, 419, Program.REMOTE, 100, 0)] * 3, [], [], None, [], [], 0)
def test_everything_arrives_once_and_in_order(
    three_files, up, down, steps, buffer, client_takes, daemon_takes, parting_s
):
    before = open_descriptors()
    play = Play(
        make(widened(up, "up"), "up", ""),
        make(widened(down, "down"), "down", ""),
        three_files,
        client_end=lambda sock: HesitantEndpoint(sock, client_takes),
        daemon_end=lambda sock: HesitantEndpoint(sock, daemon_takes),
        buffer=buffer,
        parting_s=parting_s,
    )
    try:
        play.take_steps(steps)
        play.run_out()
        assert not play.session.ended
        assert play.at_daemon == play.up.passed
        assert play.at_client == play.down.passed
        assert play.refused == play.up.refused
        play.session.client.close()
        play.session.come_to_rest()
        assert play.session.ended
    finally:
        play.session.close()
    assert open_descriptors() == before


@given(directions, directions, steps, st.sampled_from(["up", "down"]), tails, st.booleans())
@examples(200)
def test_what_arrives_before_something_breaks_is_a_part_of_what_was_sent(
    three_files, up, down, steps, side, tail, cut_short
):
    before = open_descriptors()
    play = Play(
        make(widened(up, "up"), "up", tail if side == "up" else ""),
        make(widened(down, "down"), "down", tail if side == "down" else ""),
        three_files,
        buffer=SMALL,
    )
    session = play.session
    try:
        play.take_steps(steps)
        if not cut_short:
            play.run_out()
            # A refusal that waits for the end of a frame cut short keeps the client waiting.
            assert session.up.paused or session.ended == (play.up.broken or play.down.broken)
            if not (session.up.paused or session.ended):
                assert play.at_daemon == play.up.passed
                assert play.at_client == play.down.passed
        (session.client if side == "up" else session.daemon).close()
        session.relay()
        assert is_prefix(play.at_daemon, play.up.passed)
        assert is_prefix(play.at_client, play.down.passed)
        assert is_prefix(play.refused, play.up.refused)
        (session.daemon if side == "up" else session.client).close()
        session.come_to_rest()
        assert session.ended
        assert session.waits(0.005)
    finally:
        session.close()
    assert open_descriptors() == before


def without_descriptors(shapes):
    return [(*shape[:4], 0) for shape in shapes]


def widened(shapes, side):
    """A frame that carries descriptors has room for their number."""
    return [
        (kind, procedure, program, max(size, HEADER_SIZE + 4), count)
        if kind == CARRIER[side]
        else (kind, procedure, program, size, count)
        for kind, procedure, program, size, count in shapes
    ]


@given(directions, directions, steps)
@examples(30)
def test_over_tcp_everything_arrives_once_and_in_order(three_files, up, down, steps):
    play = Play(
        make(widened(without_descriptors(up), "up"), "up", ""),
        make(widened(without_descriptors(down), "down"), "down", ""),
        three_files,
        pair=tcp_pair,
    )
    try:
        play.take_steps(steps)
        play.run_out()
        play.session.turn_until(
            lambda: (
                play.session.relay(),
                len(play.at_daemon) == len(play.up.passed)
                and len(play.at_client) == len(play.down.passed)
                and len(play.refused) == len(play.up.refused),
            )[1]
        )
        assert play.at_daemon == play.up.passed
        assert play.at_client == play.down.passed
        assert play.refused == play.up.refused
    finally:
        play.session.close()
