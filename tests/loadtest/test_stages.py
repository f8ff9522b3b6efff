from itertools import chain, count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.failures import UsageError
from loadtest.running.plan import Part
from loadtest.stages import parse_stages, steady

RAMP = parse_stages("10s:100,30s:1000,10s:0")


def test_levels_go_in_straight_lines_from_stage_to_stage():
    levels = [RAMP.level(at_s) for at_s in (-1, 0, 5, 10, 25, 40, 45, 50, 60)]
    assert levels == [0, 0, 50, 100, 550, 1000, 500, 0, 0]
    assert (RAMP.length_s, RAMP.highest) == (50, 1000)


def test_amounts_are_the_area_below_the_line():
    assert [RAMP.amount(at_s) for at_s in (0, 10, 40, 50)] == [0, 500, 17000, 22000]


def test_a_steady_rate_is_evenly_spaced():
    moments = list(steady(100.0, 2.0).moments(count(0.5)))
    assert len(moments) == 200
    assert {round(two - one, 9) for one, two in pairwise(moments)} == {0.01}


def test_as_many_calls_come_as_the_ramp_holds():
    moments = list(RAMP.moments(count(0.5)))
    assert len(moments) == 22000
    assert sum(moment < 10 for moment in moments) == 500
    assert moments == sorted(moments)


def test_a_level_twice_holds_it():
    assert len(list(parse_stages("1s:10,2s:10").moments(count(0.5)))) == 25


levels = st.integers(min_value=0, max_value=2000)
stages = st.lists(st.tuples(st.integers(min_value=1, max_value=9), levels), min_size=1, max_size=5)


@given(stages.filter(lambda made: any(level for _, level in made)))
def test_a_moment_is_when_its_amount_has_come(made):
    course = parse_stages(",".join(f"{length}s:{level}" for length, level in made))
    assert parse_stages(course.text) == course
    moments = list(course.moments(count(0.5, 37)))
    for number, moment in enumerate(moments):
        assert course.amount(moment) == pytest.approx(0.5 + 37 * number, rel=1e-6)


def test_workers_together_are_as_even_as_one():
    course = steady(100.0, 1.0)
    shares = [list(course.moments(Part(place, 3).counts(poisson=False))) for place in range(3)]
    assert sorted(chain.from_iterable(shares)) == list(course.moments(count(0.5)))


def test_random_arrivals_have_the_rate_in_the_mean():
    moments = list(steady(1000.0, 20.0).moments(Part(0, 1).counts(poisson=True)))
    assert 19_000 < len(moments) < 21_000
    gaps = sorted(two - one for one, two in pairwise(moments))
    # Of an exponential distribution half is below ln 2 of the mean.
    assert gaps[len(gaps) // 2] == pytest.approx(0.000693, rel=0.1)


@pytest.mark.parametrize("number", range(10))
def test_shares_of_what_cannot_be_cut_are_all_of_it(number):
    shares = [Part(place, 4).share(number) for place in range(4)]
    assert sum(shares) == number
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "stage '': expected DURATION:LEVEL"),
        ("10s", "stage '10s': expected DURATION:LEVEL, as in 10s:100"),
        ("10s:x", "stage '10s:x': 'x' is no rate"),
        ("0s:5", "stage '0s:5': '0s' is no duration"),
        ("1s:0,2s:0", "never rise above 0"),
    ],
)
def test_what_is_no_stage_is_refused_with_what_was_expected(text, complaint):
    with pytest.raises(UsageError) as refused:
        parse_stages(text)
    assert complaint in str(refused.value)
