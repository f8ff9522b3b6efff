import pytest

from loadtest.figures import Figure
from loadtest.tables import NOTHING, size, spread, table


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Figure(1.234, (1.2, 1.3)), "1.23 (1.20..1.30)"),
        (Figure(-0.001, (-0.002, 0.001)), "0.00 (0.00..0.00)"),
        (Figure(99, (98, 123.45)), "99.0 (98.0..123.5)"),
        (None, NOTHING),
    ],
)
def test_a_number_stands_with_its_rounds(figure, text):
    assert spread(figure) == text


def test_columns_are_as_wide_as_their_widest_cell():
    assert table(["a", "b"], [["long", "1"], ["x", "200"]]) == "a       b\nlong    1\nx     200"


@pytest.mark.parametrize(
    ("count", "text"),
    [(1 << 30, "1 GiB"), (3 << 20, "3 MiB"), (1536, "1536 bytes"), (5 << 10, "5 KiB")],
)
def test_bytes_are_shown_in_their_largest_whole_unit(count, text):
    assert size(count) == text
