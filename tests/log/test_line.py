import logging
import re
import sys
import threading

from hypothesis import example, given
from hypothesis import strategies as st

from proxyd.config.logstrings import LogLevel
from proxyd.log.line import LogEntry, entry_of, level_of, rendered, stamp
from tests.log.records import record_of

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+0000: \d+: info : ")


def line_of(record):
    return rendered(entry_of(record)).decode()


def fail(error, cause=None):
    raise error from cause


def entry(text, *, when=0.0):
    return LogEntry(when=when, tid=25126, level=LogLevel.INFO, category="rpc.x", text=text)


def test_a_line_has_utc_time_thread_level_and_place():
    record = record_of("served %s", "qemu:///system")
    record.created = 1795228986.5639
    line = line_of(record)
    tid = threading.get_native_id()
    assert line == f"2026-11-21 02:43:06.563+0000: {tid}: info : run:7 : served qemu:///system\n"


def test_without_a_function_its_part_is_missing():
    assert rendered(entry("hello")) == b"1970-01-01 00:00:00.000+0000: 25126: info : hello\n"


def test_a_time_just_before_the_next_second_is_not_rounded_up():
    assert stamp(59.9999) == "1970-01-01 00:00:59.999+0000"


def test_a_peer_cannot_forge_a_line():
    forged = "x\r\n2026-11-21 02:43:06.563+0000: 1: info : all is well"
    line = rendered(entry(forged))
    assert line.count(b"\n") == 1
    assert b"x\\r\\n2026" in line


@given(st.text())
@example("\udcff")
def test_any_text_gives_one_line(text):
    line = rendered(entry(text)).decode()
    assert len(line.splitlines()) == 1
    assert LINE.match(line)


@given(st.text())
def test_any_exception_text_leaves_only_indented_lines_below_the_first(text):
    try:
        fail(ValueError(text))
    except ValueError:
        first, *rest = line_of(record_of("bug", exc_info=sys.exc_info())).splitlines()
    assert first.endswith(" : bug")
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in rest)


def test_a_traceback_shows_its_source_lines_and_causes():
    try:
        fail(ValueError("outer"), OSError("inner"))
    except ValueError:
        text = line_of(record_of("bug", exc_info=sys.exc_info()))
    assert "raise error from cause" in text
    assert "OSError: inner" in text
    assert "direct cause" in text
    assert text.endswith("    ValueError: outer\n")


def test_asking_for_a_traceback_without_an_exception_gives_a_plain_line():
    assert line_of(record_of("x", exc_info=(None, None, None))).count("\n") == 1


def test_a_stack_follows_indented():
    text = line_of(record_of("here", stack_info="Stack:\n  somewhere"))
    assert text.splitlines()[1:] == ["    Stack:", "      somewhere"]


def test_arguments_that_do_not_fit_are_logged_and_not_raised():
    assert entry_of(record_of("%d clients", "many")).text == (
        "%d clients (this message cannot be made: TypeError)"
    )


def test_an_argument_that_cannot_be_shown_is_logged_and_not_raised():
    class Broken:
        def __str__(self):
            raise RuntimeError("no")

    assert "RuntimeError" in entry_of(record_of("%s", Broken())).text
    assert entry_of(record_of(Broken())).text.startswith("Broken (")


def test_the_arguments_of_a_message_may_change_after_the_call():
    names = ["a"]
    made = entry_of(record_of("%s", names))
    names.append("b")
    assert made.text == "['a']"


def test_levels_of_the_standard_library_become_libvirts():
    levels = [logging.DEBUG, 15, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL]
    assert [level_of(level) for level in levels] == [1, 1, 2, 3, 4, 4]


def test_the_libvirt_numbers_of_an_error_are_kept():
    made = entry_of(record_of("x", libvirt_domain=7, libvirt_code=38))
    assert (made.libvirt_domain, made.libvirt_code) == (7, 38)


def test_a_text_without_end_is_cut_where_it_quotes_and_not_where_it_says_what_happened():
    made = entry_of(record_of("client 7: %s: closed; 0.1 s", "x" * 100_000))
    assert made.text.startswith("client 7: xxx")
    assert made.text.endswith("xxx: closed; 0.1 s")
    assert "characters) …" in made.text
    assert len(made.text) < 4200
