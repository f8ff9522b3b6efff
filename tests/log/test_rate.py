"""How many messages of one kind get into the log."""

from proxyd.log.rate import LogRate


def admitted(rate, kind, tries, now):
    return sum(rate.admits(kind, now) for _ in range(tries))


def test_a_burst_is_admitted_up_to_the_store():
    rate = LogRate(most_at_once=5, a_second=2)
    assert admitted(rate, "a", 9, now=0) == 5


def test_the_store_fills_up_steadily_and_never_over():
    rate = LogRate(most_at_once=5, a_second=2)
    admitted(rate, "a", 9, now=0)
    assert admitted(rate, "a", 9, now=0.4) == 0
    assert admitted(rate, "a", 9, now=1) == 2
    assert admitted(rate, "a", 9, now=1000) == 5


def test_tries_that_are_refused_do_not_hold_the_store_empty():
    rate = LogRate(most_at_once=1, a_second=1)
    assert [rate.admits("a", tenth / 10) for tenth in range(21)].count(True) == 3


def test_one_kind_costs_another_nothing():
    rate = LogRate(most_at_once=5, a_second=2)
    admitted(rate, "a", 1000, now=0)
    assert admitted(rate, "b", 9, now=0) == 5
