"""A client that dies at any byte of any session: its daemon sees a client that means well.

The daemon here does what libvirt's do, in an order of its own: it answers calls when it likes, lets
packets of a stream overtake, and fails the test where libvirt's would die: at a frame that is cut
off, a packet of a stream that is not open yet, an end or a CONNECT_CLOSE with anything under way.
"""

import random
import time
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from proxyd.relay.parting import Outcome
from proxyd.wire.frame import HEADER_SIZE, FrameType, Status
from proxyd.wire.programs import STREAMS, Program, Remote
from proxyd.wire.remote import Keepalive, keepalive
from tests.bed.examples import examples
from tests.relay import frames
from tests.relay.session import DEADLINE_S, HandTurned, fill, open_descriptors, tcp_pair, unix_pair

SIZES = [0, 0, 1, 100, 5000, 32_740, 32_741, 40_000, 66_000, 262_120]
OPENING = sorted(STREAMS)

actions = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "open", "open", "packet", "packet", "finish", "abort"]),
        st.integers(0, 7),
        st.sampled_from(SIZES),
    ),
    max_size=12,
)


@dataclass
class Daemon:
    """Reads through the session's strict receiver."""

    session: HandTurned
    rng: random.Random
    seen: int = 0
    waiting: list = field(default_factory=list)  # headers of calls without a reply
    streams: set = field(default_factory=set)  # open ones: procedure, serial
    closed: bool = False
    out: bytes = b""

    def step(self):
        receiver = self.session.at_daemon
        receiver.take()
        arrived = receiver.arrived[self.seen :]
        self.seen += len(arrived)
        for each in arrived:
            self.meet(each.header)
        assert not receiver.ended or self.closed, "an end out of order"
        assert not (receiver.ended and receiver.cut_off)
        if not self.closed and not self.out:
            self.speak()
        while self.out and not receiver.ended:
            sent = fill(self.session.daemon, self.out)
            self.out = self.out[sent:]
            if not sent:
                break

    def meet(self, header):
        assert not self.closed, "something behind CONNECT_CLOSE"
        key = header.procedure, header.serial
        if header.type == FrameType.CALL:
            if header.procedure == Remote.CONNECT_CLOSE:
                assert not self.streams, "CONNECT_CLOSE beside an open stream"
                assert not self.waiting, "CONNECT_CLOSE beside a call"
                self.closed = True
                self.out += frames.reply(header.serial, procedure=Remote.CONNECT_CLOSE)
                return
            self.waiting.append(header)
        elif header.type == FrameType.STREAM and header.program == Program.REMOTE:
            opening = {(each.procedure, each.serial) for each in self.waiting}
            assert key not in opening, "a packet of a stream that is not open yet"
            if header.status != Status.CONTINUE and key in self.streams:
                self.streams.remove(key)
                self.out += self.last_word(key)

    def last_word(self, key):
        status = self.rng.choice([Status.OK, Status.ERROR])
        procedure, serial = key
        return frames.frame(FrameType.STREAM, serial, procedure=procedure, status=status)

    def speak(self):
        """One thing that it has to say, if it likes."""
        what = self.rng.randrange(6)
        if what == 0 and self.waiting:
            self.answer(self.waiting.pop(self.rng.randrange(len(self.waiting))))
        elif what == 1 and self.streams:
            procedure, serial = self.rng.choice(sorted(self.streams))
            size = self.rng.choice(SIZES)
            self.out += frames.frame(
                FrameType.STREAM, serial, bytes(size), procedure=procedure, status=Status.CONTINUE
            )
        elif what == 2 and self.streams and self.rng.randrange(8) == 0:
            key = self.rng.choice(sorted(self.streams))
            self.streams.remove(key)
            self.out += self.last_word(key)
        elif what == 3:
            self.out += keepalive(Keepalive.PING).pack()

    def answer(self, header):
        key = header.procedure, header.serial
        status = Status.OK if self.rng.randrange(5) else Status.ERROR
        reply = frames.reply(header.serial, bytes(20), procedure=header.procedure, status=status)
        if header.procedure in STREAMS and status == Status.OK:
            if self.rng.randrange(6) == 0:  # all of it, ahead of the reply
                self.out += self.last_word(key)
            else:
                self.streams.add(key)
        self.out += reply


def script(drawn):
    """The client's frames. It does not care whether its streams are open."""
    wires, opened = [], []
    for serial, (what, which, size) in enumerate(drawn):
        if what == "open":
            opened.append((OPENING[which % len(OPENING)], serial))
            wires.append(frames.call(serial, bytes(8), procedure=opened[-1][0]))
        elif what == "call" or not opened:
            wires.append(frames.call(serial, frames.noise(size, serial)))
        else:
            procedure, stream = opened[which % len(opened)]
            status = {"packet": Status.CONTINUE, "finish": Status.OK, "abort": Status.ERROR}[what]
            payload = frames.noise(size, serial) if what == "packet" else b""
            wires.append(
                frames.frame(FrameType.STREAM, stream, payload, procedure=procedure, status=status)
            )
    return wires


def judge(session, wires, sent):
    """What came up is a beginning of what the client sent; the last packet may be filled up."""
    arrived = [
        each for each in session.at_daemon.arrived if each.header.program != Program.KEEPALIVE
    ]
    at = 0
    for wire in wires:
        came = min(len(wire), sent - at)
        filled = wire[:came] + bytes(len(wire) - came)
        if came < HEADER_SIZE or arrived[0].wire != filled:
            break
        assert came == len(wire) or arrived[0].header.type == FrameType.STREAM
        del arrived[0]
        at += len(wire)
    *aborts, close = arrived
    for each in aborts:
        assert (each.header.type, each.header.status) == (FrameType.STREAM, Status.ERROR)
        assert len(each.wire) == HEADER_SIZE
    assert close.header.procedure == Remote.CONNECT_CLOSE


@given(
    actions,
    st.floats(0, 1),
    st.integers(0, 2**32),
    st.sampled_from(["closes", "thrown out", "half-closes"]),
    st.sampled_from([(unix_pair, None), (unix_pair, 8192), (tcp_pair, None)]),
)
@examples(300)
def test_whenever_a_client_dies_its_daemon_meets_whole_frames_and_an_orderly_end(
    drawn, part, seed, end, way
):
    before = open_descriptors()
    rng = random.Random(seed)
    wires = script(drawn)
    wire = b"".join(wires)
    last = int(len(wire) * part)
    session = HandTurned(parting_s=30, pair=way[0], buffer=way[1])
    daemon = Daemon(session, rng)
    try:
        sent = idle = 0
        while sent < last and idle < 200:
            piece = rng.choice([1, 3, 28, 29, 1000, 40_000, 300_000])
            got = fill(session.client, wire[sent : min(last, sent + piece)])
            sent, idle = sent + got, 0 if got else idle + 1
            session.turn(rng.randrange(3))
            session.at_client.take()
            daemon.step()
        if end == "thrown out":
            session.loop.drop(session.pair.number, "thrown out")
        elif end == "closes":
            session.client.close()
        else:
            session.client.shutdown(1)
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            session.loop.turn(0)
            session.at_client.take()
            daemon.step()
            if session.at_daemon.ended:
                break
        assert session.ended
        assert daemon.closed, "no CONNECT_CLOSE"
        assert session.at_daemon.ended
        judge(session, wires, sent)
        (there,) = session.loop.partings.of.values()
        assert (there.now, there.ended) == (0, {Outcome.ORDERLY: 1})
        assert session.loop.pipes.memory.lend(1, "somebody")
    finally:
        session.close()
    assert open_descriptors() == before
