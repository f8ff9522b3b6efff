"""The thread that writes log messages, and what it does when an output fails.

A log call comes from the trio loop or from a relay thread, and neither may wait for a disk. So a
call only puts an entry on a queue, and this one thread takes it off. What must stay true:

* Who logs much does not wake the thread for each message: behind those that it has written it
  waits for GATHER_S. A message that comes alone, a warning and an error are written at once.
* The queue is bounded for messages. When it is full, messages are dropped and counted, as are those
  that come too often (`rate.py`), and the count is written with the next message when the queue
  is empty again, or after a second at the latest.
* Orders (new outputs, stop) go through the same queue but past the bound, so that they are never
  lost and take effect between two messages: what was logged before goes to the old outputs.
* An output that fails loses messages, not the program. The others are told once when it begins;
  the output itself gets the number of lost messages when it works again. While it fails it is
  tried once every RETRY_S, because a try may cost a second and the others wait for it.
"""

import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from proxyd import __version__
from proxyd.config.logstrings import LogLevel
from proxyd.log.line import LogEntry
from proxyd.log.outputs import Output

RETRY_S: Final = 5.0
GATHER_S: Final = 0.02  # with each wake-up two threads contend for the interpreter

_URGENT: Final = (LogLevel.WARNING, LogLevel.ERROR)
_DROP_REPORT_S: Final = 1.0
_CATEGORY: Final = "util.log"  # where libvirt's own logging speaks from

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Replace:
    outlets: Sequence["Outlet"]


@dataclass(frozen=True, slots=True)
class _Stop:
    pass  # carries nothing: that it comes is the order


class LogQueue:
    """What was logged and is not written yet. Any thread puts, the writer takes."""

    def __init__(self, limit: int) -> None:
        # Both may be entered again from a destructor that logs inside put(); Queue and Event would
        # deadlock there.
        self._items: deque[LogEntry | _Replace | _Stop] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._awake = False  # the writer is going to look at the items
        self._hurries = False  # and at once
        self._gathers = False  # a message has been taken, behind which others may come
        self._limit = limit
        self._dropped = 0
        self._dropping = threading.RLock()

    @property
    def dropped(self) -> int:
        """How many messages found the queue full, or were too many of their kind."""
        return self._dropped

    def put(self, entry: LogEntry) -> None:
        """Queue a message, or count it when there is no room. Never waits.

        Between the look and the put another thread may put too: the bound is exceeded by a
        message a thread at most, which is cheaper than a lock on every log call.
        """
        if len(self._items) < self._limit:
            self._put(entry, urgent=entry.level in _URGENT)
            return
        self.drop()

    def drop(self) -> None:
        """Count a message that is not to be queued."""
        with self._dropping:  # += is not one step, and its result is reported
            self._dropped += 1

    def order(self, order: _Replace | _Stop) -> None:
        """Queue an order to the writer; the bound does not hold for it."""
        self._put(order, urgent=True)

    def take(self) -> LogEntry | _Replace | _Stop:
        """Wait for the next message or order."""
        while not self._items:
            self._wait()
        item = self._items.popleft()
        self._gathers = isinstance(item, LogEntry)
        return item

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._items

    def _put(self, item: LogEntry | _Replace | _Stop, *, urgent: bool) -> None:
        self._items.append(item)
        if not self._awake or (urgent and not self._hurries):
            self._awake, self._hurries = True, urgent
            self._bell.put(None)

    def _wait(self) -> None:
        """Everything is written: gathers, and if nothing comes meanwhile, sleeps until the bell."""
        if self._gathers:
            self._hurries = False  # what is urgent from here on rings
            if not self._items:
                with suppress(queue.Empty):
                    self._bell.get(timeout=GATHER_S)
            self._gathers = False
            return
        self._awake = self._hurries = False  # what is put from here on rings
        if not self._items:
            self._bell.get()


