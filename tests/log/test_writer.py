import socket
import threading

import pytest

from proxyd import __version__
from proxyd.config.logstrings import LogLevel
from proxyd.log import writer as writer_module
from proxyd.log.line import LogEntry
from proxyd.log.writer import RETRY_S, LogQueue, LogWriter, Outlet
from tests.bed.waiting import wait_until

DEADLINE_S = 10


class Recorder:
    """An output that keeps texts, fails on demand, and holds its writer on demand."""

    def __init__(self, name="recorder"):
        self.name = name
        self.texts = []
        self.broken = None
        self.closed = False
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()

    def write(self, entry):
        self.reached.set()
        assert self.free.wait(DEADLINE_S)
        if self.broken:
            raise self.broken
        self.texts.append(entry.text)

    def close(self):
        self.closed = True

    @property
    def messages(self):
        """What was written without the two lines that introduce an output."""
        assert self.texts[0].startswith("proxyd version: ")
        return self.texts[2:]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outlet(recorder, clock):
    return Outlet(recorder, LogLevel.INFO, clock)


def entry(text, level=LogLevel.INFO):
    return LogEntry(when=0.0, tid=11, level=level, category="rpc.x", text=text)


def written_through(outlets, texts):
    """Run a writer over these texts to its end."""
    waiting = LogQueue(limit=100)
    writer = LogWriter(waiting)
    writer.replace(outlets)
    for text in texts:
        waiting.put(entry(text))
    assert writer.stop(DEADLINE_S)
    return writer


def test_an_output_introduces_itself_once_even_if_it_takes_only_errors(recorder, clock):
    outlet = Outlet(recorder, LogLevel.ERROR, clock)
    outlet.offer(entry("info"))
    assert recorder.texts == []
    outlet.offer(entry("first", LogLevel.ERROR))
    outlet.offer(entry("second", LogLevel.ERROR))
    assert recorder.texts == [
        f"proxyd version: {__version__}",
        f"hostname: {socket.gethostname()}",
        "first",
        "second",
    ]


def test_an_output_gets_nothing_below_its_priority(recorder, outlet):
    outlet.offer(entry("debug", LogLevel.DEBUG))
    outlet.offer(entry("info", LogLevel.INFO))
    assert recorder.messages == ["info"]


def test_a_failure_is_told_when_it_begins_and_not_again(recorder, outlet, clock):
    recorder.broken = OSError(28, "No space left on device")
    assert "No space left" in outlet.offer(entry("a"))
    assert outlet.offer(entry("b")) is None
    clock.now += RETRY_S
    assert outlet.offer(entry("c")) is None
    assert outlet.lost == 3


def test_a_failing_output_is_not_tried_for_every_message(recorder, outlet, clock):
    recorder.broken = OSError("down")
    outlet.offer(entry("a"))
    recorder.broken = None
    outlet.offer(entry("too early"))
    assert recorder.texts == []
    clock.now += RETRY_S
    outlet.offer(entry("in time"))
    assert recorder.messages == ["2 log messages did not get here: down", "in time"]


def test_each_failure_counts_its_own_losses(recorder, outlet, clock):
    for _ in range(2):
        recorder.broken = OSError("down")
        assert outlet.offer(entry("lost")) == "down"
        recorder.broken = None
        clock.now += RETRY_S
        outlet.offer(entry("kept"))
    assert recorder.messages == ["1 log messages did not get here: down", "kept"] * 2
    assert outlet.lost == 2


def test_an_output_that_works_again_at_the_end_says_what_it_lost(recorder, outlet):
    recorder.broken = OSError("down")
    outlet.offer(entry("lost"))
    recorder.broken = None
    outlet.close()
    assert recorder.texts == ["1 log messages did not get here: down"]
    assert recorder.closed


def test_an_output_that_fails_to_the_end_is_closed_without_a_word(recorder, outlet):
    recorder.broken = OSError("down")
    outlet.offer(entry("lost"))
    outlet.close()
    assert recorder.closed


def test_a_mistake_of_our_own_in_an_output_does_not_end_the_writer(recorder, outlet):
    recorder.broken = ZeroDivisionError()
    assert outlet.offer(entry("a")) == "ZeroDivisionError"


def test_messages_come_in_order():
    recorder = Recorder()
    written_through([Outlet(recorder, LogLevel.DEBUG)], ["a", "b", "c"])
    assert recorder.messages == ["a", "b", "c"]


def test_the_other_outputs_hear_of_a_failure_once():
    good, bad = Recorder("stderr"), Recorder("file:/x")
    bad.broken = OSError("disk is full")
    outlets = [Outlet(output, LogLevel.DEBUG) for output in (bad, good)]
    writer = written_through(outlets, ["a", "b"])
    assert good.messages == ["a", "log output file:/x fails: disk is full; it is tried again", "b"]
    assert writer.lost == 2


def test_two_outputs_that_fail_together_end_in_silence():
    first, second = Recorder("one"), Recorder("two")
    first.broken = second.broken = OSError("down")
    outlets = [Outlet(output, LogLevel.DEBUG) for output in (first, second)]
    written_through(outlets, ["a"])
    assert first.texts == second.texts == []
    assert first.closed
    assert second.closed


