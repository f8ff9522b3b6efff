"""Text from outside in messages: one line, and no longer than it may be."""

import pytest

from proxyd.config.quoting import excerpt, one_line, shortened


def test_what_could_end_a_line_is_spelled_out():
    assert one_line("a\nb\x1b[2J\u2028\N{SNOWMAN}") == "a\\nb\\x1b[2J\\u2028\N{SNOWMAN}"


def test_an_excerpt_is_cut_and_says_so():
    assert excerpt("abc\n", 3) == '"abc…"'


@pytest.mark.parametrize("text", ["", "abcdefgh"])
def test_what_is_short_enough_stays(text):
    assert shortened(text, 8) == text


def test_of_a_long_text_both_ends_stay():
    assert shortened("abcdefgh" + "x" * 100 + "yz", 8) == "abcdef… (102 characters) …yz"
