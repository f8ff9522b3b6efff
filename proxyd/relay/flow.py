"""One direction of a session: the path of every byte.

The path, and its budget. A small frame costs one receive and one send, no allocation that
lives longer than the call, and one header unpacked to know where the frame ends:

    pump ── read_into(scratch) ── dst.write ── _count_one       a call or its reply, alone
      ├──── read_into(scratch) ── _walk ── dst.write            other frames, or several at once
      └──── splice_to(pipe) ── splice_from(pipe)                the remainder of a long frame,
                                                                and after it whole long frames:
                                                                reads then stop at a header

The walk keeps the flow's idea of where frames begin equal to the receiver's, byte for byte;
everything that is not plain forwarding hangs on that:

* Descriptors ride on one-byte messages behind a CALL_WITH_FDS (client to daemon) or a
  REPLY_WITH_FDS (the other way). Only that type counts in its direction (`carrier`): a daemon
  takes a REPLY_WITH_FDS from a client for a plain frame, and a flow that did not would stand
  one byte beside the daemon from there on.
* A read ends in front of such a byte. If a frame has announced it, the loop has it carried by
  another process (`errand`) once dst has room for it; this one never has a descriptor of anybody
  else's. One that nobody announced ends the session. The daemon's side takes descriptors from
  the first call on that may be answered with some.
* A frame that is spliced is never read; spans end at its last byte, so the next header is.
* A guarded call of the client's (guards.py) is taken out before its first byte went on, and the
  refusal is inserted into the partner flow where a frame ends. So is a change that has to be
  recorded and cannot be, once it has come whole, and, of who may not do everything, what its
  allowance does not have: at once where the header says that, whole where its flags do. Nothing of
  this is asked of a call that is allowed as it is; and of other programs and numbers nobody knows
  it is asked where the walk leaves its usual path for them in any case.
* A header that has come in parts is held back until it is whole: 31 bytes at most.

On the way up a frame goes on when it is whole, so that a client that dies inside of one leaves
nothing behind; only long stream packets go on as they come, because they can be filled up and the
stream be aborted (parting.py). A call that announces descriptors goes on when the first one is
there, a packet of a stream when the call that opens the stream has its reply (ledger.py).

A flow is `stalled` while its destination has not taken what was received; its source is then
not read, so it never holds more than one scratch buffer or one pipe; beyond that only long calls
are held, and all of one thread's together are bounded. It is `paused` while a
refusal waits in its partner: a client that sends refused calls and reads nothing is not read
either; while a descriptor is carried; while a stream is being opened whose packets are there; and
while more calls were made than the client's pace allows (loop.py).
"""

import os
from struct import Struct
from typing import Final, NoReturn

from proxyd.endpoint.contract import DESCRIPTOR, NOTHING, Endpoint, HungUp
from proxyd.endpoint.errands import Errand
from proxyd.relay.figures import KNOWN, NO_STOPWATCH, DirectionFigures, Stopwatch
from proxyd.relay.guards import (
    GUARDED,
    NOTHING_GUARDED,
    Guards,
    together,
    what_is_forbidden,
)
from proxyd.relay.ledger import LOOKED_AT, Ledger
from proxyd.relay.pipes import Pipe, PipeShare
from proxyd.relay.trail import Trail
from proxyd.wire import failure
from proxyd.wire.frame import (
    HEADER,
    HEADER_SIZE,
    LENGTH_SIZE,
    MAX_DESCRIPTORS,
    MAX_FRAME,
    FrameType,
    Header,
    Status,
    check_length,
)
from proxyd.wire.programs import RETURNING_DESCRIPTORS, STREAMS, Program, Remote
from proxyd.wire.xdr import MalformedFrame

# Below this a copy is cheaper than three calls and a pipe.
SPLICE_ABOVE: Final = 32768
NEVER: Final = 1 << 62
_SMALL: Final = 4096  # what of a long frame is not worth a write of its own; a short read

# Reads that stop at the next header after a long frame. libvirt sends a volume as packets of 256
# KiB that alternate with packets of 24 bytes, so one short frame does not mean that it is over.
# Measured with a download of 256 MiB: without it a quarter of the bytes was copied.
BULK: Final = 8

# Frames of one read beyond which its sender is read in short pieces for a while: 64 KiB of the
# shortest frames are 2,340 of them, and 1.5 ms in which nobody else is served.
_CROWD: Final = 64
_STILL_A_CROWD: Final = 8  # of a short read
SHORT_READS: Final = 16

# What is read at once of a client whose calls are counted by time: 18 of the shortest. What it owes
# then is paid before its daemon, whose questions whether it lives it cannot answer, gives it up.
_PACED: Final = 512

# No client that means well sends one. What came in one piece is refused in one piece, so this
# also bounds the refusals that wait for a client that does not read.
REFUSALS_LIMIT: Final = 100

# Of a frame that goes no further, beyond which nothing is looked for that it is about.
_ABOUT: Final = 4096

# Of a change that is not made, because nobody could say later who has made it.
_UNRECORDED: Final = failure.not_recorded()

