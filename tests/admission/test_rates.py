"""Token buckets, and who is over the rate of connections."""

import time

import pytest

from proxyd.admission.holder import UNKNOWN_USERS, Holder, Rank
from proxyd.admission.rates import MOST, Buckets, ConnectionRate, Over
from tests.fakes.hand_clock import HandClock

JOE = Holder("uid 1000", Rank.LOCAL, 1000)
SITE = Holder("2001:db8::/64", Rank.NETWORK)


@pytest.fixture
def clock():
    return HandClock()


def all_taken(buckets, key):
    count = 0
    while buckets.take(key):
        count += 1
    return count


def test_a_burst_is_let_through_and_then_the_rate(clock):
    buckets = Buckets(a_second=2.0, burst=5, clock=clock)
    assert all_taken(buckets, "a") == 5
    assert buckets.is_empty("a")
    assert not buckets.is_empty("b")
    clock.now += 0.5
    assert all_taken(buckets, "a") == 1
    clock.now += 1000
    assert all_taken(buckets, "a") == 5


def test_without_a_rate_nobody_is_remembered(clock):
    buckets = Buckets(clock=clock)
    assert all(buckets.take("a") for _ in range(1000))
    assert not buckets.is_empty("a")
    assert len(buckets) == 0


def test_what_is_given_back_can_be_taken_again(clock):
    buckets = Buckets(a_second=0.1, burst=2, clock=clock)
    assert all_taken(buckets, "a") == 2
    buckets.give_back("a")
    assert all_taken(buckets, "a") == 1
    buckets.give_back("a", 100)
    buckets.give_back("nobody")
    assert buckets.owed("a") == 0
    assert len(buckets) == 0


def test_a_newcomer_to_a_full_table_takes_over_the_fullest_bucket_as_it_is(clock):
    buckets = Buckets(a_second=0.001, burst=3, most=2, clock=clock)
    buckets.take("a")
    assert all_taken(buckets, "b") == 3
    assert all_taken(buckets, "c") == 2  # what "a" has left
    assert buckets.is_empty("a")  # and comes back to
    assert all_taken(buckets, "a") == 0
    assert len(buckets) == 2


def test_who_is_refused_pushes_nobody_out(clock):
    buckets = Buckets(a_second=1.0, burst=1, most=2, clock=clock)
    buckets.take("a")
    clock.now += 0.1
    buckets.take("b")
    assert not buckets.take("c")
    clock.now += 0.9
    assert buckets.take("a")


def test_a_full_bucket_is_free_to_be_taken_over(clock):
    buckets = Buckets(a_second=1.0, burst=3, most=2, clock=clock)
    all_taken(buckets, "a")
    all_taken(buckets, "b")
    clock.now += 3
    assert all_taken(buckets, "c") == 3


def test_a_change_of_the_rate_forgives_nobody(clock):
    buckets = Buckets(a_second=1.0, burst=10, clock=clock)
    all_taken(buckets, "a")
    buckets.take("b")
    buckets.change(a_second=0.5, burst=4)
    assert buckets.owed("a") == pytest.approx(4)  # as many as there can be
    assert buckets.owed("b") == pytest.approx(1)
    clock.now += 2
    assert all_taken(buckets, "a") == 1
    buckets.change(a_second=0.0, burst=4)
    assert len(buckets) == 0
    assert buckets.take("a")


def test_a_flood_of_newcomers_costs_each_no_more_than_a_search_in_order(clock):
    """The worst there is: the table is full, and each one pushes another one out."""
    buckets = Buckets(a_second=1000.0, burst=1_000_000, clock=clock)
    for key in range(MOST):
        buckets.take(key)
    began = time.process_time()
    for key in range(20_000):
        buckets.take(MOST + key)
    assert (time.process_time() - began) / 20_000 < 50e-6  # 4 measured
    assert len(buckets) == MOST


@pytest.mark.parametrize(("rank", "let_off"), [(Rank.OWN, True), (Rank.LOCAL, False)])
def test_root_may_come_as_often_as_he_likes(clock, rank, let_off):
    rate = ConnectionRate(1.0, 1, clock)
    holder = Holder("uid 0", rank, 0)
    assert rate.admits(holder)
    assert rate.admits(holder) is let_off


def test_each_holder_has_a_rate_of_his_own_and_whoever_is_over_is_told_of(clock):
    rate = ConnectionRate(1.0, 2, clock)
    assert [rate.admits(JOE) for _ in range(3)] == [True, True, False]
    assert rate.admits(SITE)
    assert rate.admits(UNKNOWN_USERS)
    assert rate.over.names() == ["uid 1000"]
    clock.now += 61
    assert rate.over.names() == []


def test_a_change_that_changes_nothing_leaves_all_as_it_is(clock):
    rate = ConnectionRate(3.0, 2, clock)
    rate.admits(JOE)
    rate.admits(JOE)
    rate.change(a_second=3, burst=2)
    assert not rate.admits(JOE)


def test_of_those_who_are_over_the_latest_are_shown(clock):
    over = Over(clock)
    for number in range(100):
        over.note(f"uid {number}")
    over.note("uid 50")
    assert over.names()[:3] == ["uid 50", "uid 99", "uid 98"]
    assert len(over.names()) == 64
