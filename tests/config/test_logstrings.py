import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.config.globs import matches
from proxyd.config.logstrings import (
    CATEGORIES,
    LogFilter,
    LogLevel,
    LogOutput,
    LogStringError,
    format_filters,
    format_outputs,
    parse_filters,
    parse_level,
    parse_outputs,
    unfed_outputs,
    unheard_filters,
)

ROOT = Path(__file__).parents[2] / "proxyd"

TARGETS = st.text(min_size=1).filter(lambda text: not set(text) & {" ", ":"})
LEVELS = st.sampled_from(LogLevel)
OUTPUTS = st.builds(LogOutput, LEVELS, st.sampled_from(["stderr", "journald"])) | st.builds(
    LogOutput, LEVELS, st.sampled_from(["syslog", "file"]), TARGETS
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("  ", ()),
        ("3:stderr", (LogOutput(3, "stderr"),)),
        ("1:journald", (LogOutput(1, "journald"),)),
        ("2:syslog:virtproxyd", (LogOutput(2, "syslog", "virtproxyd"),)),
        ("4:file:/var/log/x", (LogOutput(4, "file", "/var/log/x"),)),
        ("4:file:x.log", (LogOutput(4, "file", "x.log"),)),
        ("4:file:/a\tb", (LogOutput(4, "file", "/a\tb"),)),
        ("  3:stderr   2:file:/x  ", (LogOutput(3, "stderr"), LogOutput(2, "file", "/x"))),
    ],
)
def test_outputs_are_read(text, expected):
    assert parse_outputs(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3:stderr 1:stderr", (LogOutput(1, "stderr"),)),
        ("3:file:/x 2:stderr 1:file:/x", (LogOutput(2, "stderr"), LogOutput(1, "file", "/x"))),
        ("3:file:/x 1:file:/y", (LogOutput(3, "file", "/x"), LogOutput(1, "file", "/y"))),
        ("3:syslog:x 1:file:x", (LogOutput(3, "syslog", "x"), LogOutput(1, "file", "x"))),
    ],
)
def test_a_later_output_replaces_one_with_the_same_destination(text, expected):
    assert parse_outputs(text) == expected


WRONG_OUTPUT = 'an output is a level, ":" and stderr, journald, syslog or file'
WRONG_LEVEL = "the level is 1 (debug), 2 (info), 3 (warning) or 4 (error)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("stderr", f'"stderr": {WRONG_OUTPUT}'),
        ("3", f'"3": {WRONG_OUTPUT}'),
        ("3:", f'"3:": {WRONG_OUTPUT}'),
        ("3:console", f'"3:console": {WRONG_OUTPUT}'),
        ("3:STDERR", f'"3:STDERR": {WRONG_OUTPUT}'),
        ("0:stderr", f'"0:stderr": {WRONG_LEVEL}'),
        ("5:stderr", f'"5:stderr": {WRONG_LEVEL}'),
        ("debug:stderr", f'"debug:stderr": {WRONG_LEVEL}'),
        (":stderr", f'":stderr": {WRONG_LEVEL}'),
        ("3:stderr:", '"3:stderr:": nothing may follow "stderr"'),
        ("3:journald:x", '"3:journald:x": nothing may follow "journald"'),
        ("3:file", '"3:file": "file:" and one path without ":" must follow the level'),
        ("3:file:", '"3:file:": "file:" and one path without ":" must follow the level'),
        ("3:file:/a:b", '"3:file:/a:b": "file:" and one path without ":" must follow the level'),
        ("3:syslog", '"3:syslog": "syslog:" and one identifier without ":" must follow the level'),
        ("3:stderr 9:stderr", f'"9:stderr": {WRONG_LEVEL}'),
    ],
)
def test_one_wrong_output_refuses_the_whole_string_with_a_reason(text, reason):
    with pytest.raises(LogStringError) as caught:
        parse_outputs(text)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("1:rpc", (LogFilter(1, "*rpc*"),)),
        ("1:+rpc", (LogFilter(1, "*rpc*"),)),
        ("1:rpc:ignored:too", (LogFilter(1, "*rpc*"),)),
        ("4:util.*  3:a?c ", (LogFilter(4, "*util.**"), LogFilter(3, "*a?c*"))),
        ("1:rpc 4:rpc", (LogFilter(1, "*rpc*"), LogFilter(4, "*rpc*"))),
    ],
)
def test_filters_are_read_and_keep_their_order(text, expected):
    assert parse_filters(text) == expected


