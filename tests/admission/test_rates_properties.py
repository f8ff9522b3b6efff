"""No window has more than the burst and what came back in it, whoever else is counted."""

from hypothesis import given
from hypothesis import strategies as st

from proxyd.admission.rates import Buckets
from tests.fakes.hand_clock import HandClock

MOST = 4
STEPS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.001, 0.1, 0.5, 1.0, 7.0])), max_size=200
)
BUCKETS = {"a_second": st.sampled_from([0.2, 1.0, 3.0, 50.0]), "burst": st.integers(1, 5)}


def taken(steps, a_second, burst):
    """When each key got its tokens, of a table with room for fewer keys than come."""
    clock = HandClock()
    buckets = Buckets(a_second=a_second, burst=burst, most=MOST, clock=clock)
    times = {}
    for key, seconds in steps:
        clock.now += seconds
        if buckets.take(key):
            times.setdefault(key, []).append(clock.now)
        assert len(buckets) <= MOST
        assert len(buckets._order) <= 2 * MOST + 1
    return times


def most_beyond(times, a_second):
    """By how much a window has more than came back in it, at the most."""
    return max(
        (
            last - first + 1 - (times[last] - times[first]) * a_second
            for first in range(len(times))
            for last in range(first, len(times))
        ),
        default=0,
    )


@given(steps=STEPS, **BUCKETS)
def test_nobody_gets_more_than_the_rate_though_others_push_him_out(steps, a_second, burst):
    for times in taken(steps, a_second, burst).values():
        assert most_beyond(times, a_second) <= burst + 0.001


@given(steps=STEPS, **BUCKETS)
def test_all_together_get_no_more_than_those_that_are_remembered(steps, a_second, burst):
    times = sorted(at for each in taken(steps, a_second, burst).values() for at in each)
    assert most_beyond(times, MOST * a_second) <= MOST * burst + 0.001


@given(steps=STEPS, **BUCKETS)
def test_who_keeps_to_the_rate_is_never_refused_while_there_is_room(steps, a_second, burst):
    clock = HandClock()
    buckets = Buckets(a_second=a_second, burst=burst, clock=clock)
    for key, _ in steps:
        clock.now += 1 / a_second
        assert buckets.take(key)


@given(
    steps=STEPS,
    given_back=st.lists(st.booleans(), min_size=200, max_size=200),
    **BUCKETS,
)
def test_the_order_holds_where_tokens_are_given_back(steps, given_back, a_second, burst):
    clock = HandClock()
    buckets = Buckets(a_second=a_second, burst=burst, most=MOST, clock=clock)
    for (key, seconds), back in zip(steps, given_back, strict=False):
        clock.now += seconds
        if buckets.take(key) and back:
            buckets.give_back(key)
        fullest = buckets._fullest_of_all()
        if fullest is not None:
            assert buckets.owed(fullest) == min(map(buckets.owed, buckets._full_at))
        assert len(buckets._order) <= 2 * MOST + 1
