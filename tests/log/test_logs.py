import logging
import os
import threading
import time

import pytest

from proxyd.config.logstrings import LogFilter, LogLevel, LogOutput
from proxyd.log.logs import Logs, default_outputs
from proxyd.log.outputs import LogOutputError, LogPlaces
from proxyd.log.rate import LogRate

DEADLINE_S = 10


@pytest.fixture
def logs(tmp_path):
    made = Logs(places=LogPlaces(journal=str(tmp_path / "no-journal")))
    yield made
    assert made.close(DEADLINE_S)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


def texts(path):
    """The messages of a log file without the two lines that introduce it."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.rpartition(" : ")[2] for line in lines][2:]


def to(path, priority=LogLevel.DEBUG):
    return LogOutput(priority, "file", str(path))


def test_a_message_reaches_the_file_with_the_place_that_logged_it(logs, path):
    logs.apply(LogLevel.INFO, [], [to(path)])
    logging.getLogger("rpc.netserver").info("client %s", 7)
    logs.close(DEADLINE_S)
    line = path.read_text().splitlines()[2]
    tid = threading.get_native_id()
    here = "test_a_message_reaches_the_file_with_the_place_that_logged_it"
    assert f"+0000: {tid}: info : {here}:" in line
    assert line.endswith(" : client 7")


def test_the_thread_that_logged_is_named_and_not_the_writer(logs, path):
    logs.apply(LogLevel.INFO, [], [to(path)])
    tids = []

    def speak():
        tids.append(threading.get_native_id())
        logging.getLogger("rpc.x").info("hello")

    thread = threading.Thread(target=speak)
    thread.start()
    thread.join()
    logs.close(DEADLINE_S)
    assert f": {tids[0]}: info : speak:" in path.read_text()


def test_the_default_level_holds_where_no_filter_fits(logs, path):
    logs.apply(LogLevel.WARNING, [LogFilter(1, "*util*")], [to(path)])
    logging.getLogger("rpc.x").info("not this")
    logging.getLogger("rpc.x").warning("this")
    logging.getLogger("util.x").debug("and this")
    logs.close(DEADLINE_S)
    assert texts(path) == ["this", "and this"]


def test_the_first_filter_that_fits_wins(logs, path):
    filters = [LogFilter(4, "*rpc.netsocket*"), LogFilter(1, "*rpc*")]
    logs.apply(LogLevel.WARNING, filters, [to(path)])
    logging.getLogger("rpc.netsocket").warning("quiet")
    logging.getLogger("rpc.netserver").debug("loud")
    logs.close(DEADLINE_S)
    assert texts(path) == ["loud"]


def test_each_output_has_its_own_priority(logs, tmp_path):
    outputs = [to(tmp_path / "all", LogLevel.DEBUG), to(tmp_path / "errors", LogLevel.ERROR)]
    logs.apply(LogLevel.DEBUG, [], outputs)
    logging.getLogger("rpc.x").debug("detail")
    logging.getLogger("rpc.x").error("trouble")
    logs.close(DEADLINE_S)
    assert texts(tmp_path / "all") == ["detail", "trouble"]
    assert texts(tmp_path / "errors") == ["trouble"]


@pytest.mark.parametrize(
    ("level", "filters", "priorities", "expected"),
    [
        (3, [], [1], logging.WARNING),
        (3, [LogFilter(1, "*rpc*")], [1], logging.DEBUG),
        (3, [LogFilter(1, "*rpc*")], [2, 4], logging.INFO),
        (1, [], [4], logging.ERROR),
        (1, [], [], logging.CRITICAL + 1),
    ],
)
def test_a_message_that_nothing_could_take_is_refused_at_once(
    logs, tmp_path, level, filters, priorities, expected
):
    outputs = [to(tmp_path / str(priority), priority) for priority in priorities]
    logs.apply(level, filters, outputs)
    assert logging.getLogger().level == expected


def test_new_settings_replace_the_old_ones(logs, tmp_path):
    logs.apply(LogLevel.INFO, [], [to(tmp_path / "old")])
    logging.getLogger("rpc.x").info("before")
    logs.apply(LogLevel.ERROR, [], [to(tmp_path / "new")])
    logging.getLogger("rpc.x").info("not this")
    logging.getLogger("rpc.x").error("after")
    logs.close(DEADLINE_S)
    assert texts(tmp_path / "old") == ["before"]
    assert texts(tmp_path / "new") == ["after"]


def test_an_output_that_cannot_be_opened_changes_nothing(logs, path, tmp_path):
    logs.apply(LogLevel.INFO, [], [to(path)])
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LogOutputError, match="absent/log"):
        logs.apply(LogLevel.ERROR, [], [to(tmp_path / "other"), to(tmp_path / "absent" / "log")])
    assert len(os.listdir("/proc/self/fd")) == descriptors
    logging.getLogger("rpc.x").info("as before")
    logs.close(DEADLINE_S)
    assert texts(path) == ["as before"]


def test_a_journal_that_is_away_is_told_elsewhere_and_raises_nothing(logs, path):
    logs.apply(LogLevel.INFO, [], [LogOutput(1, "journald"), to(path)])
    logging.getLogger("rpc.x").info("a")
    logging.getLogger("rpc.x").info("b")
    logs.close(DEADLINE_S)
    told = "log output journald fails: No such file or directory; it is tried again"
    assert texts(path) == ["a", told, "b"]
    assert logs.lost == 2
    assert logs.dropped == 0


def test_closing_leaves_no_thread_descriptor_or_handler(path):
    before = (set(threading.enumerate()), logging.getLogger().handlers[:])
    level = logging.getLogger().level
    descriptors = len(os.listdir("/proc/self/fd"))
    logs = Logs()
    logs.apply(LogLevel.DEBUG, [], [to(path), LogOutput(1, "journald")])
    assert logs.close(DEADLINE_S)
    assert (set(threading.enumerate()), logging.getLogger().handlers[:]) == before
    assert logging.getLogger().level == level
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_closing_twice_and_closing_what_never_began_is_harmless(path):
    assert Logs().close(DEADLINE_S)
    logs = Logs()
    logs.apply(LogLevel.DEBUG, [], [to(path)])
    assert logs.close(DEADLINE_S)
    assert logs.close(DEADLINE_S)


def test_closed_logging_takes_no_settings(logs, path):
    logs.apply(LogLevel.DEBUG, [], [to(path)])
    logs.close(DEADLINE_S)
    with pytest.raises(RuntimeError, match="closed"):
        logs.apply(LogLevel.DEBUG, [], [to(path)])


@pytest.mark.parametrize(
    ("daemonized", "stdin_is_tty", "journald_available", "expected"),
    [
        (True, True, True, LogOutput(3, "journald")),
        (True, False, False, LogOutput(3, "file", "/var/log/x")),
        (False, True, True, LogOutput(3, "stderr")),
        (False, False, True, LogOutput(3, "journald")),
        (False, False, False, LogOutput(3, "stderr")),
    ],
)
def test_the_default_output_depends_on_who_is_there(
    daemonized, stdin_is_tty, journald_available, expected
):
    outputs = default_outputs(
        level=3,
        daemonized=daemonized,
        stdin_is_tty=stdin_is_tty,
        journald_available=journald_available,
        log_file="/var/log/x",
    )
    assert outputs == (expected,)


def test_debug_messages_do_not_go_to_the_journal_by_default():
    found = default_outputs(
        level=1, daemonized=True, stdin_is_tty=False, journald_available=True, log_file="/x"
    )
    assert found == (LogOutput(2, "journald"),)


def test_a_flood_of_one_kind_is_cut_and_counted_and_others_are_not(logs, path, monkeypatch):
    monkeypatch.setattr(logs._handler, "_rate", LogRate(1000, 1))
    logs.apply(LogLevel.INFO, [], [to(path)])
    began = time.monotonic()
    for number in range(5000):
        logging.getLogger("rpc.x").info("client %d spoiled its connection", number)
        while number % 1000 == 0 and not logs._queue.empty:
            pass  # otherwise it is the queue that is full
    took_s = time.monotonic() - began
    logging.getLogger("rpc.x").info("something else")
    logs.close(DEADLINE_S)
    found = texts(path)
    assert 0 <= sum("spoiled" in text for text in found) - 1000 <= took_s + 1
    assert "something else" in found
    assert logs.dropped > 100
    # The last line, or before it where the flood took longer than the second that is counted.
    assert any("log messages were dropped: they came too fast" in text for text in found)
