"""How many of what the limit of open descriptors has room for."""

import os
import resource

import pytest

from proxyd.admission.capacity import Capacity
from proxyd.process.descriptors import encrypting_allowed, fitting, pipes_allowed, room_for_sessions


@pytest.mark.parametrize(
    ("limit", "pipes"), [(8, 0), (64, 4), (128, 8), (256, 16), (1024, 64), (524288, 64)]
)
def test_pipes_have_an_eighth_of_all_descriptors_at_most(limit, pipes):
    assert pipes_allowed(limit) == pipes
    assert 2 * pipes_allowed(limit) <= limit / 8


@pytest.mark.parametrize(
    ("processors", "limit", "threads"),
    [(1, 1024, 1), (2, 1024, 2), (2, 64, 1), (8, 256, 4), (8, 8192, 8), (256, 524288, 8)],
)
def test_a_thread_that_encrypts_for_each_processor(monkeypatch, processors, limit, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    assert encrypting_allowed(limit, by_network=True) == threads
    assert encrypting_allowed(limit, by_network=False) == 1


@pytest.mark.parametrize("processors", [1, 8, 256])
@pytest.mark.parametrize("by_network", [False, True])
@pytest.mark.parametrize("limit", [256, 1024, 8192])
def test_all_that_may_be_held_at_one_time_fits_with_a_reserve(
    monkeypatch, limit, by_network, processors
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    room = room_for_sessions(by_network=by_network)
    held = Capacity.of(room, by_network=by_network).descriptors + 2 * pipes_allowed(limit)
    held += 3 * (encrypting_allowed(limit, by_network=by_network) - 1)
    assert held + len(os.listdir("/proc/self/fd")) + 10 < limit


def test_the_log_says_how_many_more_it_takes(caplog):
    assert fitting(100, 50) == 50
    assert "there are descriptors for 50 only" in caplog.messages[0]
    assert fitting(50, 100) == 50
    assert len(caplog.messages) == 1
