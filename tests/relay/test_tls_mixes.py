"""Whatever a daemon sends over TLS, however it is cut and full the sockets are: frame by frame.

The client reads as libvirt's does, which never sees what shares a record with the frame in front
of it (tests/bed/libvirt_reader.py): it fails at the first record that holds bytes of two frames,
and it must get every frame by waiting for its socket alone. Refusals, which the relay puts between
the daemon's frames, come in between.
"""

import contextlib
import functools
import itertools
import random
from bisect import bisect_right
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from proxyd.endpoint import openssl, tls
from proxyd.endpoint.tls import TlsEndpoint
from proxyd.relay.flow import REFUSALS_LIMIT
from proxyd.relay.loop import SCRATCH_SIZE
from proxyd.wire.frame import HEADER_SIZE, FrameType, Status
from proxyd.wire.programs import Program
from tests.bed.examples import examples
from tests.bed.libvirt_reader import LibvirtReader
from tests.fakes.mixes import is_refusal
from tests.fakes.tls import TLS_1_2, TLS_1_3, secured
from tests.relay import frames
from tests.relay.session import (
    SMALL_BUFFER,
    HandTurned,
    fill,
    tcp_pair,
    unix_pair,
)

EXAMPLES = 200
LONG_EXAMPLES = 10_000
PARTS = 40  # each is a test, so that none takes long
RECORD = 16384
LONGEST_WRITE = 4 * RECORD
LONGEST = 400_000
SIZES = [
    HEADER_SIZE,
    HEADER_SIZE + 1,
    HEADER_SIZE + 4,
    60,
    100,
    1000,
    RECORD - HEADER_SIZE,
    RECORD - 1,
    RECORD,
    RECORD + 1,
    RECORD + HEADER_SIZE,
    LONGEST_WRITE - 1,
    LONGEST_WRITE,
    LONGEST_WRITE + 1,
    SCRATCH_SIZE + HEADER_SIZE,
    2 * LONGEST_WRITE + 3,
    262_144,  # the longest payload of libvirt's own packets, and with its header
    262_144 + HEADER_SIZE,
    LONGEST,
]
KEEPALIVE_PING = 1
EVENT = 318
KINDS = {
    "reply": (FrameType.REPLY, {}),
    "error": (FrameType.REPLY, {"status": Status.ERROR}),
    "event": (FrameType.MESSAGE, {"procedure": EVENT}),
    "packet": (FrameType.STREAM, {"procedure": frames.VOL_DOWNLOAD, "status": Status.CONTINUE}),
    "hole": (FrameType.STREAM_HOLE, {"procedure": frames.VOL_DOWNLOAD, "status": Status.CONTINUE}),
    "end": (FrameType.STREAM, {"procedure": frames.VOL_DOWNLOAD}),
    "ping": (FrameType.MESSAGE, {"program": Program.KEEPALIVE, "procedure": KEEPALIVE_PING}),
    "unknown": (FrameType.REPLY, {"program": 0, "procedure": -1, "status": 2**31 - 1}),
}
NOISE = random.Random(16).randbytes(LONGEST)

sizes = st.sampled_from(SIZES) | st.integers(HEADER_SIZE, 300) | st.integers(HEADER_SIZE, LONGEST)
runs = st.tuples(
    st.sampled_from(sorted(KINDS)),
    st.sampled_from([HEADER_SIZE, HEADER_SIZE + 4, 60, 200]),
    st.integers(2, 60),
)
singles = st.tuples(st.sampled_from(sorted(KINDS)), sizes, st.just(1))
downward = st.lists(singles | runs, min_size=1, max_size=8)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("daemon sends"),
            st.sampled_from([1, 3, 4, 5, 27, 28, 29, 60, 1000, 4096, 65_536, 300_000, 1 << 21])
            | st.integers(1, 2000),
        ),
        st.tuples(st.just("client is refused"), st.integers(1, 6)),
        st.tuples(st.just("client calls"), st.integers(1, 6)),
        st.tuples(st.just("turn"), st.integers(1, 8)),
        st.tuples(st.just("client reads"), st.integers(1, 60)),
    ),
    max_size=30,
)


def wire_of(number, kind, size):
    """Its content tells it from every other one."""
    type_, header = KINDS[kind]
    at = number % 1000
    return frames.frame(type_, number, NOISE[at : at + size - HEADER_SIZE][:size], **header)