WRONG_FILTER = 'a filter is a level, ":" and a part of a category'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rpc", f'"rpc": {WRONG_FILTER}'),
        ("1:", f'"1:": {WRONG_FILTER}'),
        ("1:+", f'"1:+": {WRONG_FILTER}'),
        ("1::x", f'"1::x": {WRONG_FILTER}'),
        ("0:rpc", f'"0:rpc": {WRONG_LEVEL}'),
        ("11:rpc", f'"11:rpc": {WRONG_LEVEL}'),
        ("1:rpc x:util", f'"x:util": {WRONG_LEVEL}'),
    ],
)
def test_one_wrong_filter_refuses_the_whole_string_with_a_reason(text, reason):
    with pytest.raises(LogStringError) as caught:
        parse_filters(text)
    assert str(caught.value) == reason


def test_a_reason_quotes_only_the_beginning_and_stays_on_its_line():
    with pytest.raises(LogStringError) as caught:
        parse_outputs("x\ny" * 1000)
    assert str(caught.value).startswith('"x\\nyx')
    assert len(str(caught.value)) < 200


def test_outputs_are_read_back_as_they_were_given():
    assert format_outputs(parse_outputs("3:stderr  2:file:/x ")) == "3:stderr 2:file:/x"


def test_filters_are_read_back_with_their_stars_and_a_trailing_space():
    assert format_filters(parse_filters("1:rpc 4:+util")) == "1:*rpc* 4:*util* "


def test_reading_filters_back_in_adds_stars_as_in_libvirt():
    assert parse_filters("1:*rpc* ") == (LogFilter(1, "**rpc**"),)


def test_a_filter_fits_every_category_that_contains_its_part():
    (rpc,) = parse_filters("1:rpc")
    assert matches(rpc.pattern, "rpc.netserver")
    assert not matches(rpc.pattern, "util.error")


@given(st.lists(OUTPUTS, unique_by=lambda output: (output.kind, output.target)))
def test_formatted_outputs_parse_back(outputs):
    assert parse_outputs(format_outputs(outputs)) == tuple(outputs)


@pytest.mark.parametrize("parse", [parse_outputs, parse_filters])
@given(text=st.text(st.sampled_from("0123: +*stderrfilesyslog/x")) | st.text())
def test_any_text_gives_values_or_a_log_string_error(parse, text):
    with suppress(LogStringError):
        assert isinstance(parse(text), tuple)


@pytest.mark.parametrize(
    ("text", "level"), [("1", 1), ("4", 4), ("debug", 1), ("info", 2), ("warning", 3), ("error", 4)]
)
def test_the_debug_variable_takes_numbers_and_words(text, level):
    assert parse_level(text) == level


@pytest.mark.parametrize("text", ["", "0", "5", "DEBUG", "warn", " 1"])
def test_the_debug_variable_takes_nothing_else(text):
    with pytest.raises(LogStringError, match="a level is a number from 1 to 4 or debug, info"):
        parse_level(text)


def test_the_categories_are_those_of_the_program():
    used = {
        name
        for path in ROOT.rglob("*.py")
        for name in re.findall(r'getLogger\("([^"]+)"\)', path.read_text())
    }
    assert used == set(CATEGORIES)


@pytest.mark.parametrize(
    ("filters", "unheard"),
    [
        ("1:rpc 4:util", []),
        ("1:qemu 3:remote 4:libvirt", ["qemu", "libvirt"]),
        ("1:net*client", []),
        ("1:*", []),
        ("", []),
    ],
)
def test_filters_that_no_category_fits_are_known(filters, unheard):
    assert unheard_filters(parse_filters(filters)) == unheard


@pytest.mark.parametrize(
    ("level", "filters", "outputs", "unfed"),
    [
        (3, "", "1:stderr 3:file:/x", ["1:stderr"]),
        (3, "1:rpc", "1:stderr", []),
        (3, "4:rpc", "2:stderr", ["2:stderr"]),
        (1, "", "1:stderr", []),
        (4, "", "4:stderr", []),
        (2, "3:rpc", "", []),
    ],
)
def test_outputs_that_ask_for_more_than_there_is_are_known(level, filters, outputs, unfed):
    found = unfed_outputs(level, parse_filters(filters), parse_outputs(outputs))
    assert found == list(parse_outputs(" ".join(unfed)))
