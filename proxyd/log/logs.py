"""libvirt's logging on top of the standard library's (docs/protocol/logging.md).

A module logs with `logging.getLogger("rpc.netserverclient")`: a logger's name is libvirt's
category. A message gets past two gates. The first filter that matches its category sets the level
it needs, or else the default level does; that is decided in the thread that logs. Then every
output has a priority of its own; that is decided by the writer thread (`writer.py`).

The cheap refusal of a message is the root logger's level, which stands at the lowest level that
could reach any output: below it the standard library does not even make a record.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from proxyd.config.globs import matches
from proxyd.config.logstrings import LogFilter, LogLevel, LogOutput
from proxyd.log.line import STDLIB_LEVEL, entry_of, level_of
from proxyd.log.outputs import LogPlaces, open_output
from proxyd.log.rate import LogRate
from proxyd.log.writer import Clock, LogQueue, LogWriter, Outlet

QUEUE_LIMIT: Final = 10_000

_NOTHING: Final = logging.CRITICAL + 1


class Logs:
    """The program's logging, from the first `apply` until `close`.

    `apply` starts a thread, so the first one comes after the fork into the background. Before it
    the standard library's own last resort prints warnings and errors to stderr. Call it from one
    thread only.
    """

    def __init__(
        self,
        *,
        places: LogPlaces | None = None,
        queue_limit: int = QUEUE_LIMIT,
        clock: Clock = time.monotonic,
    ) -> None:
        self._places = places or LogPlaces()
        self._clock = clock
        self._queue = LogQueue(queue_limit)
        self._handler = _Intake(self._queue, clock)
        self._writer: LogWriter | None = None
        self._level_before = logging.NOTSET
        self._closed = False

    @property
    def dropped(self) -> int:
        """How many messages were not queued: the queue was full, or they came too often."""
        return self._queue.dropped

    @property
    def lost(self) -> int:
        """How many messages some output failed to take; one message counts once an output."""
        return self._writer.lost if self._writer else 0

    def apply(self, level: int, filters: Sequence[LogFilter], outputs: Sequence[LogOutput]) -> None:
        """Log by these settings from now on.

        Everything new is opened first: LogOutputError says that one output could not be, and
        then nothing has changed. Messages that were queued before go to the old outputs.
        """
        if self._closed:
            raise RuntimeError("logging is closed: no settings can be applied any more")
        lowest = _lowest(level, filters, outputs)
        with ExitStack() as on_failure:
            outlets = []
            for asked in outputs:
                outlet = Outlet(open_output(asked, self._places), asked.priority, self._clock)
                on_failure.callback(outlet.close)
                outlets.append(outlet)
            on_failure.pop_all()
        root = logging.getLogger()
        if self._writer is None:
            self._writer = LogWriter(self._queue, self._clock)
            self._level_before = root.level
        self._writer.replace(outlets)
        self._handler.gate = _Gate(level, tuple(filters))
        if self._handler not in root.handlers:
            root.addHandler(self._handler)
        root.setLevel(lowest)

    def close(self, deadline_s: float) -> bool:
        """Write what is queued, close the outputs, and leave the standard library as it was.

        False means that the deadline passed first; the rest is then lost with the process.
        """
        if self._writer is None:
            return True
        self._closed = True
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(self._level_before)
        return self._writer.stop(deadline_s)


def default_outputs(
    *,
    level: int,
    daemonized: bool,
    stdin_is_tty: bool,
    journald_available: bool,
    log_file: str,
) -> tuple[LogOutput, ...]:
    """The outputs of a daemon that was given none.

    In the background that is the journal, or the log file where there is no journal. In the
    foreground it is stderr, unless nobody can be sitting there and there is a journal.
    """
    if journald_available and (daemonized or not stdin_is_tty):
        # The journal is everybody's: debug messages go there only when somebody asks for it.
        return (LogOutput(max(level, LogLevel.INFO), "journald"),)
    if daemonized:
        return (LogOutput(level, "file", log_file),)
    return (LogOutput(level, "stderr"),)


@dataclass(frozen=True, slots=True)
class _Gate:
    """The level and the filters of one `apply`, swapped as a whole."""

    default: int
    filters: tuple[LogFilter, ...]
    # Categories are words of this program, so this stays small.
    _known: dict[str, int] = field(default_factory=dict)

    def passes(self, category: str, level: LogLevel) -> bool:
        needed = self._known.get(category)
        if needed is None:
            needed = self._known[category] = self._needed(category)
        return level >= needed

    def _needed(self, category: str) -> int:
        fitting = (kept.priority for kept in self.filters if matches(kept.pattern, category))
        return next(fitting, self.default)


class _Intake(logging.Handler):
    """Where the standard library hands over: gate and queue, nothing that could wait."""

    def __init__(self, waiting: LogQueue, clock: Clock) -> None:
        super().__init__()
        self.gate = _Gate(LogLevel.ERROR, ())
        self._queue = waiting
        self._clock = clock
        self._rate = LogRate()

    def createLock(self) -> None:  # noqa: N802 (the standard library's name)
        """No lock: a thread that logs must never wait for another one that does."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue the record if the gate lets it pass."""
        if not self.gate.passes(record.name, level_of(record.levelno)):
            return False
        if not self._rate.admits((record.pathname, record.lineno), self._clock()):
            self._queue.drop()
            return False
        self._queue.put(entry_of(record))
        return True


def _lowest(level: int, filters: Sequence[LogFilter], outputs: Sequence[LogOutput]) -> int:
    if not outputs:
        return _NOTHING
    gate = min([level, *(kept.priority for kept in filters)])
    return STDLIB_LEVEL[LogLevel(max(gate, min(output.priority for output in outputs)))]
