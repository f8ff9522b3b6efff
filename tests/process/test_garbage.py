"""Full collections come when few are there to notice, and at the latest after an hour."""

import gc
import logging

import pytest
import trio
import trio.testing

from proxyd.admission.admission import Admission
from proxyd.config.listeners import Door
from proxyd.process.garbage import collect_garbage
from proxyd.session.roster import Roster
from proxyd.wire.programs import AuthMethod
from tests.session.desk import seated

DOOR = Door(name="libvirt-sock", method=AuthMethod.NONE, readonly=False, own_uid_only=False)


@pytest.fixture
def full(monkeypatch):
    """The times of full collections, by trio's clock."""
    times = []
    monkeypatch.setattr(gc, "collect", lambda: times.append(trio.current_time()))
    return times


@pytest.fixture
def roster():
    return Roster(Admission(max_clients=999, max_anonymous=0))


def nothing(why):
    """Nobody ends these."""


async def run_for(seconds, roster):
    with trio.move_on_after(seconds):
        await collect_garbage(roster)


async def test_nobody_is_disturbed_by_one_every_ten_minutes(autojump_clock, full, roster):
    began = trio.current_time()
    await run_for(1900, roster)
    assert [round(at - began) for at in full] == [600, 1200, 1800]


async def test_beside_many_clients_it_is_put_off_for_an_hour(autojump_clock, full, roster):
    for _ in range(200):
        seated(roster, DOOR, end=nothing)
    began = trio.current_time()
    await run_for(7300, roster)
    assert [round(at - began) for at in full] == [3600, 7200]


async def test_a_thousand_refused_clients_are_not_kept_waiting(autojump_clock, full, roster):
    for _ in range(200):
        seated(roster, DOOR, end=nothing)
    for _ in range(1000):
        roster.ended(seated(roster, DOOR, end=nothing), "refused", logging.DEBUG)
    began = trio.current_time()
    roster.unopened -= 1000  # the daemon has just begun
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect_garbage, roster)
        await trio.testing.wait_all_tasks_blocked()
        roster.unopened += 1000
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [round(at - began) for at in full] == [1]


async def test_python_collects_as_before_when_it_is_over(autojump_clock, roster):
    before = gc.get_threshold()
    await run_for(1, roster)
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


async def test_meanwhile_it_never_makes_a_full_one_by_itself(autojump_clock, nursery, roster):
    nursery.start_soon(collect_garbage, roster)
    await trio.testing.wait_all_tasks_blocked()
    assert gc.get_threshold()[2] > 100_000
    assert gc.get_freeze_count() > 0
    nursery.cancel_scope.cancel()
