import pytest

from loadtest.showing.words import (
    amount,
    brief_duration,
    brief_number,
    clean,
    duration,
    number,
    share,
    shortened,
)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (None, "–"),
        (0, "0s"),
        (0.4, "0.4ns"),
        (7, "7.00ns"),
        (812, "812ns"),
        (999.9, "1.00µs"),
        (80_063, "80.1µs"),
        (999_960, "1.00ms"),
        (1_310_000, "1.31ms"),
        (9_996_000, "10.0ms"),
        (30e9, "30.0s"),
        (86_400e9, "86400s"),
    ],
)
def test_a_duration_has_three_digits_and_a_unit(nanoseconds, text):
    assert duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "–"),
        (0, 5, "0%"),
        (5, 5, "100%"),
        (999_999, 1_000_000, ">99.99%"),
        (1, 1_000_000, "<0.01%"),
        (1, 8, "12.50%"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_nothing(part, whole, text):
    assert share(part, whole) == text


def test_numbers_and_amounts():
    assert [number(one) for one in (None, 0, 0.25, 98.76, 999.9, 1234567)] == [
        *("–", "0", "0.250", "98.8", "1,000", "1,234,567"),
    ]
    assert [amount(one) for one in (0, 1023, 1536, 5 << 30)] == [
        *("0 B", "1023 B", "1.50 KiB", "5.00 GiB"),
    ]
    assert [brief_number(one) for one in (0.5, 1e6)] == ["0.5", "1,000,000"]
    assert [brief_duration(one) for one in (0, 500, 2e7, 3e9)] == ["0", "500ns", "20ms", "3s"]


def test_what_steers_a_terminal_or_turns_a_line_is_replaced():
    assert clean("a\x1b[2Jb\nc\u202ed\ud800é") == "a�[2Jb�c�d�é"


def test_a_long_name_keeps_both_ends():
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 6) == "ab…ijk"