def test_what_was_logged_before_goes_to_the_old_outputs():
    old, new = Recorder(), Recorder()
    waiting = LogQueue(limit=100)
    writer = LogWriter(waiting)
    writer.replace([Outlet(old, LogLevel.DEBUG)])
    waiting.put(entry("before"))
    writer.replace([Outlet(new, LogLevel.DEBUG)])
    waiting.put(entry("after"))
    assert writer.stop(DEADLINE_S)
    assert old.messages == ["before"]
    assert new.messages == ["after"]
    assert old.closed
    assert new.closed


@pytest.fixture
def stuck(recorder, clock):
    """A writer that is held inside its output, with room for three messages behind it."""
    waiting = LogQueue(limit=3)
    writer = LogWriter(waiting, clock)
    writer.replace([Outlet(recorder, LogLevel.DEBUG)])
    recorder.free.clear()
    waiting.put(entry("first"))
    assert recorder.reached.wait(DEADLINE_S)
    yield waiting, writer
    recorder.free.set()
    assert writer.stop(DEADLINE_S)


def test_a_full_queue_drops_and_counts_and_says_so_later(stuck, recorder):
    waiting, writer = stuck
    for number in range(5):
        waiting.put(entry(f"m{number}"))
    assert waiting.dropped == 2
    recorder.free.set()
    assert writer.stop(DEADLINE_S)
    assert recorder.messages == [
        "first",
        "m0",
        "m1",
        "m2",
        "2 log messages were dropped: they came too fast",
    ]


def test_a_queue_that_stays_full_says_so_after_a_while(stuck, recorder, clock):
    waiting, writer = stuck
    for number in range(5):
        waiting.put(entry(f"m{number}"))
    clock.now += 60
    recorder.free.set()
    assert writer.stop(DEADLINE_S)
    report = "2 log messages were dropped: they came too fast"
    assert recorder.messages == ["first", report, "m0", "m1", "m2"]


def test_a_full_queue_takes_orders_all_the_same(stuck, recorder):
    waiting, writer = stuck
    for number in range(5):
        waiting.put(entry(f"m{number}"))
    other = Recorder()
    writer.replace([Outlet(other, LogLevel.DEBUG)])
    recorder.free.set()
    assert writer.stop(DEADLINE_S)
    assert recorder.closed
    assert other.closed


def test_an_end_that_takes_too_long_is_not_waited_for(stuck):
    _, writer = stuck
    assert not writer.stop(0.01)


def test_what_comes_behind_a_message_is_gathered_and_an_order_is_not_kept_waiting(
    recorder, monkeypatch
):
    monkeypatch.setattr(writer_module, "GATHER_S", 10 * DEADLINE_S)
    waiting = LogQueue(limit=100)
    writer = LogWriter(waiting)
    writer.replace([Outlet(recorder, LogLevel.DEBUG)])
    waiting.put(entry("alone"))
    wait_until(lambda: "alone" in recorder.texts, DEADLINE_S, "it is written at once")
    waiting.put(entry("behind"))
    waiting.put(entry("it"))
    assert recorder.messages == ["alone"]
    assert writer.stop(DEADLINE_S)
    assert recorder.messages == ["alone", "behind", "it"]


@pytest.mark.parametrize("level", [LogLevel.WARNING, LogLevel.ERROR])
def test_what_is_grave_is_not_gathered(recorder, monkeypatch, level):
    monkeypatch.setattr(writer_module, "GATHER_S", 10 * DEADLINE_S)
    waiting = LogQueue(limit=100)
    writer = LogWriter(waiting)
    writer.replace([Outlet(recorder, LogLevel.DEBUG)])
    for number in range(3):
        waiting.put(entry(f"info {number}"))
        waiting.put(entry(f"grave {number}", level))
        wait_until(
            lambda: f"grave {number}" in recorder.texts,  # noqa: B023
            DEADLINE_S,
            "it is written with all that came before",
        )
        assert f"info {number}" in recorder.texts
    assert writer.stop(DEADLINE_S)


def test_a_writer_that_has_gathered_sleeps_until_the_next_message(recorder, monkeypatch):
    monkeypatch.setattr(writer_module, "GATHER_S", 0)
    waiting = LogQueue(limit=100)
    writer = LogWriter(waiting)
    writer.replace([Outlet(recorder, LogLevel.DEBUG)])
    for number in range(200):
        waiting.put(entry(f"m{number}"))
        wait_until(lambda: recorder.texts[-1:] == [f"m{number}"], DEADLINE_S, "it is written")  # noqa: B023
    assert writer.stop(DEADLINE_S)


def test_several_threads_that_put_lose_nothing(recorder, monkeypatch):
    monkeypatch.setattr(writer_module, "GATHER_S", 0.0001)
    waiting = LogQueue(limit=100_000)
    writer = LogWriter(waiting)
    writer.replace([Outlet(recorder, LogLevel.DEBUG)])

    def put(name):
        for number in range(1000):
            waiting.put(entry(f"{name} {number}"))

    threads = [threading.Thread(target=put, args=(name,)) for name in "abc"]
    for each in threads:
        each.start()
    for each in threads:
        each.join(DEADLINE_S)
    wait_until(lambda: len(recorder.texts) == 3002, DEADLINE_S, "all are written")
    assert writer.stop(DEADLINE_S)
    assert [text for text in recorder.messages if text[0] == "a"] == [f"a {n}" for n in range(1000)]
