"""Text from outside in messages: one line, and no longer than it may be."""

import pytest

from proxyd.config.quoting import excerpt, one_line, shortened


def test_what_could_end_a_line_is_spelled_out():
    assert one_line("a\nb\x1b[2J\u2028\N{SNOWMAN}") == "a\\nb\\x1b[2J\\u2028\N{SNOWMAN}"


def test_controls_that_steer_a_terminal_or_hide_text_are_spelled_out():
    assert one_line("\x1b[2J \x9b2J \t \u202e \u2028 \x00") == (
        "\\x1b[2J \\x9b2J \\t \\u202e \\u2028 \\x00"
    )


def test_ordinary_text_of_any_language_stays_as_it_is():
    assert one_line("Größe 漢字 C:\\dir\u00a0") == "Größe 漢字 C:\\dir\u00a0"


def test_an_excerpt_is_cut_and_says_so():
    assert excerpt("abc\n", 3) == '"abc…"'


@pytest.mark.parametrize("text", ["", "abcdefgh"])
def test_what_is_short_enough_stays(text):
    assert shortened(text, 8) == text


def test_of_a_long_text_both_ends_stay():
    assert shortened("abcdefgh" + "x" * 100 + "yz", 8) == "abcdef… (102 characters) …yz"
