"""Names as hostile as they can be are one harmless line, and can be told from each other."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.audit.escape import plain

HOSTILE = [
    ("guest", "guest"),
    ("two words", "two words"),
    ("a\nb", "a\\nb"),
    ("a\r\x1b[2J\0", "a\\r\\x1b[2J\\x00"),
    ("\u202ereversed\u200b", "\\u202ereversed\\u200b"),
    ("\x85\x9b", "\\u0085\\u009b"),
    (b"\x85\xff", "\\x85\\xff"),
    (b"caf\xc3\xa9", "café"),
    ("back\\slash", "back\\\\slash"),
    ("\U000e0001", "\\U000e0001"),
    ("\udcff", "\\xff"),
]


@pytest.mark.parametrize(("value", "expected"), HOSTILE)
def test_what_would_not_be_seen_is_spelled_out(value, expected):
    assert plain(value, 100) == expected


@pytest.mark.parametrize(
    "value", ["x" * 65536, b"x" * 65536, "\n" * 65536, b"\xff" * 65536, "é" * 9]
)
@pytest.mark.parametrize("longest", [10, 16, 17, 512])
def test_what_is_too_long_is_cut_between_two_characters(value, longest):
    if len(value) * 2 <= longest:
        return
    cut = plain(value, longest)
    assert longest - 9 <= len(cut.encode()) <= longest
    assert cut.endswith("…")
    assert set(cut[:-1].replace("\\n", "").replace("\\xff", "")) <= {"x", "é"}


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)), st.integers(16, 300))
def test_any_value_is_one_line_that_fits(value, longest):
    text = plain(value, longest)
    assert text.isprintable()
    assert len(text.encode()) <= longest


@given(st.binary(max_size=60))
def test_what_was_sent_can_be_told(value):
    text = plain(value, 10_000)
    literal = ast.literal_eval("'" + text.replace("'", "\\'") + "'")
    # \xNN stands for a byte that is no UTF-8, or for a character of ASCII.
    raw = b"".join(
        bytes([ord(each)]) if each < "\x80" or spelled else each.encode()
        for each, spelled in _spelled(text, literal)
    )
    assert raw == value


def _spelled(text, literal):
    """Each character, and whether it was written as a byte."""
    at = 0
    for each in literal:
        if text[at] != "\\":
            yield each, False
            at += 1
            continue
        kind = text[at + 1]
        yield each, kind == "x"
        at += {"x": 4, "u": 6, "U": 10}.get(kind, 2)
