"""The relay's two flows against a parser that sees each direction whole.

Any bytes go in at both ends, in any cuts, with and without descriptors, while both ends take as
much as they like. What each side was given has to be what the slow parser says; when a frame
cannot be, a part of it. No descriptor is taken but by an errand, and each by one.

The ends are in memory, and descriptors are numbers without a file. Pipes are real.
"""

import os
import struct
from collections import deque
from dataclasses import dataclass, field

from proxyd.endpoint.contract import DESCRIPTOR, NOTHING, HungUp
from proxyd.endpoint.errands import Errand
from proxyd.relay.figures import Figures
from proxyd.relay.flow import REFUSALS_LIMIT
from proxyd.relay.guards import GUARDED as GUARDS
from proxyd.relay.pair import RelayedPair
from proxyd.relay.pipes import PipePool
from proxyd.wire.frame import HEADER, HEADER_SIZE, MAX_DESCRIPTORS, MAX_FRAME, FrameType, Header
from proxyd.wire.programs import Program, Remote
from proxyd.wire.xdr import MalformedFrame
from tests.fuzz.supply import Supply

CALLS = {FrameType.CALL, FrameType.CALL_WITH_FDS}
PROCEDURES = (6, 209, int(Remote.CONNECT_SET_IDENTITY), int(Remote.CONNECT_OPEN), 0, 454)
PROGRAMS = (Program.REMOTE, Program.REMOTE, Program.REMOTE, Program.QEMU)
SCRATCHES = (64, 300, 65536)
SPLICED_ABOVE = 64  # for short inputs to get there
EVERYTHING = 1 << 30
FIGURES, PIPES = Figures(), PipePool()
GUARDED = b"\x20\0\x80\x86\0\0\0\1\0\0\1\xa3"
WORDS = (
    b"\0\0\0\x1c" + GUARDED + b"\0\0\0\0" + bytes(8),
    b"\0\0\0\x1c" + GUARDED[:-2] + b"\0\1\0\0\0\0" + bytes(8),
    b"\0\0\0\x20" + GUARDED + b"\0\0\0\4" + bytes(8) + b"\0\0\0\1",
    b"\0\0\0\x20" + GUARDED[:-4] + b"\0\0\0\6\0\0\0\4" + bytes(8) + b"\0\0\0\1",
    b"\0\0\0\x20" + GUARDED[:-4] + b"\0\0\0\6\0\0\0\5" + bytes(8) + b"\0\0\0\1",
    b"\0\0\0\x21",
    b"\0\0\0\x1b",
    b"\2\0\0\4",
)


def one_input(data):
    supply = Supply(data)
    with Session(supply) as session:
        while supply.left and not session.over:
            session.step(supply)
        session.come_to_rest()
        session.judge_at_rest()
        session.hang_up()
        session.judge_in_the_end()
    session.judge_descriptors()


@dataclass(frozen=True)
class Piece:
    """What the sender gave to its socket at a time. The descriptors ride on its first byte."""

    content: bytes
    descriptors: tuple = ()


