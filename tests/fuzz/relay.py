"""The relay's two flows against a parser that sees each direction whole.

Any bytes go in at both ends, in any cuts, with and without descriptors, while both ends take as
much as they like. What each side was given has to be what the slow parser says; when a frame
cannot be, a part of it. Every descriptor is closed or passed on, and none of them twice.

The ends are in memory, and descriptors are numbers without a file. Pipes are real.
"""

import os
import struct
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field

from proxyd.endpoint.contract import NOTHING, HungUp
from proxyd.relay import flow as module
from proxyd.relay.figures import Figures
from proxyd.relay.flow import REFUSALS_LIMIT
from proxyd.relay.pair import RelayedPair
from proxyd.relay.pipes import PipePool
from proxyd.wire import failure
from proxyd.wire.frame import HEADER, HEADER_SIZE, MAX_DESCRIPTORS, MAX_FRAME, FrameType, Header
from proxyd.wire.programs import Program, Remote
from proxyd.wire.xdr import MalformedFrame
from tests.fuzz.supply import Supply

CALLS = {FrameType.CALL, FrameType.CALL_WITH_FDS}
PROCEDURES = (6, 209, int(Remote.CONNECT_SET_IDENTITY), 0, 454)
PROGRAMS = (Program.REMOTE, Program.REMOTE, Program.REMOTE, Program.QEMU)
SCRATCHES = (64, 300, 65536)
SPLICED_ABOVE = 64  # for short inputs to get there
EVERYTHING = 1 << 30
FIGURES, PIPES = Figures(), PipePool()
GUARDED = b"\x20\0\x80\x86\0\0\0\1\0\0\1\xa3"
WORDS = (
    b"\0\0\0\x1c" + GUARDED + b"\0\0\0\0" + bytes(8),
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
        self.descriptors = []
        self.closed_by_kernel = []
        self.ended = self.gone = False
        self.ends = 0

    def send(self, piece):
        if piece.content and not self.ended:
            self.sent.append(piece)
            self.arriving.append(piece)

    def _next(self, size):
        """As the kernel does: a read ends behind what a descriptor rode on."""
        content, descriptors = b"", ()
        while self.arriving and len(content) < size and not descriptors:
            piece = self.arriving.popleft()
            part = piece.content[: size - len(content)]
            content, descriptors = content + part, piece.descriptors
            if len(part) < len(piece.content):
                self.arriving.appendleft(Piece(piece.content[len(part) :]))
        return content, descriptors

    def read_into(self, view):
        assert not self.descriptors
        if not self.arriving:
            return 0 if self.ended else NOTHING
        content, descriptors = self._next(len(view))
        view[: len(content)] = content
        self.descriptors = list(descriptors)
        return len(content)

    def splice_to(self, pipe, count):
        if not self.arriving:
            return 0 if self.ended else NOTHING
        content, descriptors = self._next(count)
        self.closed_by_kernel += descriptors
        assert os.write(pipe, content) == len(content)
        return len(content)

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

    def write_descriptor(self, descriptor):
        if not self._take(1):
            return False
        self.riders.append((len(self.given), descriptor))
        self.given += b"\0"
        return True

    def drop_descriptors(self):
        self.closed_by_kernel += self.descriptors
        self.descriptors = []

    def end_write(self):
        self.ends += 1

    def close(self):
        self.drop_descriptors()


@dataclass
class Expected:
    """What the slow parser says of a direction.

    `boundaries`: where in `given` a frame of somebody else may stand. `odd`: a descriptor came in
    a way that libvirt never sends it and its daemons may or may not take.
    """

    given: bytearray = field(default_factory=bytearray)
    riders: list = field(default_factory=list)
    boundaries: set = field(default_factory=lambda: {0})
    refused: list = field(default_factory=list)
    complete: bool = True
    broken: bool = False
    odd: bool = False


def parse_slowly(pieces, *, up, carries):
    said, stream, riders, alone, at = Expected(), b"", {}, set(), 0
    for piece in pieces:
        if piece.descriptors:
            riders[len(stream)] = piece.descriptors
            if len(piece.content) == 1:
                alone.add(len(stream))
        stream += piece.content
    while said.complete and at < len(stream):
        said.complete = False
        due = due_behind(stream, at, up=up, carries=carries)
        if due is None:
            said.broken = True
            break
        length = int.from_bytes(stream[at : at + 4], "big")
        refused = up and guarded_header(stream[at : at + HEADER_SIZE])
        if not refused:
            said.given += stream[at : at + length] if len(stream) - at >= 4 else stream[at:]
        if len(stream) - at < HEADER_SIZE or at + length > len(stream):
            break
        at += length
        behind = [riders.get(each, ()) for each in range(at, min(at + due, len(stream)))]
        came = next((n for n, each in enumerate(behind) if len(each) != 1), len(behind))
        said.broken = came < len(behind)
        said.odd |= any(each not in alone for each in range(at, at + came))
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
    is_call = header.program == Program.REMOTE and header.type in CALLS
    return header if is_call and header.procedure == Remote.CONNECT_SET_IDENTITY else None


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
        self.closed = []

    def __enter__(self):
        self._module = watched_disposal(self.closed)
        self._module.__enter__()
        return self

    def __exit__(self, *exception):
        try:
            self.pair.close()
        finally:
            self._module.__exit__(*exception)

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
        return before != (flow.moved, len(flow.src.arriving), flow.ended)

    def flush(self, flow):
        if self.over or not flow.stalled:
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
            self.over = True
            self.pair.close()
        assert len(flow._unsent) <= len(self.scratch) + 256 * REFUSALS_LIMIT

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
        carries = self.client.carries_descriptors and self.daemon.carries_descriptors
        return parse_slowly((self.client if up else self.daemon).sent, up=up, carries=carries)

    def judge_at_rest(self):
        up, down = self.expected(up=True), self.expected(up=False)
        if self.over:
            assert up.broken or up.odd or down.broken or down.odd
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
            wire = own and failure.identity_is_fixed().reply_to(own).pack()
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
        """Each that arrived has been closed once, by whomever."""
        ours = self.closed + self.client.closed_by_kernel + self.daemon.closed_by_kernel
        waiting = [
            each
            for end in (self.client, self.daemon)
            for piece in end.arriving
            for each in piece.descriptors
        ]
        sent = [
            each
            for end in (self.client, self.daemon)
            for piece in end.sent
            for each in piece.descriptors
        ]
        assert sorted(ours + waiting) == sorted(sent)


def is_refusal(given, at, wire, down, theirs):
    """Whether our own frame stands there and not the same one of the daemon's."""
    return given.startswith(wire, at) and not down.given.startswith(wire, theirs)


def is_prefix(some, whole):
    return some == whole[: len(some)]


@contextmanager
def watched_disposal(closed):
    """Descriptors are numbers here, which nobody can close."""
    before = module.close_delivered, module.close_refused
    module.close_delivered = module.close_refused = closed.append
    try:
        yield
    finally:
        module.close_delivered, module.close_refused = before