class Outlet:
    """An output with its own priority, and the story of its failures."""

    def __init__(self, output: Output, priority: int, clock: Clock = time.monotonic) -> None:
        self.name = output.name
        self.lost = 0
        self._output = output
        self._priority = priority
        self._clock = clock
        self._introduced = False
        self._failing = ""
        self._retry_at = 0.0
        self._lost_now = 0

    def offer(self, entry: LogEntry) -> str | None:
        """Write the entry if it is for this output; the reason when a failure begins with it."""
        if entry.level < self._priority:
            return None
        if self._failing and self._clock() < self._retry_at:
            self._lose()
            return None
        began = not self._failing
        try:
            self._write(entry)
        # The writer must outlive every output, or nothing is logged any more, not even this.
        except Exception as error:  # noqa: BLE001
            self._failing = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self._retry_at = self._clock() + RETRY_S
            self._lose()
            return self._failing if began else None
        return None

    def _write(self, entry: LogEntry) -> None:
        if not self._introduced:
            for text in (f"proxyd version: {__version__}", f"hostname: {socket.gethostname()}"):
                self._output.write(_note(LogLevel.INFO, text, like=entry))
            self._introduced = True
        if self._failing:
            self._settle()
        self._output.write(entry)

    def _settle(self) -> None:
        lost = f"{self._lost_now} log messages did not get here: {self._failing}"
        self._output.write(_note(LogLevel.ERROR, lost))
        self._failing = ""
        self._lost_now = 0

    def _lose(self) -> None:
        self._lost_now += 1
        self.lost += 1

    def close(self) -> None:
        """Say what was lost, if that works by now, and close the output."""
        # If it still fails, the others were told, and there is no later.
        if self._failing:
            with suppress(Exception):
                self._settle()
        with suppress(Exception):
            self._output.close()


class LogWriter:
    """The writer thread. It is a daemon thread: a hung disk does not keep the process alive."""

    def __init__(self, waiting: LogQueue, clock: Clock = time.monotonic) -> None:
        self._queue = waiting
        self._clock = clock
        self._outlets: Sequence[Outlet] = ()
        self._drops_told = 0
        self._drops_told_at = clock()
        self._lost_before = 0
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many messages an output failed to take, over all outputs, old ones included."""
        return self._lost_before + sum(outlet.lost for outlet in self._outlets)

    def replace(self, outlets: Sequence[Outlet]) -> None:
        """From the next message on write to these; the present ones are closed."""
        self._queue.order(_Replace(outlets))

    def stop(self, deadline_s: float) -> bool:
        """Write what is queued and end; False if that did not work in time."""
        self._queue.order(_Stop())
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            untold = self._queue.dropped > self._drops_told
            if untold and (self._queue.empty or self._report_is_due()):
                self._tell_drops()
            match self._queue.take():
                case LogEntry() as entry:
                    self._write(entry)
                case _Replace(outlets):
                    self._swap(outlets)
                case _Stop():
                    self._swap(())
                    return

    def _report_is_due(self) -> bool:
        return self._clock() - self._drops_told_at >= _DROP_REPORT_S

    def _tell_drops(self) -> None:
        dropped = self._queue.dropped
        text = f"{dropped - self._drops_told} log messages were dropped: they came too fast"
        self._drops_told = dropped
        self._drops_told_at = self._clock()
        self._write(_note(LogLevel.ERROR, text))

    def _write(self, entry: LogEntry) -> None:
        pending: deque[tuple[LogEntry, Outlet | None]] = deque([(entry, None)])
        # A report of one failure may be what makes the next output fail. That ends, because an
        # output that fails already begins no second time.
        while pending:
            current, about = pending.popleft()
            for outlet in self._outlets:
                reason = None if outlet is about else outlet.offer(current)
                if reason:
                    text = f"log output {outlet.name} fails: {reason}; it is tried again"
                    pending.append((_note(LogLevel.ERROR, text), outlet))

    def _swap(self, outlets: Sequence[Outlet]) -> None:
        if self._queue.dropped > self._drops_told:
            self._tell_drops()
        old, self._outlets = self._outlets, outlets
        for outlet in old:
            self._lost_before += outlet.lost
            outlet.close()


def _note(level: LogLevel, text: str, *, like: LogEntry | None = None) -> LogEntry:
    """A line of our own; it stands in for no function, so it names none."""
    return LogEntry(
        when=like.when if like else time.time(),
        tid=like.tid if like else threading.get_native_id(),
        level=level,
        category=_CATEGORY,
        text=text,
    )