class End:
    """One side of the session: what arrives from it, and what it was given."""

    reads_when_writable = False
    pending = False

    def __init__(self, *, unix, splices):
        self.carries_descriptors = unix
        self.may_splice = splices
        self.sent = []  # every piece
        self.arriving = deque()  # those that were not read yet, the first perhaps in part
        self.given = bytearray()
        self.riders = []  # where in `given`, and which descriptor
        self.room = EVERYTHING
        self.taken = []  # descriptors that somebody has taken off
        self.ended = self.gone = False
        self.ends = 0

    def send(self, piece):
        if not self.carries_descriptors:
            piece = Piece(piece.content)
        if piece.content and not self.ended:
            self.sent.append(piece)
            self.arriving.append(piece)

    def _next(self, size):
        """Up to what a descriptor rides on."""
        content = b""
        while self.arriving and len(content) < size and not self.arriving[0].descriptors:
            piece = self.arriving.popleft()
            part = piece.content[: size - len(content)]
            content += part
            if len(part) < len(piece.content):
                self.arriving.appendleft(Piece(piece.content[len(part) :]))
        return content

    def read_into(self, view):
        if not self.arriving:
            return 0 if self.ended else NOTHING
        content = self._next(len(view))
        view[: len(content)] = content
        return len(content) or DESCRIPTOR

    def take_descriptors(self):
        """They have come all the time."""

    def splice_to(self, pipe, count):
        content = self._next(count)
        if not content:
            return 0 if self.ended and not self.arriving else NOTHING
        assert os.write(pipe, content) == len(content)
        return len(content)

    def take_first_byte(self):
        """What a courier does; returns the descriptors that rode on it."""
        piece = self.arriving.popleft()
        self.taken += piece.descriptors
        if len(piece.content) > 1:
            self.arriving.appendleft(Piece(piece.content[1:]))
        return piece.descriptors

    def _take(self, size):
        if self.gone:
            raise HungUp("reset", while_writing=True)
        taken = min(size, self.room)
        self.room -= taken
        return taken

    def write(self, view):
        assert not self.ends
        taken = self._take(len(view))
        self.given += view[:taken]
        return taken

    def splice_from(self, pipe, count):
        taken = self._take(count)
        if taken:
            self.given += os.read(pipe, taken)
        return taken

    def give(self, descriptor):
        self.riders.append((len(self.given), descriptor))
        self.given += b"\0"

    def end_write(self):
        self.ends += 1

    def close(self):
        """What is left in it is left."""


@dataclass
class Expected:
    """What the slow parser says of a direction.

    `boundaries`: where in `given` a frame of somebody else may stand. `odd`: it may be ended for
    what it has done so often.
    """

    given: bytearray = field(default_factory=bytearray)
    riders: list = field(default_factory=list)
    boundaries: set = field(default_factory=lambda: {0})
    refused: list = field(default_factory=list)
    complete: bool = True
    broken: bool = False
    odd: bool = False


def parse_slowly(pieces, *, up, carries):
    said, stream, riders, at = Expected(), b"", {}, 0
    for piece in pieces:
        if piece.descriptors:
            riders[len(stream)] = piece.descriptors
        stream += piece.content
    while said.complete and at < len(stream):
        said.complete = False
        due = due_behind(stream, at, up=up, carries=carries)
        if due is None:
            said.broken = True
            break
        length = int.from_bytes(stream[at : at + 4], "big")
        end = at + length if len(stream) - at >= 4 else len(stream)
        unannounced = min((each for each in riders if at <= each < end), default=end)
        refused = up and guarded_header(stream[at : min(at + HEADER_SIZE, unannounced)])
        if not refused:
            said.given += stream[at:unannounced]
        if unannounced < end:
            said.broken = True
            break
        if len(stream) - at < HEADER_SIZE or at + length > len(stream):
            break
        at += length
        behind = [riders.get(each, ()) for each in range(at, min(at + due, len(stream)))]
        came = next((n for n, each in enumerate(behind) if len(each) != 1), len(behind))
        said.broken = came < len(behind)
        for (descriptor,) in [] if refused else behind[:came]:
            said.riders.append((len(said.given), descriptor))
            said.given += b"\0"
        at += came
        if came == due:
            said.complete = True
            said.boundaries.add(len(said.given))
            said.refused += [refused] if refused else []
    said.odd |= len(said.refused) > REFUSALS_LIMIT
    return said


def guarded_header(wire):
    """The header of a call that goes no further, or None."""
    if len(wire) < HEADER_SIZE:
        return None
    header = Header(*HEADER.unpack(wire)[1:6])
    guarded = (header.program, header.procedure) in GUARDS.refusals
    return header if guarded and header.type in CALLS else None


