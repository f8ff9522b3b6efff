import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.showing import scales
from loadtest.showing.words import brief_duration, brief_number


def texts(scale):
    return [text for _, text in scale.ticks]


@pytest.mark.parametrize(
    ("highest", "expected"),
    [
        (0, ["0", "2e-10"]),
        (1, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (986, ["0", "200", "400", "600", "800", "1,000"]),
        (33_000, ["0", "10,000", "20,000", "30,000", "40,000"]),
    ],
)
def test_a_linear_axis_goes_from_zero_to_a_round_number(highest, expected):
    assert texts(scales.linear(highest, brief_number)) == expected


def test_a_logarithmic_axis_has_round_numbers_around_all():
    scale = scales.logarithmic(80e3, 3.9e6, brief_duration)
    assert texts(scale) == ["50µs", "100µs", "200µs", "500µs", "1ms", "2ms", "5ms"]
    assert texts(scales.logarithmic(1, 6e10, brief_duration))[::5] == ["1ns", "100µs", "10s"]


def test_nines_are_equally_wide():
    scale = scales.percentiles(10_000)
    assert texts(scale) == ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]
    assert [scale.place(value) for value, _ in scale.ticks] == pytest.approx(
        [0, 0.25, 0.5, 0.75, 1]
    )
    assert scale.place(100) == 1
    assert texts(scales.percentiles(0)) == ["0 %", "90 %", "99 %"]


@pytest.mark.parametrize(
    ("seconds", "last"),
    [(0, "0.001 s"), (1, "1 s"), (30, "30 s"), (200, "180 s"), (600, "10 min"), (86400, "24 h")],
)
def test_time_is_told_in_units_that_people_count_in(seconds, last):
    assert texts(scales.elapsed(seconds))[-1] == last


@given(st.floats(1e-3, 1e9), st.floats(1, 1e9), st.floats(0, 1))
def test_all_that_lies_between_has_its_place(lowest, factor, part):
    highest = lowest * factor
    value = lowest + (highest - lowest) * part
    made = [
        scales.linear(highest, str),
        scales.logarithmic(lowest, highest, str),
        scales.elapsed(highest),
    ]
    for scale in made:
        assert 0 <= scale.place(value) <= 1
        assert scale.low <= lowest * 1.000001
        assert scale.high >= highest * 0.999999
        assert 1 <= len(scale.ticks) <= 30
