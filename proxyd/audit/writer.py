"""The audit: a queue that any thread puts records into, and the thread that writes them.

What must stay true:

* Nobody who puts a record waits: neither for a disk, nor for the thread that writes. So that a
  relay thread does not even wake it for each record, it gathers for GATHER_S before it writes, and
  between two writes it pauses. A write alone is no pause: it is over before whoever waits for the
  interpreter has noticed, and a small call of a session has six occasions to wait for it.
* A record that cannot be written stays in the queue and is tried again each RETRY_S, in its order.
  The queue is bounded; what finds it full is lost and counted, reads at half of it, and the first
  record that can be written again says how many are.
* An audit that cannot be written is an alarm, in the log once and in `trouble` as long as it lasts.
  Where it is required, `refuses` is true then, and the relay lets no change pass (trail.py).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import closing, suppress
from itertools import islice
from typing import Final

from proxyd.audit.outputs import AuditPlaces, Output, open_output
from proxyd.audit.record import NOBODY, Event, Record, Value, Who, record_of
from proxyd.config.auditing import (
    AuditOutput,
    records_changes,
    records_reads,
    records_sessions,
)
from proxyd.log.rate import LogRate
from proxyd.relay.trail import Call, Trail, is_change

QUEUE_LIMIT: Final = 50_000  # some 50 MB at worst
GATHER_S: Final = 0.02
PAUSE_S: Final = 50e-6
RETRY_S: Final = 1.0

log = logging.getLogger("proxyd.audit")


class Audit:
    """From the first `put_in_force` until `close`; without one nothing is recorded.

    That starts a thread, so it comes after the fork into the background. It is a
    daemon thread: a disk that hangs does not keep the process alive.
    """

    def __init__(
        self,
        *,
        places: AuditPlaces | None = None,
        queue_limit: int = QUEUE_LIMIT,
        gather_s: float = GATHER_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self.asked: tuple[str, ...] = ()
        self.output: AuditOutput | None = None
        self.refuses = False  # changes are not to be made now
        self.lost = 0  # records that found no room, since the start
        self.written = 0
        self._places = places or AuditPlaces()
        self._limit = queue_limit
        self._gather_s = gather_s
        self._retry_s = retry_s
        self.required = False
        self._waiting: deque[Record | Call] = deque()
        self._wake = threading.Event()
        self._awake = False  # the writer is going to look at the queue
        self._stopping = threading.Event()
        self._changing = threading.Lock()  # of what several threads change
        self._sink: Output | None = None
        self._next: Output | None = None  # takes the place of `_sink`
        self._thread: threading.Thread | None = None
        self._failing = ""
        self._full = False
        self._lost_told = 0
        self._rate = LogRate()

    # What is put: any thread.

    def put(self, event: Event, who: Who = NOBODY, values: Mapping[str, Value | None] = {}) -> None:
        """Records what is no call, if anything is recorded."""
        if records_sessions(self.asked):
            self._put(Record(time.time(), event, who, values))

    def denied(self, who: Who, reason: str) -> None:
        """Somebody was not let in. Whoever chooses how often cannot fill the disk that way."""
        if self._rate.admits(Event.DENIED, time.monotonic()):
            self.put(Event.DENIED, who, {"reason": reason})
        else:
            self._lose()

    def put_call(self, call: Call) -> None:
        """From a relay thread."""
        if len(self._waiting) * 2 >= self._limit and not is_change(call.program, call.procedure):
            self._lose()
            return
        self._put(call)

    def _put(self, item: Record | Call) -> None:
        if len(self._waiting) >= self._limit:
            self._lose()
            return
        self._waiting.append(item)
        if not self._awake:
            self._awake = True
            self._wake.set()

    def _lose(self) -> None:
        with self._changing:  # += is not one step, and its result is reported
            self.lost += 1
            if not self._full:
                self._full = len(self._waiting) >= self._limit
                self._judge()

    # What is in force: the control plane.

    def opened(self, output: AuditOutput, *, named: bool = True) -> Output:
        """For `put_in_force`. Raises AuditOutputError. May wait for a disk."""
        return open_output(output, self._places, named=named)

    def put_in_force(
        self, asked: tuple[str, ...], output: AuditOutput, opened: Output | None, *, required: bool
    ) -> None:
        """Records by these settings from now on; `opened` is None where nothing is asked for."""
        first = self._thread is None
        with self._changing:
            before, self._next = self._next, opened
            self.asked, self.output = asked, output if asked else None
            self.required = required and bool(asked)
            self._judge()
            if self._thread is None and opened is not None:
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()
        if before is not None:
            before.close()
        if first:
            self.put(Event.STARTED)
        self._awake = True
        self._wake.set()

    def trail(self, who: Who) -> Trail | None:
        """What records the calls of a session; None where none are recorded."""
        if not records_changes(self.asked):
            return None
        return Trail(who, self, reads=records_reads(self.asked))

    @property
    def trouble(self) -> str:
        """Why records cannot be written now, or ""."""
        failing, waiting = self._failing, len(self._waiting)
        if not failing and not self._full:
            return ""
        why = failing or "they come faster than they can be written"
        effect = "; no change is let pass (proxyd_audit_required)" if self.refuses else ""
        return f"audit records cannot be written to {self._name}: {why}; {waiting} wait{effect}"

    def close(self, deadline_s: float) -> bool:
        """Writes what waits, if that can be done in time."""
        if self._thread is None:
            return True
        self.put(Event.STOPPED)
        self._stopping.set()
        self._wake.set()
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    # The writer's thread.

    def _run(self) -> None:
        while True:
            self._wake.wait(self._retry_s if self._failing else None)
            self._wake.clear()
            self._stopping.wait(self._gather_s)
            self._awake = False  # what is put from here on wakes again
            self._take_over()
            self._write_all()
            if self._stopping.is_set():
                if self._sink is not None:
                    self._sink.close()
                return

    def _take_over(self) -> None:
        with self._changing:
            following, self._next = self._next, None
            if following is None:
                return
            before, self._sink = self._sink, following
        if before is not None:
            before.close()

    def _write_all(self) -> None:
        sink = self._sink
        while self._waiting and sink is not None:
            batch = self._first(sink.together)
            now, now_ns = time.time(), time.monotonic_ns()
            try:
                records = [
                    record_of(each, now=now, now_ns=now_ns) if isinstance(each, Call) else each
                    for each in batch
                ]
                self._tell_gap(sink)
                sink.write(records)
            except OSError as error:
                self._fail(error.strerror or str(error))
                return
            except Exception:
                # A record that cannot be made must not keep the others from being written.
                log.exception("an audit record is lost by an error of proxyd's own")
                self._lose()
            else:
                self.written += len(batch)
            for _ in batch:
                self._waiting.popleft()
            if self._failing or self._full:
                self._recover()
            self._stopping.wait(PAUSE_S)

    def _first(self, most: int) -> list[Call | Record]:
        """So many of those that wait. Others put some there at any moment, and then it begins anew:
        what is iterated over may not grow."""
        while True:
            with suppress(RuntimeError):
                return list(islice(self._waiting, most))

    def _tell_gap(self, sink: Output) -> None:
        lost = self.lost - self._lost_told
        if lost:
            reason = self._failing or "they came faster than they could be written"
            values: dict[str, Value | None] = {"lost": lost, "reason": reason}
            sink.write([Record(time.time(), Event.GAP, NOBODY, values)])
            self._lost_told += lost

    def _fail(self, why: str) -> None:
        news = not self._failing
        self._failing = why
        with self._changing:
            self._judge()
        if news:
            log.error("%s; it is tried again", self.trouble)

    def _recover(self) -> None:
        """One was written; a queue that was full counts as full until half of it is free."""
        if self._failing:
            log.warning("audit records are written to %s again", self._name)
        self._failing = ""
        with self._changing:
            self._full = self._full and len(self._waiting) * 2 > self._limit
            self._judge()

    def _judge(self) -> None:
        self.refuses = self.required and bool(self._failing or self._full)

    @property
    def _name(self) -> str:
        return "" if self.output is None else str(self.output)


def write_once(asked: AuditOutput, event: Event, values: Mapping[str, Value | None]) -> None:
    """A record by a process that is no daemon. Raises AuditOutputError and OSError."""
    with closing(open_output(asked, AuditPlaces())) as output:
        output.write([Record(time.time(), event, NOBODY, values)])
