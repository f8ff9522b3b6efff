import select
from contextlib import closing
from time import perf_counter_ns

import pytest

from loadtest.running.alarm import Alarm


@pytest.fixture
def alarm():
    with closing(Alarm()) as alarm:
        yield alarm


@pytest.fixture
def heard(alarm):
    """Whether it rings within so many seconds."""
    with select.epoll() as epoll:
        epoll.register(alarm, select.EPOLLIN | select.EPOLLET)
        yield lambda wait_s: bool(epoll.poll(wait_s))


def test_it_rings_when_the_moment_has_come_and_not_before(alarm, heard):
    at = perf_counter_ns() + 20_000_000
    alarm.ring(at)
    assert not heard(0)
    assert heard(5)
    assert perf_counter_ns() >= at


def test_it_rings_again_without_having_been_read(alarm, heard):
    for _ in range(3):
        alarm.ring(perf_counter_ns() + 1_000_000)
        assert heard(5)
    assert not heard(0)


def test_a_moment_that_has_passed_rings_at_once(alarm, heard):
    alarm.ring(perf_counter_ns() - 1_000_000)
    assert heard(5)
