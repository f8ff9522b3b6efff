"""What the cells of the table say."""

import pytest

from tests.figures.measurements import BY_NAME
from tests.figures.rows import MEASUREMENTS, ROWS, Goal, Row, cells

RATIO = Row(name="r", measurement="m", title="a ratio", goal=Goal(1.2))
RATE = Row(name="r", measurement="m", title="a rate", unit="/s", goal=Goal(0.9, least=True))


def test_the_median_stands_before_the_spread_and_beside_the_goal():
    assert cells(RATIO, [1.31, 1.1, 1.15]) == ("1.15 (1.10 to 1.31)", "≤ 1.2", "yes")


def test_one_round_has_no_spread():
    assert cells(RATIO, [1.31]) == ("1.31", "≤ 1.2", "no")


def test_what_was_not_measured_reaches_nothing():
    assert cells(RATIO, []) == ("–", "≤ 1.2", "–")


def test_a_goal_is_reached_by_what_is_shown():
    assert cells(RATIO, [1.2004]) == ("1.20", "≤ 1.2", "yes")
    assert cells(RATE, [0.8951]) == ("0.90/s", "≥ 0.9/s", "yes")
    assert cells(RATE, [0.8949]) == ("0.89/s", "≥ 0.9/s", "no")


def test_a_row_without_a_goal_says_what_is_aimed_at():
    row = Row(name="r", measurement="m", title="t", unit="MiB/s", aim="as the cores allow")
    assert cells(row, [1426.3]) == ("1,426 MiB/s", "as the cores allow", "–")


@pytest.mark.parametrize("values", [[0.05, 1509.0], [-0.5, 0.01, 0.5], [0.0]])
def test_any_values_have_cells(values):
    told, _, _ = cells(RATIO, values)
    assert told


def test_no_two_rows_are_alike_and_each_is_measured_by_something():
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {*MEASUREMENTS} == {*BY_NAME}