class WatchedEndpoint(TlsEndpoint):
    """Notes which bytes of all that it sends each SSL_write was offered, its first byte apart.

    What one call offers is what the kernel would make records of, if it encrypted.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.writes, self.sent = [], -1

    def write(self, view):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tls, "write", self._watched)
            return super().write(view)

    def _watched(self, handle, room, size):
        self.writes.append((self.sent, self.sent + size))
        taken = openssl.write(handle, room, size)
        self.sent += max(0, taken)
        return taken


class Talk:
    """A session whose client speaks TLS and reads as libvirt does, turned by hand."""

    def __init__(self, version, buffer, in_kernel):
        self.peer = None
        outer = []

        def pair():
            # Small windows make TCP wait for its own timers; a UNIX socket is full alike.
            outer.append(unix_pair() if buffer else tcp_pair())
            return outer[-1]

        def secure(sock):
            self.peer, self.endpoint = secured(
                outer[0][0], sock, version=version, make=WatchedEndpoint, in_kernel=in_kernel
            )
            return self.endpoint

        self.session = HandTurned(pair=pair, client_end=secure, buffer=buffer)
        self.reader = LibvirtReader(self.peer.connection)
        self.received = []
        self.serial = 0
        self.refused = self.called = 0
        self._up = bytearray()

    def close(self):
        self.session.close()

    def turn(self, times=1):
        for _ in range(times):
            self._offer()
            self.session.turn()
            self.session.at_daemon.take()

    def read(self, count=1 << 30):
        """As many whole frames as the socket tells of, and no more than asked for."""
        for _ in range(count):
            if (frame := self.reader.take()) is None:
                return
            self.received.append(frame)

    def call(self, count, wire):
        for _ in range(count):
            self._up += wire(self.serial)
            self.serial += 1
        self._offer()

    def _offer(self):
        if self._up:
            with contextlib.suppress(SSL.WantWriteError):  # the same bytes again at the next turn
                del self._up[: self.peer.connection.send(bytes(self._up))]

    @property
    def all_sent(self):
        return not self._up


@contextmanager
def talking(*how):
    talk = Talk(*how)
    try:
        yield talk
    finally:
        talk.close()


def flattened(down):
    """The frames, by their numbers."""
    kinds = [(kind, size) for kind, size, count in down for _ in range(count)]
    return [wire_of(number, *each) for number, each in enumerate(kinds)]


def play(talk, script, wires):
    """The steps, and then what is left of both sides, until everything has arrived."""
    rest = memoryview(b"".join(wires))
    for step, count in script:
        if step == "daemon sends":
            part = rest[:count]
            rest = rest[fill(talk.session.daemon, part) if part else 0 :]
        elif step == "client is refused" and talk.refused + count < REFUSALS_LIMIT:
            talk.refused += count
            talk.call(count, frames.second_open if count % 2 else frames.set_identity)
        elif step == "client calls":
            talk.called += count
            talk.call(count, frames.call)
        elif step == "client reads":
            talk.read(count)
        talk.turn(count if step == "turn" else 1)
    expected = len(wires) + talk.refused

    def arrived():
        nonlocal rest
        if rest:
            rest = rest[fill(talk.session.daemon, rest) :]
        talk._offer()
        talk.session.at_daemon.take()
        talk.read()
        return (
            len(talk.received) >= expected
            and talk.all_sent
            and len(talk.session.at_daemon.arrived) >= talk.called
        )

    talk.session.turn_until(arrived)


def check(talk, wires):
    refusals = [each for each in talk.received if is_ours(each)]
    assert [each.pack() for each in talk.received if not is_ours(each)] == wires
    assert len(refusals) == talk.refused
    assert all(map(is_refusal, refusals))
    assert len(talk.session.at_daemon.arrived) == talk.called
    assert not talk.session.ended, talk.session.reason
    check_writes(talk)


def check_writes(talk):
    """Each SSL_write was offered bytes of one frame, also when it was asked again."""
    lengths = [HEADER_SIZE + len(each.payload) for each in talk.received]
    ends = list(itertools.accumulate(lengths))
    assert talk.endpoint.sent == ends[-1]
    for start, end in talk.endpoint.writes[1:]:
        assert start < end <= ends[bisect_right(ends, start)], "an SSL_write of two frames"


def is_ours(frame):
    """What a daemon sends here has other procedures."""
    header = frame.header
    return header.type == FrameType.REPLY and header.procedure in {1, 419} and header.program > 0


def run_mix(how, down, script):
    wires = flattened(down)
    with talking(*how) as talk:
        play(talk, script, wires)
        check(talk, wires)


mixes = functools.partial(
    given,
    how=st.tuples(
        st.sampled_from([TLS_1_2, TLS_1_3]),
        st.sampled_from([None, SMALL_BUFFER, 20_000, 60_000]),
        st.booleans(),
    ),
    down=downward,
    script=steps,
)
PIPELINED = [("reply", 60, 60)]
ALL_AT_ONCE = [("daemon sends", 1 << 21), ("turn", 1), ("client reads", 60)]
VOLUME = [("packet", 262_144 + HEADER_SIZE, 2), ("hole", 40, 1), ("packet", 262_168, 1)]


@example(how=(TLS_1_3, None, False), down=PIPELINED, script=ALL_AT_ONCE)
@example(how=(TLS_1_2, SMALL_BUFFER, True), down=PIPELINED, script=ALL_AT_ONCE)
@example(how=(TLS_1_3, SMALL_BUFFER, False), down=[*VOLUME, ("end", 28, 1)], script=ALL_AT_ONCE)
@example(
    how=(TLS_1_3, SMALL_BUFFER, False),
    down=VOLUME,
    script=[("daemon sends", 100_000), ("turn", 3), ("client is refused", 6), ("turn", 8)],
)
@examples(EXAMPLES)
@mixes()
def test_every_frame_comes_by_itself(how, down, script):
    run_mix(how, down, script)


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
@settings(max_examples=LONG_EXAMPLES // PARTS, derandomize=False)
@mixes()
def test_every_frame_of_ten_thousand_mixes_comes_by_itself(part, how, down, script):
    run_mix(how, down, script)