_COUNT: Final = Struct(">I")
_COUNTED_HEADER: Final = HEADER_SIZE + _COUNT.size  # with the number of descriptors behind it

# For the path below: enum members cost an attribute look-up and a comparison through IntEnum.
_REMOTE: Final = int(Program.REMOTE)
_unpack: Final = HEADER.unpack_from
_CALL: Final = int(FrameType.CALL)
_CALL_WITH_FDS: Final = int(FrameType.CALL_WITH_FDS)
_REPLIES: Final = (int(FrameType.REPLY), int(FrameType.REPLY_WITH_FDS))
_STREAM: Final = int(FrameType.STREAM)
_OF_STREAMS: Final = (_STREAM, int(FrameType.STREAM_HOLE))
_CLOSE: Final = int(Remote.CONNECT_CLOSE)
_ERROR: Final = int(Status.ERROR)


class Held:
    """A frame on its way up: `missing` bytes of it are to come.

    When none are, it waits for the first of its descriptors.
    """

    __slots__ = ("content", "missing")

    def __init__(self, content: bytearray, missing: int) -> None:
        self.content = content
        self.missing = missing


class Flow:
    """From `src` to `dst`. Only the relay thread touches it; other threads read its figures.

    `calls` counts CALLs on the way up and REPLYs on the way down, `errors` replies that carry
    one, `moved` bytes received, `refusals` guarded calls that were answered here, `denials`
    changes that could not be recorded, and `forbidden` calls that the allowance does not have.
    """

    __slots__ = (
        "_allowed",
        "_bulk",
        "_by_procedure",
        "_bytes",
        "_calling",
        "_carrier",
        "_counted",
        "_crowded",
        "_denied",
        "_dropping",
        "_due",
        "_errors",
        "_frames",
        "_guarded",
        "_guards",
        "_head",
        "_held",
        "_ledger",
        "_left",
        "_lent",
        "_pipe",
        "_piped",
        "_pipes",
        "_refused",
        "_resumes",
        "_rider_waits",
        "_seen",
        "_seen_of",
        "_splice_above",
        "_stopwatch",
        "_trail",
        "_unasked",
        "_unsent",
        "_waits",
        "_whole",
        "broken",
        "calls",
        "carries",
        "changed",
        "denials",
        "done",
        "dst",
        "ended",
        "errand",
        "errors",
        "exhausted",
        "forbidden",
        "inserting",
        "keepalives",
        "last",
        "lost",
        "moved",
        "paced",
        "partner",
        "passes_end",
        "refusals",
        "src",
        "unpaid",
        "wants_courier",
    )

    def __init__(  # noqa: PLR0915 (a line for each attribute)
        self,
        src: Endpoint,
        dst: Endpoint,
        pipes: PipeShare,
        figures: DirectionFigures,
        ledger: Ledger | None = None,
        stopwatch: Stopwatch = NO_STOPWATCH,
    ) -> None:
        self.src = src
        self.dst = dst
        self.partner: Flow | None = None
        self._pipes = pipes
        self._frames = figures.frames
        self._by_procedure = figures.calls
        self._stopwatch = stopwatch
        self._bytes = figures.bytes
        self._errors = figures.errors
        self._splice_above = SPLICE_ABOVE if src.may_splice and dst.may_splice else NEVER
        self._carrier = int(FrameType.REPLY_WITH_FDS)
        self._counted = int(FrameType.REPLY)
        self._guards = NOTHING_GUARDED.refusals
        self._allowed: Guards | None = None  # whose allowance is not everything
        self._ledger = ledger
        self._guarded = NOTHING_GUARDED.procedures if ledger is None else LOOKED_AT
        self._calling = (_CALL, _CALL_WITH_FDS)
        self._left = 0  # bytes of the present frame that are still to come
        self._due = 0  # descriptors that are still to come behind it
        self.carries = src.carries_descriptors and dst.carries_descriptors
        self._unasked = False  # no call has gone up that may be answered with descriptors
        self._rider_waits = False  # one has come, and dst may have no room
        self.wants_courier = False  # and has room
        self.errand: Errand | None = None  # the loop's, while one is carried
        self._whole = False  # a frame goes on when it is whole
        self._head = b""  # a header in parts, or whole frames that wait
        self._held: Held | None = None
        self._seen = 0  # bytes of the frame in `_head` or `_held` that were counted,
        self._seen_of = 0  # and their place in the figures
        self._lent = 0  # bytes that are held beyond one scratch buffer
        self._waits = False  # what is in `_head` belongs to a stream that is being opened
        self._resumes = False  # it may go on now
        self.passes_end = True  # dst is told when nothing more comes
        self._bulk = 0  # how many more reads stop at a header, to find another long frame
        self._crowded = 0  # how many more reads are short ones
        self.paced = False  # all of them are, and the loop hears of each
        self.unpaid = False  # the loop's: there were more calls than its pace allows
        self._dropping = 0  # bytes of a refused frame that are still to come
        self._denied = False  # the frame that comes next is refused, whatever it is
        self._trail: Trail | None = None
        self._refused: Header | None = None
        self.inserting = b""  # a refusal that waits for the end of a frame
        self._unsent = bytearray()
        self._pipe: Pipe | None = None
        self._piped = 0
        self.ended = False  # nothing more comes from src
        self.exhausted = False  # because it has ended, and not because dst takes no more
        self.broken = False  # a write to dst has failed
        self.done = False  # and dst has been given all of it, or takes no more
        self.lost = ""  # why dst took no refusal
        self.last = 0  # REMOTE procedure of the frame that began last
        self.changed = False  # what the loop should watch for may be different now
        self.moved = self.calls = self.errors = self.keepalives = 0
        self.refusals = self.denials = self.forbidden = 0

    def guard(
        self, guards: Guards = GUARDED, *, readonly: bool = False, parts: bool = False
    ) -> None:
        """Makes this the flow from the client: calls go up, and those guarded go no further.

        Who may only read has nothing to send that is worth splicing, and passes no descriptors.
        `parts`: somebody else says to the daemon that nothing follows (parting.py).
        """
        self._whole = True
        self.passes_end = not parts
        if readonly:
            self._splice_above = NEVER
            self.carries = False
        self._unasked = self.carries
        self._carrier = _CALL_WITH_FDS
        self._counted = _CALL
        self.restrict(guards)

    def restrict(self, guards: Guards) -> None:
        """Which calls go no further from the next frame on. After `guard`."""
        self._guards = guards.refusals
        self._allowed = None if guards.allowance is None else guards
        numbers = [guards.procedures]
        if self._ledger is not None:
            numbers.append(LOOKED_AT)
        if self.carries:
            numbers.append(RETURNING_DESCRIPTORS)
        if self._trail is not None:
            numbers.append(self._trail.procedures)
        self._guarded = together(*numbers)

    def pace(self, *, paced: bool) -> None:
        """Whether the loop counts calls by time, from the next read on."""
        self.paced = paced
        if paced:
            self._crowded = SHORT_READS
        elif self.unpaid:
            self.unpaid, self.changed = False, True

    def record(self, trail: Trail | None) -> None:
        """How calls are recorded from the next frame on. After `guard`."""
        self._trail = trail
        if trail is not None:
            self._guarded = together(self._guarded, trail.procedures)

    def pump(self, scratch: memoryview) -> None:
        """Takes once from src, which is readable. Raises HungUp and MalformedFrame.

        Only for a flow that is neither stalled, paused nor ended: the loop sees to that.
        `scratch` belongs to the thread; nothing of it is kept but what dst did not take.
        """
        if self._left > self._splice_above and self._splice():
            return
        if (
            self._head
            or self._bulk
            or self.inserting
            or self._dropping
            or self._crowded
            or self._held
        ):
            self._pump_special(scratch)
            return
        got = self.src.read_into(scratch)
        if got >= HEADER_SIZE and not (self._left or self._due):
            length, program, _, procedure, kind, serial, status = _unpack(scratch)
            if (
                length == got
                and kind == self._counted
                and program == _REMOTE
                and 0 < procedure < KNOWN
                and procedure not in self._guarded
            ):
                # Nearly every frame: a call or its reply, alone. Somebody waits for it: it goes on
                # before it is counted (docs/performance.md, "At the limit: warm and cold turns").
                view = scratch[:got]
                try:
                    sent = self.dst.write(view)
                finally:  # a reply that nobody takes any more has come all the same
                    self._count_one(got, procedure, serial, status)
                if sent != got:
                    self._keep(view[sent:])
                return
        if got > 0:
            self.moved += got
            cut = self._walk(scratch, got)
            view = scratch[:got]
            if cut == got:
                long = self._left > self._splice_above and got <= _SMALL
                if not (long and self._splice(view)):
                    sent = self.dst.write(view)
                    if sent != got:
                        self._keep(view[sent:])
            else:
                self._sort_out(view, cut)
        else:
            self._got_no_bytes(got)

    def _count_one(self, size: int, procedure: int, serial: int, status: int) -> None:
        """What `_walk` does of a small call or reply."""
        self.moved += size
        self._frames[procedure] += 1
        self._bytes[procedure] += size
        self.calls += 1
        self._by_procedure[procedure] += 1
        self.last = procedure
        if self._whole:
            if self._stopwatch.serial < 0:
                self._stopwatch.start(serial, procedure)
        elif serial == self._stopwatch.serial:
            self._stopwatch.stop()
        if status == _ERROR:
            self.errors += 1
            self._errors[procedure] += 1

    def _pump_special(self, scratch: memoryview) -> None:
        """A pump while something is held back, about to be inserted or being taken out, and each
        one of a client whose calls are counted by time."""
        if self.paced:
            self.changed = True
        if self._held is not None and not self._unpack_held(self._held, scratch):
            self._pump_held(self._held, scratch)
            return
        held = len(self._head)
        got = self._read_special(scratch, held)
        if got > 0:
            self.moved += got
            view = scratch[: held + got]
            self._count_anew()
            cut = 0 if self._dropping else self._walk(view, len(view))
            long = cut == len(view) <= _SMALL and self._left > self._splice_above
            if not (long and self._splice(view)):
                self._sort_out(view, cut)
            if self.inserting:
                self._insert_now()
        else:
            self._got_no_bytes(got)

    def _got_no_bytes(self, got: int) -> None:
        if got == DESCRIPTOR:
            self._meet_descriptor()
        elif got != NOTHING:
            self.end()
        elif self.src.reads_when_writable:
            self.changed = True

    @property
    def stalled(self) -> bool:
        """dst has to become writable before anything else happens."""
        return bool(self._unsent) or self._piped > 0 or self._rider_waits or self._resumes

    @property
    def waits(self) -> bool:
        """What src has sent belongs to a stream that is being opened."""
        return self._waits

    @property
    def missing(self) -> int:
        """Bytes that have still to come of the frame whose beginning dst was given."""
        return self._left

    @property
    def owes_descriptors(self) -> bool:
        """dst waits for descriptors behind a frame that it was given."""
        return bool(self._due) and self._refused is None and self._held is None

    def discarding(self, dst: Endpoint, figures: DirectionFigures) -> "Flow":
        """Another flow, which goes on where this one stands, for nobody."""
        other = Flow(self.src, dst, self._pipes, figures, self._ledger)
        other._left, other._head, other._due = self._left, self._head, self._due
        other.last, other.calls, other.carries = self.last, self.calls, self.carries
        other.record(self._trail)
        return other

    def give(self, wire: bytes | memoryview) -> None:
        """Bytes of our own, behind all that src has sent. Raises HungUp."""
        self._give(memoryview(wire))

    def fill_up(self, zeros: memoryview) -> None:
        """Gives zeros in place of the next bytes that are `missing`. Raises HungUp."""
        zeros = zeros[: self._left]
        self._left -= len(zeros)
        self._give(zeros)

    @property
    def in_frame(self) -> bool:
        """A frame has begun and is not over; the packets of streams do not count."""
        return bool(self._due or (self._left and self.last not in STREAMS))

    @property
    def between_frames(self) -> bool:
        """Whatever began has been given on whole."""
        return not (
            self._left
            or self._head
            or self._held
            or self._due
            or self._dropping
            or self.inserting
            or self.stalled
        )

    @property
    def paused(self) -> bool:
        """A refusal that it caused has not found its place yet, a descriptor is carried, a stream
        is being opened, or its calls are paid for with time."""
        if self.wants_courier or self.errand is not None or self._waits or self.unpaid:
            return True
        return self.partner is not None and bool(self.partner.inserting)

    def flush(self) -> None:
        """Gives dst, which is writable, what it did not take before. Raises HungUp."""
        if self._piped and not self._drain():
            return
        if self._unsent:
            with memoryview(self._unsent) as unsent:
                sent = self.dst.write(unsent)
            del self._unsent[:sent]
            if self._unsent:
                return
        self._give_back_memory()
        if self._resumes:
            self._resume()
            if self.stalled:
                return
        if self._rider_waits:
            self._rider_waits = False
            self.wants_courier = self.changed = True
        if self.inserting:
            self._insert_now()
        if self.ended:
            self.end()

    def end(self) -> None:
        """Nothing more comes from src: dst is told so once it has everything."""
        self.changed = self.exhausted = True
        if not self.ended:
            self.ended = True
            if self._left or self._due:
                self._insert_nothing()  # the frame that it waited for never ends
            if self.passes_end:
                self._give_the_beginning()
            self._hold_nothing()
        if not self.stalled and not self.done:
            self.done = True
            if self.passes_end:
                self.dst.end_write()

    def _give_the_beginning(self) -> None:
        """Of a frame that is never going to be whole."""
        beginning = self._head or (b"" if self._held is None else self._held.content)
        if beginning and self._may_begin(memoryview(beginning)):
            self._give(memoryview(beginning))

    def _may_begin(self, view: memoryview) -> bool:
        """Of who may not do everything nothing goes on that could be a call it cannot make."""
        if self._is_guarded(view):
            return False
        if self._allowed is None:
            return True
        if len(view) < HEADER_SIZE or self._waits or self._resumes:
            return False
        _, program, _, procedure, _, _, _ = _unpack(view)
        return not self._allowed.looks_at_flags(program, procedure)

    def _hold_nothing(self) -> None:
        self._head, self._waits, self._resumes = b"", False, False
        if self._held is not None:
            if not self._held.missing:
                self._due = 0  # it has not begun
            self._held = None
        self._give_back_memory()

    def _give_back_memory(self) -> None:
        """Once nothing is held that was borrowed for."""
        if self._lent and not (self._unsent or self._held or self._waits):
            self._pipes.take_back(self._lent)
            self._lent = 0

    def give_up(self) -> None:
        """dst takes nothing any more: what it was not given is gone, and src is not read."""
        self.changed = self.ended = self.done = True
        # Not clear(): whoever failed to write may still hold a view of it.
        self._unsent = bytearray()
        self._hold_nothing()
        self._insert_nothing()
        self._rider_waits = self.wants_courier = False
        if self.errand is not None:
            self.errand.cancel()
            self.errand = None
        if self._pipe is not None:
            self._pipes.throw_away(self._pipe)  # it is not empty
            self._pipe = None
        self._piped = 0

    def break_off(self) -> None:
        """A write has failed: gives up, and tells dst that nothing follows.

        Nearly always nobody is there to be told. But the kernel may have been short of memory, and
        then dst would wait for the rest for ever, and so would whoever waits for its answer.
        """
        self.broken = True
        self.give_up()
        self.dst.end_write()

    def _walk(self, view: memoryview, got: int) -> int:  # noqa: C901, PLR0912 (calls would cost a tenth)
        """Follows the frames through `got` bytes; returns how many are plain to forward.

        Bytes are counted as they come: what a header announces may never follow it.
        """
        at = self._left
        if at:
            if at >= got:
                self._left = at - got
                self._bytes[self.last] += got
                return got
            self._bytes[self.last] += at
            self._left = 0
        guarded, begun = self._guarded, 0
        whole_by = got if self._whole else NEVER
        while at + HEADER_SIZE <= got and not self._due:
            length, program, _, procedure, kind, serial, status = _unpack(view, at)
            if not HEADER_SIZE <= length <= MAX_FRAME:
                return at  # what came in front of it still goes on
            if at + length > whole_by and (kind != _STREAM or length <= SPLICE_ABOVE):
                break
            if kind == self._carrier and not self._announces(view[:got], at, length):
                return at
            if procedure in guarded and self._stops(view[at : min(at + length, got)]):
                return at
            if program == _REMOTE and 0 < procedure < KNOWN:
                known = procedure
            else:
                if self._allowed is not None and self._forbids(view[at:got]):
                    return at
                known = self._unknown(program)
            self._frames[known] += 1
            if kind == self._counted or kind == self._carrier:  # noqa: PLR1714 (a third faster)
                self.calls += 1
                self._by_procedure[known] += 1
                if self._whole:
                    if self._stopwatch.serial < 0:
                        self._stopwatch.start(serial, known)
                elif serial == self._stopwatch.serial:
                    self._stopwatch.stop()
                if status == _ERROR:
                    self.errors += 1
                    self._errors[known] += 1
            self.last = known
            at += length
            begun += 1
            if at >= got:
                self._left = at - got
                self._bytes[known] += length - self._left
                break
            self._bytes[known] += length
        if begun > _STILL_A_CROWD and (self._crowded or begun > _CROWD):
            self._crowded = SHORT_READS
        return min(at, got)

    def _sort_out(self, view: memoryview, cut: int) -> None:
        """Forwards the first `cut` bytes and goes on behind them with what is not plain."""
        rounds = 0
        while True:
            if cut:
                self._give(view[:cut])
                view = view[cut:]
            if view:
                view = self._take_special(view)
            while self._dropping and view:
                view = self._drop(view)
            if not view:
                return
            rounds += 1
            if rounds > _CROWD:
                self._put_off(view)
                return
            cut = self._walk(view, len(view))

    def _put_off(self, view: memoryview) -> None:
        """What is behind so many refusals waits until their caller has got them, or for a turn."""
        self._head = bytes(view)
        if self.partner is not None and self.partner.inserting:
            self._waits = True
        else:
            self._resumes = True
        self.changed = True

    def _give(self, view: memoryview) -> None:
        """Writes to dst; keeps what it does not take, behind what it has not taken before."""
        if not self.stalled:
            view = view[self.dst.write(view) :]
        if view:
            self._keep(view)

    def _keep(self, view: memoryview) -> None:
        self._unsent += view
        self.changed = True

    def _read_special(self, scratch: memoryview, held: int) -> int:
        """A read behind a held header, of a header only, or up to the end of a frame."""
        scratch[:held] = self._head
        limit = len(scratch) - held
        if self._bulk:
            # The rest of this frame and the next header: behind it there may be another long one.
            limit = min(limit, self._left + HEADER_SIZE)
            self._bulk -= 1
        if self.paced:
            limit = min(limit, _PACED)
        elif self._crowded:
            limit = min(limit, _SMALL)
            self._crowded -= 1
        if self.inserting and self._left:
            limit = min(limit, self._left)  # a refusal waits for this frame to end
        got = self.src.read_into(scratch[held : held + limit])
        if got > 0:
            self._head = b""
        return got

    def _take_special(self, view: memoryview) -> memoryview:
        """`view` begins with what does not go straight on; returns what lies behind that."""
        if self._dropping:
            return self._drop(view)
        if self._due:
            raise MalformedFrame("a descriptor is missing behind its frame")
        if len(view) >= LENGTH_SIZE:
            check_length(int(_COUNT.unpack_from(view)[0]))
        if self._denied or self._is_guarded(view):
            length, program, version, procedure, kind, serial, _ = HEADER.unpack_from(view)
            header = Header(program, version, procedure, kind, serial)
            enough = len(view) >= min(length, _ABOUT) or not self._is_told_of(header)
            if enough and (kind != _CALL_WITH_FDS or self._expect_descriptors(view, length)):
                self._take_out(header, view[:length])
                self._dropping = length
                return view
        elif len(view) >= HEADER_SIZE:
            return self._hold(view)
        self._head = bytes(view)
        return view[:0]

    def _hold(self, view: memoryview) -> memoryview:
        """Keeps a frame that does not go on now; returns what lies behind it."""
        length, program, _, procedure, kind, serial, _ = HEADER.unpack_from(view)
        due = self._announced(view, 0, length) if kind == self._carrier else 0
        if not self._whole:
            self._head = bytes(view)  # the number of its descriptors is missing
        elif length > len(view):
            self._hold_part(view, length, program, procedure)
        elif due:
            self._await_rider(view[:length], due)
            return view[length:]
        else:
            self._hold_whole(view, kind, procedure, serial)
        return view[:0]

    def _is_guarded(self, view: memoryview) -> bool:
        """Whether `view` begins with a header of a call that goes no further."""
        if len(view) < HEADER_SIZE:
            return False
        _, program, _, procedure, kind, _, _ = HEADER.unpack_from(view)
        if kind in self._calling and (program, procedure) in self._guards:
            return True
        return self._allowed is not None and self._forbids(view)

    def _forbids(self, view: memoryview) -> bool:
        """Whether `view` begins with a header, or where that says too little with a frame, that
        the allowance does not have. A stream goes on that was open when this was another one."""
        allowed = self._allowed
        if allowed is None:
            return False
        length, program, _, procedure, kind, serial, _ = _unpack(view)
        if allowed.forbids(program, procedure, kind):
            streams = None if self._ledger is None else self._ledger.streams
            if not streams or kind not in _OF_STREAMS or program != _REMOTE:
                return True
            return (procedure, serial) not in streams
        return len(view) >= length and allowed.forbids_flags(view[:length])

    def _take_out(self, header: Header, frame: memoryview) -> None:
        """The frame, of which so much is there, goes no further."""
        self._refused = header
        if self._trail is not None and self._is_told_of(header):
            self._trail.refused(header, frame)

    def _is_told_of(self, header: Header) -> bool:
        """Whether the trail should know what a call that goes no further was about."""
        told = self._trail is not None and not self._denied and header.type in self._calling
        return told and self._is_forbidden(header)

    def _is_forbidden(self, header: Header) -> bool:
        """Whether a call that goes no further is one that others may make."""
        guarded = (header.program, header.procedure) in self._guards
        return not (guarded and header.type in self._calling)

    def _hold_part(self, view: memoryview, length: int, program: int, procedure: int) -> None:
        """Keeps the beginning of a frame until the rest is there."""
        self._seen = len(view)
        self._seen_of = procedure if program == _REMOTE and 0 < procedure < KNOWN else 0
        self._bytes[self._seen_of] += self._seen
        self._frames[self._seen_of] += 1
        self._borrow(len(view), length)
        self._held = Held(bytearray(view), length - len(view))

    def _borrow(self, count: int, length: int) -> None:
        if length <= SPLICE_ABOVE:
            return
        if not self._pipes.lend(count):
            raise MalformedFrame(
                f"no memory is left to hold a call of {length} bytes until it is whole"
            )
        self._lent += count

    def _unpack_held(self, held: Held, scratch: memoryview) -> bool:
        """A short frame is held like a header, for one read to bring its rest and what follows."""
        if not held.missing or len(held.content) + held.missing > min(SPLICE_ABOVE, len(scratch)):
            return False
        self._head, self._held = bytes(held.content), None
        return True

    def _pump_held(self, held: Held, scratch: memoryview) -> None:
        got = self.src.read_into(scratch[: min(held.missing, len(scratch)) or 1])
        if got <= 0:
            self._got_no_bytes(got)
            return
        self.moved += got
        if not held.missing:
            raise MalformedFrame("a descriptor is missing behind its frame")
        self._borrow(got, len(held.content) + held.missing)
        held.content += scratch[:got]
        held.missing -= got
        self._seen += got
        self._bytes[self._seen_of] += got
        if not held.missing:
            self._held = None
            self._count_anew()
            self._give_held(held.content)

    def _give_held(self, content: bytearray) -> None:
        """What was held is whole now, or its first descriptor is there."""
        with memoryview(content) as view:
            if not self._walk(view, len(view)):
                self._sort_out(view, 0)  # held for another reason, or refused
                self._give_back_memory()
                return
            sent = self.dst.write(view)
        if sent < len(content):
            del content[:sent]
            self._unsent = content
            self.changed = True
        self._give_back_memory()

    def _count_anew(self) -> None:
        """The walk is about to see a frame from its beginning whose bytes were counted."""
        if self._seen:
            self._bytes[self._seen_of] -= self._seen
            self._frames[self._seen_of] -= 1
            self._seen = 0

    def _await_rider(self, view: memoryview, due: int) -> None:
        """A call that announces descriptors goes on when the first one is there."""
        self._due = due
        self._held = Held(bytearray(view), 0)
        self._bytes[self._place(view)] += len(view)

    def _board(self, held: Held) -> None:
        """The first descriptor is there: its call goes on, and then the descriptor."""
        self._held = None
        with memoryview(held.content) as view:
            _, program, version, procedure, kind, serial, _ = HEADER.unpack_from(view)
            if (procedure in self._guarded and self._stops(view)) or self._is_guarded(view):
                if not (self._denied or self._is_guarded(view)):
                    self._ledger_says_why(kind, procedure, serial)
                self._take_out(Header(program, version, procedure, kind, serial), view)
                self._bytes[self._place(view)] -= len(view)
                self._give_back_memory()
                return
            self.last = self._place(view)
            self._frames[self.last] += 1
            self._by_procedure[self.last] += 1
            self.calls += 1
            self._give(view)
        self._give_back_memory()

    def _ledger_says_why(self, kind: int, procedure: int, serial: int) -> NoReturn:
        if self._ledger is not None:
            self._ledger.check(kind, procedure, serial)
        raise MalformedFrame("descriptors with a call that takes none")

    def _place(self, view: memoryview) -> int:
        """Of a frame, in the figures."""
        _, program, _, procedure, _, _, _ = HEADER.unpack_from(view)
        if program == _REMOTE and 0 < procedure < KNOWN:
            return int(procedure)
        return self._unknown(program)

    def _hold_whole(self, view: memoryview, kind: int, procedure: int, serial: int) -> None:
        """A frame that would harm a daemon if it went on now."""
        assert self._ledger is not None
        self._ledger.check(kind, procedure, serial)
        if kind in self._calling:
            # CONNECT_CLOSE beside an open stream: as good as the client's end, which parts.
            self.end()
            return
        self._head = bytes(view)
        self._waits = self.changed = True

    def resume(self) -> None:
        """A stream has been opened, or has not: its packets may go on, and what came behind."""
        if self._waits:
            self._waits, self._resumes, self.changed = False, True, True

    def _resume(self) -> None:
        self._resumes = False
        head, self._head = self._head, b""
        view = memoryview(head)
        self._sort_out(view, self._walk(view, len(view)))
        self.changed = True
        self._give_back_memory()

    def _stops(self, frame: memoryview) -> bool:
        """A closer look at a frame whose number stands out: whether it does not go on now.

        `frame` is as much of it as is there: on the way up all, but for long packets of streams.
        """
        length, program, version, procedure, kind, serial, status = _unpack(frame)
        calls, trail = kind in self._calling, self._trail
        if calls and (program, procedure) in self._guards:
            return True
        allowed = self._allowed
        if (
            allowed is not None
            and (program, procedure) not in allowed.plain
            and self._forbids(frame)
        ):
            return True
        if trail is None or not (calls if self._whole else kind in _REPLIES):
            return self._stops_by_itself(program, procedure, kind, serial, status)
        header = Header(program, version, procedure, kind, serial, status)
        if not self._whole:
            if trail.waits_for(header, length, len(frame)):
                return True
            trail.came_down(header, frame)
            return self._stops_by_itself(program, procedure, kind, serial, status)
        if trail.refuses(program, procedure):
            self._denied = True
            trail.refused(header, frame)
            return True
        if self._stops_by_itself(program, procedure, kind, serial, status):
            return True
        trail.goes_up(header, frame)
        return False

    def _stops_by_itself(
        self, program: int, procedure: int, kind: int, serial: int, status: int
    ) -> bool:
        """The same, where nobody records it: of a stream each packet comes by here."""
        if program != _REMOTE:
            return False
        if procedure not in LOOKED_AT:
            if self._unasked and kind in self._calling and procedure in RETURNING_DESCRIPTORS:
                self._ask_for_descriptors()
            return False
        if self._ledger is None:
            return False
        if self._whole:
            if self.passes_end and procedure == _CLOSE:
                return False
            return not self._ledger.goes_up(kind, procedure, serial)
        down = self._ledger.came_down(kind, procedure, serial, status)
        if down and self.partner is not None:
            self.partner.resume()
        return False

    def _unknown(self, program: int) -> int:
        """The place in the figures of all that has none of its own. It may ask for descriptors."""
        if program == Program.KEEPALIVE:
            self.keepalives += 1
        elif self._unasked:
            self._ask_for_descriptors()
        return 0

    def _ask_for_descriptors(self) -> None:
        self._unasked = False
        self.dst.take_descriptors()

    def _announces(self, view: memoryview, at: int, length: int) -> bool:
        """Learns how many descriptors follow; False where the frame does not simply go on."""
        try:
            due = self._announced(view, at, length)
        except MalformedFrame:
            return False  # said once what came in front of it has gone on
        if due is None or (due and self._whole):
            return False
        self._due = due
        return True

    def _expect_descriptors(self, view: memoryview, length: int) -> bool:
        """Likewise, of a call that is refused."""
        due = self._announced(view, 0, length)
        self._due = due or 0
        return due is not None

    def _announced(self, view: memoryview, at: int, length: int) -> int | None:
        """How many descriptors a frame announces; None when the count itself has not come yet."""
        if length < _COUNTED_HEADER:
            raise MalformedFrame("a frame with descriptors that does not count them")
        if at + _COUNTED_HEADER > len(view):
            return None
        due = int(_COUNT.unpack_from(view, at + HEADER_SIZE)[0])
        if due > MAX_DESCRIPTORS:
            raise MalformedFrame(f"{due} descriptors in a frame, {MAX_DESCRIPTORS} are allowed")
        if due and not self.carries:
            raise MalformedFrame("descriptors where none are carried")
        return due

    def _meet_descriptor(self) -> None:
        """One rides on the next byte of src, which stays there until somebody carries it."""
        # Its frame has not come whole.
        within = bool(self._left or self._dropping)
        within |= self._held is not None and self._held.missing > 0
        if not self._due or within or not self.carries:
            raise MalformedFrame("a descriptor that no frame announced")
        self.changed = True
        if self._held is not None:
            self._board(self._held)
        if self._refused is None:
            self._rider_waits = True
        else:
            self.wants_courier = True  # it goes nowhere, for which there is always room

    @property
    def refusing(self) -> bool:
        """What comes now belongs to a call that goes no further."""
        return self._refused is not None

    def carried(self) -> None:
        """The errand is done: the descriptor and its byte have gone where they belong."""
        self.errand = None
        self.changed = True
        self.moved += 1
        self._due -= 1
        if self._refused is not None and not self._due:
            self._refuse()
        elif self.inserting:
            self._insert_now()

    def _drop(self, view: memoryview) -> memoryview:
        """Takes out the bytes of a refused frame."""
        dropped = min(self._dropping, len(view))
        self._dropping -= dropped
        if not self._dropping and not self._due:
            self._refuse()
        return view[dropped:]

    def _refuse(self) -> None:
        """A refused frame is gone whole: its caller gets the error in the other direction."""
        refused, self._refused = self._refused, None
        denied, self._denied = self._denied, False
        self.changed = True
        if refused is None:
            return
        if denied:
            self.denials += 1
            said = _UNRECORDED
        elif self._is_forbidden(refused):
            self._crowded = SHORT_READS
            if refused.type not in self._calling:
                return  # nobody waits for an answer, and a daemon would not give one either
            self.forbidden += 1
            key = refused.program, refused.procedure
            by_flags = self._allowed is not None and self._allowed.looks_at_flags(*key)
            said = what_is_forbidden(*key, by_flags=by_flags)
        else:
            self.refusals += 1
            if self.refusals > REFUSALS_LIMIT:
                raise MalformedFrame("calls that are refused, again and again")
            if self._trail is not None:
                self._trail.refused(refused)
            said = self._guards[refused.program, refused.procedure]
        if self.partner is not None:
            self.partner.insert(said.reply_to(refused).pack())

    def insert(self, wire: bytes) -> None:
        """Puts a frame of our own between two frames of this flow, as soon as one ends."""
        if self.done or self.ended:
            return  # whoever would read it has gone, or was told that nothing follows
        # Calls that came in one piece with the first are refused before this flow moves on.
        self.inserting += wire
        try:
            self._insert_now()
        except HungUp as hung_up:
            # Whoever made the call reads no more. That ends this flow, not the one that carried
            # the call: what was sent behind it is still for the daemon.
            self.lost = hung_up.reason
            self.break_off()

    def _insert_now(self) -> None:
        if not (self._left or self._due or self.stalled):
            wire = self.inserting
            self._insert_nothing()
            self.changed = True
            self._give(memoryview(wire))

    def _insert_nothing(self) -> None:
        """Nothing waits any more for its place; whoever waits for that may go on."""
        if self.inserting:
            self.inserting = b""
            if self.partner is not None:
                self.partner.resume()

    def _splice(self, first: memoryview | None = None) -> bool:
        """Moves more of a long frame past user space; False when it has to be read after all.

        `first` is what was read of it: it goes through the pipe as well, so that the other side
        is woken once for header and payload.
        """
        pipe = self._pipe or self._pipes.take()
        if pipe is None:
            return False
        self._pipe = pipe
        if first is not None and not self._piped_first(pipe, first):
            return False
        got = self.src.splice_to(pipe.write, min(self._left, pipe.size - self._piped))
        if got > 0:
            self.moved += got
            self._bytes[self.last] += got
            self._left -= got
            self._piped += got
            self._bulk = BULK
        elif not self._piped:
            # The end, or urgent data of a TCP peer, at which a splice stops for ever: reading
            # tells.
            self._pipes.give_back(pipe)
            self._pipe = None
            return False
        if self._drain() and self.inserting:
            self._insert_now()
        return True

    def _piped_first(self, pipe: Pipe, first: memoryview) -> bool:
        """The pipe is empty and `first` is small: all of it goes in, or none without memory."""
        try:
            self._piped = os.write(pipe.write, first)
        except OSError:
            self._pipes.give_back(pipe)
            self._pipe = None
            return False
        return True

    def _drain(self) -> bool:
        """Moves the pipe's bytes on; True when it is empty, and then it goes back to the pool."""
        pipe = self._pipe
        if pipe is None:
            return True
        self._piped -= self.dst.splice_from(pipe.read, self._piped)
        if self._piped:
            self.changed = True
            return False
        self._pipes.give_back(pipe)
        self._pipe = None
        return True
