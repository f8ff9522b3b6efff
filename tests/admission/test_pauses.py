"""Pauses that grow, add up and are forgotten."""

import pytest

from proxyd.admission.pauses import Pauses
from tests.fakes.hand_clock import HandClock


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def pauses(clock):
    return Pauses(most=3, clock=clock)


def test_each_failure_doubles_the_pause_up_to_eight_seconds(pauses, clock):
    seen = []
    for _ in range(8):
        until = pauses.lengthen("a")
        seen.append(until - clock.now)
        clock.now = until
    assert seen == [0.25, 0.5, 1, 2, 4, 8, 8, 8]


def test_pauses_of_those_who_fail_side_by_side_add_up(pauses, clock):
    for _ in range(5):
        pauses.lengthen("a")
    assert pauses.until("a") - clock.now == 0.25 + 0.5 + 1 + 2 + 4
    for _ in range(1000):
        pauses.lengthen("a")
    assert pauses.until("a") - clock.now == 60


def test_a_minute_without_any_forgets_them(pauses, clock):
    for _ in range(3):
        clock.now = pauses.lengthen("a")
    clock.now += 59
    assert pauses.failures("a") == 3
    clock.now += 1
    assert pauses.failures("a") == 0
    assert pauses.lengthen("a") - clock.now == 0.25


def test_what_is_forgiven_is_as_if_it_had_not_been(pauses, clock):
    for _ in range(3):
        pauses.lengthen("a")
    pauses.shorten("a", 2)
    pauses.shorten("b", 2)
    assert pauses.failures("a") == 1
    assert pauses.until("a") > clock.now
    pauses.shorten("a", 1)
    assert pauses.until("a") == 0
    assert len(pauses) == 0


def test_those_who_are_remembered_are_bounded_and_the_oldest_makes_way(pauses):
    for key in "abacd":
        pauses.lengthen(key)
    assert [pauses.failures(key) for key in "abcd"] == [2, 0, 1, 1]
    pauses.clear()
    assert len(pauses) == 0
