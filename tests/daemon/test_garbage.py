"""Full collections come when few are there to notice, and at the latest after an hour."""

import gc

import pytest
import trio
import trio.testing

from proxyd.config.listening import Transport
from proxyd.daemon.garbage import collect_garbage
from proxyd.session.admission import Admission


@pytest.fixture
def full(monkeypatch):
    """The times of full collections, by trio's clock."""
    times = []
    monkeypatch.setattr(gc, "collect", lambda: times.append(trio.current_time()))
    return times


async def run_for(seconds, admission):
    with trio.move_on_after(seconds):
        await collect_garbage(admission)


async def test_nobody_is_disturbed_by_one_every_ten_minutes(autojump_clock, full):
    began = trio.current_time()
    await run_for(1900, Admission(max_clients=9, max_anonymous=0))
    assert [round(at - began) for at in full] == [600, 1200, 1800]


async def test_beside_many_clients_it_is_put_off_for_an_hour(autojump_clock, full):
    admission = Admission(max_clients=999, max_anonymous=0)
    for _ in range(200):
        admission.arrived(Transport.UNIX, anonymous=False)
    began = trio.current_time()
    await run_for(7300, admission)
    assert [round(at - began) for at in full] == [3600, 7200]


async def test_python_collects_as_before_when_it_is_over(autojump_clock):
    before = gc.get_threshold()
    await run_for(1, Admission(max_clients=9, max_anonymous=0))
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


async def test_meanwhile_it_never_makes_a_full_one_by_itself(autojump_clock, nursery):
    nursery.start_soon(collect_garbage, Admission(max_clients=9, max_anonymous=0))
    await trio.testing.wait_all_tasks_blocked()
    assert gc.get_threshold()[2] > 100_000
    assert gc.get_freeze_count() > 0
    nursery.cancel_scope.cancel()