def due_behind(stream, at, *, up, carries):
    """How many descriptors follow the frame that begins there; None if it cannot be."""
    length = int.from_bytes(stream[at : at + 4], "big")
    if len(stream) - at >= 4 and not HEADER_SIZE <= length <= MAX_FRAME:
        return None
    if len(stream) - at < HEADER_SIZE:
        return 0
    carrier = FrameType.CALL_WITH_FDS if up else FrameType.REPLY_WITH_FDS
    if HEADER.unpack_from(stream, at)[4] != carrier:
        return 0
    if length < HEADER_SIZE + 4:
        return None
    counted = stream[at + HEADER_SIZE : at + HEADER_SIZE + 4]
    due = int.from_bytes(counted, "big") if len(counted) == 4 else 0
    return due if due <= MAX_DESCRIPTORS and (carries or not due) else None


class Session:
    def __init__(self, supply):
        shape = supply.byte()
        splices = bool(shape & 4)
        self.client = End(unix=not shape & 1, splices=splices)
        self.daemon = End(unix=not shape & 2, splices=splices)
        self.pair = RelayedPair(
            1,
            self.client,
            self.daemon,
            pipes=PIPES,
            figures=FIGURES,
            now_ns=0,
            readonly=bool(shape & 8),
        )
        self.up, self.down = self.pair.up, self.pair.down
        if splices:
            self.down._splice_above = SPLICED_ABOVE
            if not shape & 8:
                self.up._splice_above = SPLICED_ABOVE
        self.scratch = memoryview(bytearray(SCRATCHES[(shape >> 4) % len(SCRATCHES)]))
        self.serial = self.descriptor = 0
        self.over = False  # a frame that cannot be has ended it

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.pair.close()

    def step(self, supply):
        action = supply.byte()
        end, flow = (self.daemon, self.down) if action & 1 else (self.client, self.up)
        match action >> 1 & 7:
            case 0 | 1:
                self.send_frame(supply, end, up=flow is self.up)
            case 2:
                end.send(Piece(supply.piece(), self.made_up(action >> 4 & 3)))
            case 3:
                end.send(Piece(b"\0", self.made_up(action >> 4 & 3)))
            case 4 | 5:
                self.pump(flow)
            case 6:
                end.room = supply.byte() if action & 16 else EVERYTHING
                self.flush(self.down if end is self.client else self.up)
            case 7 if action & 0xF0 == 0xF0:
                end.gone = True
            case 7:
                self.come_to_rest()

    def send_frame(self, supply, end, *, up):
        shape, self.serial = supply.byte(), self.serial + 1
        kind = supply.byte() % 8
        payload = supply.piece()
        carrier = FrameType.CALL_WITH_FDS if up else FrameType.REPLY_WITH_FDS
        due = shape >> 6 if kind == carrier else 0
        if kind == carrier:
            payload = struct.pack(">I", due) + payload
        if shape & 32:
            payload = payload * 8
        header = HEADER.pack(
            HEADER_SIZE + len(payload),
            PROGRAMS[shape >> 3 & 3],
            1,
            PROCEDURES[(shape & 7) % len(PROCEDURES)],
            kind,
            self.serial,
            shape & 1,
        )
        wire = header + payload
        cut = supply.byte()
        if cut:
            end.send(Piece(wire[:cut]))
            wire = wire[cut:]
        end.send(Piece(wire))
        for _ in range(due):
            end.send(Piece(b"\0", self.made_up(1)))

    def made_up(self, count):
        """Descriptors that no file belongs to."""
        self.descriptor += count
        return tuple(range(self.descriptor - count, self.descriptor))

    def pump(self, flow):
        if self.over or flow.ended or flow.stalled or flow.paused:
            return False
        before = flow.moved, len(flow.src.arriving), flow.ended
        self._do(flow, lambda: flow.pump(self.scratch))
        return before != (flow.moved, len(flow.src.arriving), flow.ended) or flow.stalled

    def flush(self, flow):
        if self.over or not flow.stalled or not flow.dst.room:
            return False
        self._do(flow, flow.flush)
        return True

    def _do(self, flow, step):
        """As the loop does."""
        try:
            step()
        except HungUp:
            flow.give_up()
        except MalformedFrame:
            self._end()
        if flow.wants_courier:
            self._carry(flow)
        assert len(flow._unsent) <= len(self.scratch) + 256 * REFUSALS_LIMIT

    def _end(self):
        self.over = True
        self.pair.close()

    def _carry(self, flow):
        flow.wants_courier = False
        flow.errand = Errand(0, None, lambda _: None)
        assert flow.paused
        assert not flow.stalled
        descriptors = flow.src.take_first_byte()
        if len(descriptors) != 1 or (flow.dst.gone and not flow.refusing):
            self._end()
            return
        if not flow.refusing:
            flow.dst.room -= 1
            flow.dst.give(*descriptors)
        self._do(flow, flow.carried)

    def come_to_rest(self):
        self.client.room = self.daemon.room = EVERYTHING
        moved = True
        while moved and not self.over:
            moved = False
            for flow in (self.up, self.down):
                moved |= self.flush(flow) | self.pump(flow)

    def hang_up(self):
        """The client says that nothing follows, then the daemon does."""
        for end in (self.client, self.daemon):
            end.ended = True
            self.come_to_rest()

    def expected(self, *, up):
        carries = self.up.carries
        return parse_slowly((self.client if up else self.daemon).sent, up=up, carries=carries)

    def judge_at_rest(self):
        up, down = self.expected(up=True), self.expected(up=False)
        if self.over:
            gone = self.client.gone or self.daemon.gone  # and could not take its descriptor
            assert up.broken or up.odd or down.broken or down.odd or gone
            return
        if self.client.gone or self.daemon.gone:
            return
        assert not self.up.stalled
        assert not self.down.stalled
        assert not down.broken
        assert self.down.between_frames is down.complete
        if down.complete:
            assert not up.broken
            assert self.up.between_frames is up.complete
            assert self.refusals_in_what_came_down(down) == up.refused

    def judge_in_the_end(self):
        up, down = self.expected(up=True), self.expected(up=False)
        if self.over:
            # What came in one piece with a broken frame may be lost with it.
            assert is_prefix(self.daemon.given, up.given)
            assert is_prefix(self.daemon.riders, up.riders)
        elif not self.daemon.gone and not self.client.gone:
            assert self.daemon.given == up.given
            assert self.daemon.riders == up.riders
            assert (self.daemon.ends, self.client.ends) == (1, 1)
        assert is_prefix(self.refusals_in_what_came_down(down), up.refused)

    def refusals_in_what_came_down(self, down):
        """Takes the relay's own frames out of what the client got; the rest is as expected."""
        given, refusals = self.client.given, self.expected(up=True).refused
        at, theirs, found, shift = 0, 0, [], []
        while at < len(given):
            own = refusals[len(found)] if len(found) < len(refusals) else None
            wire = own and GUARDS.refusals[own.program, own.procedure].reply_to(own).pack()
            if wire and theirs in down.boundaries and is_refusal(given, at, wire, down, theirs):
                found.append(own)
                shift.append(theirs)
                at += len(wire)
                continue
            if (self.over or self.client.gone) and wire and wire.startswith(given[at:]):
                break  # cut short by the end of the session
            following = min((each for each in down.boundaries if each > theirs), default=EVERYTHING)
            size = min(len(down.given[theirs:following]), len(given) - at)
            assert size, "something came down that nobody sent"
            assert given[at : at + size] == down.given[theirs : theirs + size]
            at, theirs = at + size, theirs + size
        gone = self.client.gone or self.daemon.gone
        assert self.over or gone or theirs == len(down.given) or not self.daemon.ended
        return found

    def judge_descriptors(self):
        """Each is where it was sent, or was taken by an errand, once."""
        for end in (self.client, self.daemon):
            waiting = [each for piece in end.arriving for each in piece.descriptors]
            sent = [each for piece in end.sent for each in piece.descriptors]
            assert end.taken + waiting == sent


def is_refusal(given, at, wire, down, theirs):
    """Whether our own frame stands there and not the same one of the daemon's."""
    return given.startswith(wire, at) and not down.given.startswith(wire, theirs)


def is_prefix(some, whole):
    return some == whole[: len(some)]
