"""The calls of one session that are recorded: those under way, and what came of each.

The flow up tells of a call when it goes on, whole, the flow down of its reply, and each call is one
record then. The object that a call is about is copied out of its first argument, or out of the
reply of one that has made it; of other arguments nothing is read. Formatting and writing are
somebody else's work, in another thread: here a record is put down and no more.

Only numbers in `procedures` are looked at, so a read costs nothing where changes are recorded.
Whatever this table of procedures does not know counts as a change.
"""

import time
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from proxyd.wire.changes import CHANGES, NAMED
from proxyd.wire.frame import HEADER_SIZE, FrameType, Header, Status
from proxyd.wire.names import NAMES
from proxyd.wire.objects import Named, Where, named

_NUMBERS: Final = frozenset(range(1024))  # twice as many as libvirt has by now
_UNKNOWN: Final = _NUMBERS - frozenset(range(max(map(len, NAMES.values()))))
_CHANGING: Final = _UNKNOWN.union(*CHANGES.values())

# Of one session. A daemon takes five at a time, and who sends ahead has few more; of a call beyond
# that nobody learns how it ended.
MOST_UNDER_WAY: Final = 1024

# Bytes of a reply within which the object that was made is looked for.
REPLY_KEPT: Final = 4096

_COUNT_SIZE: Final = 4  # of the number of descriptors, in front of the arguments
_WITH_FDS: Final = (int(FrameType.CALL_WITH_FDS), int(FrameType.REPLY_WITH_FDS))
_OK: Final = int(Status.OK)


class Outcome(StrEnum):
    """What came of a call."""

    OK = "ok"
    ERROR = "error"  # the daemon says so
    REFUSED = "refused"  # it did not get to the daemon
    UNANSWERED = "unanswered"  # nobody knows: the connection ended first, or serials are mixed up


class Call(NamedTuple):
    """One that is over, by CLOCK_MONOTONIC. `who` is what the session's trail was given."""

    who: object
    program: int
    procedure: int
    serial: int
    about: Named | None
    began_ns: int
    ended_ns: int
    outcome: Outcome


class Recorder(Protocol):
    """Takes records from any thread. `refuses`: changes are not to be made now."""

    refuses: bool

    def put_call(self, call: Call) -> None:
        """Never waits."""


class Begun(NamedTuple):
    about: Named | None
    began_ns: int


class Trail:
    """Of one session, written by its relay thread. With `reads`, reading calls are recorded too."""

    __slots__ = ("_reads", "_recorder", "_who", "procedures", "under_way")

    def __init__(self, who: object, recorder: Recorder, *, reads: bool) -> None:
        self._who = who
        self._recorder = recorder
        self._reads = reads
        self.under_way: dict[tuple[int, int, int], Begun] = {}
        self.procedures = _NUMBERS if reads else _CHANGING

    def goes_on_from(self, before: "Trail") -> None:
        """Takes the place of another one of the same session."""
        self.under_way = before.under_way

    def goes_up(self, header: Header, frame: memoryview) -> None:
        """A call goes on to the daemon; `frame` is all of it."""
        program, procedure, serial = header.program, header.procedure, header.serial
        if not self._wants(program, procedure):
            return
        key = program, procedure, serial
        about, now_ns = _about(header, frame), time.monotonic_ns()
        before = self.under_way.pop(key, None)
        if before is not None:
            self._put(key, before, now_ns, Outcome.UNANSWERED)
        begun = Begun(about, now_ns)
        if len(self.under_way) < MOST_UNDER_WAY:
            self.under_way[key] = begun
        else:
            self._put(key, begun, now_ns, Outcome.UNANSWERED)

    def waits_for(self, header: Header, length: int, got: int) -> bool:
        """Whether more of a reply than `got` bytes has to be there, to see what was made."""
        return (
            got < length
            and got < REPLY_KEPT
            and _made(header) is not None
            and (header.program, header.procedure, header.serial) in self.under_way
        )

    def came_down(self, header: Header, frame: memoryview) -> None:
        """A reply; `frame` is all of it, or as much as `waits_for` asks for."""
        key = header.program, header.procedure, header.serial
        begun = self.under_way.pop(key, None)
        if begun is None:
            return
        made = _made(header)
        if made is not None:
            payload = frame[_arguments_at(header) : REPLY_KEPT]
            begun = begun._replace(about=named(made, Where.REPLY, payload))
        outcome = Outcome.OK if header.status == _OK else Outcome.ERROR
        self._put(key, begun, time.monotonic_ns(), outcome)

    def refuses(self, program: int, procedure: int) -> bool:
        """Whether a call is not to go on, because it could not be recorded."""
        return self._recorder.refuses and is_change(program, procedure)

    def refused(self, header: Header, frame: memoryview | None = None) -> None:
        """A call was answered here."""
        if self._wants(header.program, header.procedure):
            now_ns = time.monotonic_ns()
            about = None if frame is None else _about(header, frame)
            key = header.program, header.procedure, header.serial
            self._put(key, Begun(about, now_ns), now_ns, Outcome.REFUSED)

    def end(self) -> None:
        """No reply comes any more."""
        now_ns = time.monotonic_ns()
        while self.under_way:
            key = next(iter(self.under_way))
            self._put(key, self.under_way.pop(key), now_ns, Outcome.UNANSWERED)

    def _wants(self, program: int, procedure: int) -> bool:
        return self._reads or is_change(program, procedure)

    def _put(self, key: tuple[int, int, int], begun: Begun, now_ns: int, outcome: Outcome) -> None:
        self._recorder.put_call(Call(self._who, *key, begun.about, begun.began_ns, now_ns, outcome))


def is_change(program: int, procedure: int) -> bool:
    """Whether a call is more than reading. Programs that nobody has change nothing."""
    known = CHANGES.get(program)
    if known is None:
        return False
    return procedure in known or not 0 < procedure < len(NAMES[program])


def _about(header: Header, frame: memoryview) -> Named | None:
    kind, where = NAMED.get(header.program, {}).get(header.procedure, ("", Where.REPLY))
    if where is Where.REPLY:
        return None
    return named(kind, where, frame[_arguments_at(header) :])


def _made(header: Header) -> str | None:
    """The kind of object that a reply begins with."""
    if header.status != _OK:
        return None
    kind, where = NAMED.get(header.program, {}).get(header.procedure, ("", Where.NAME))
    return kind if where is Where.REPLY else None


def _arguments_at(header: Header) -> int:
    return HEADER_SIZE + (_COUNT_SIZE if header.type in _WITH_FDS else 0)
