"""When a daemon that nobody needs ends: on a clock that jumps, with nothing behind a socket."""

import logging

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.admission.admission import Admission
from proxyd.daemon.idle import IdleExit
from tests.session.desk import SOMEBODY

PLACES = {}


class House:
    """Clients and admin clients, and when their daemon ended: None while it runs."""

    def __init__(self, seconds):
        self.clients = Admission(max_clients=10, max_anonymous=0)
        self.visitors = Admission(max_clients=10, max_anonymous=0)
        self.idle = IdleExit(seconds, (self.clients, self.visitors), self._end)
        self.ended_at = None
        self.began = trio.current_time()

    def _end(self):
        assert self.ended_at is None, "it ended twice"
        self.ended_at = trio.current_time() - self.began
        self.clients.close()
        self.visitors.close()

    async def waited(self, seconds):
        """Lets so much time pass; whether it still runs."""
        await trio.sleep(seconds)
        await wait_all_tasks_blocked()
        return self.ended_at is None


@pytest.fixture
def house(nursery):
    """Makes one whose daemon ends after so many seconds without a client."""

    def make(seconds):
        made = House(seconds)
        nursery.start_soon(made.idle.run)
        return made

    return make


def come(crowd):
    PLACES[crowd] = crowd.seat(SOMEBODY)


def go(crowd):
    crowd.left(PLACES.pop(crowd))


async def test_it_ends_when_nobody_ever_came(autojump_clock, house, caplog):
    with caplog.at_level(logging.INFO):
        made = house(30)
        assert await made.waited(29.9)
        assert not await made.waited(0.2)
    assert made.ended_at == pytest.approx(30)
    assert caplog.messages == ["no client for 30 s: exiting"]


async def test_zero_seconds_are_never(autojump_clock, house):
    assert await house(0).waited(1e9)


@pytest.mark.parametrize("crowd", ["clients", "visitors"])
async def test_it_counts_from_when_the_last_client_left(autojump_clock, house, crowd):
    made = house(30)
    come(getattr(made, crowd))
    assert await made.waited(1000)
    go(getattr(made, crowd))
    assert await made.waited(29.9)
    assert not await made.waited(0.2)


async def test_while_either_crowd_has_somebody_it_goes_on(autojump_clock, house):
    made = house(30)
    come(made.clients)
    come(made.visitors)
    go(made.clients)
    assert await made.waited(1000)
    go(made.visitors)
    assert not await made.waited(31)


async def test_a_daemon_that_is_drained_waits_for_whoever_lets_in_again(autojump_clock, house):
    made = house(30)
    assert await made.waited(20)
    made.clients.drain(on=True)
    assert await made.waited(1000)
    made.clients.drain(on=False)
    assert await made.waited(29.9)
    assert not await made.waited(0.2)


async def test_the_last_one_who_leaves_a_drained_daemon_does_not_end_it(autojump_clock, house):
    made = house(30)
    come(made.clients)
    made.clients.drain(on=True)
    go(made.clients)
    assert await made.waited(1000)


async def test_one_of_two_that_leaves_ends_nothing(autojump_clock, house):
    made = house(30)
    come(made.clients)
    come(made.clients)
    await made.waited(5)
    go(made.clients)
    assert await made.waited(1000)


@pytest.mark.parametrize(
    ("before", "after", "at"),
    [(100, 10, 15), (10, 100, 105), (0, 10, 15), (10, 10, 15), (10, 1, 6)],
)
async def test_a_change_counts_from_the_moment_it_is_made(autojump_clock, house, before, after, at):
    made = house(before)
    await made.waited(5)
    made.idle.change(after)
    assert await made.waited(after - 0.1)
    assert not await made.waited(0.2)
    assert made.ended_at == pytest.approx(at)
    assert made.idle.seconds == after


async def test_a_change_to_zero_is_never(autojump_clock, house):
    made = house(10)
    await made.waited(5)
    made.idle.change(0)
    assert await made.waited(1e9)


async def test_a_change_while_somebody_is_connected_counts_from_when_that_one_leaves(
    autojump_clock, house
):
    made = house(0)
    come(made.visitors)
    await made.waited(5)
    made.idle.change(10)
    assert await made.waited(1000)
    go(made.visitors)
    assert await made.waited(9.9)
    assert not await made.waited(0.2)


async def test_a_client_at_the_last_moment_saves_it(autojump_clock, house):
    made = house(10)
    assert await made.waited(9.999)
    come(made.clients)
    assert await made.waited(100)
    go(made.clients)
    assert not await made.waited(10.001)


@pytest.mark.parametrize("saves", ["a client", "a change"])
async def test_whoever_is_as_early_as_the_end_itself_saves_it(
    autojump_clock, nursery, saves, monkeypatch
):
    made = House(10)

    class AtTheVeryMoment:
        """Stands for tasks that run in the turn of the loop in which the time is up."""

        def __init__(self):
            self._event = trio.Event()
            self.set, self.is_set = self._event.set, self._event.is_set

        async def wait(self):
            try:
                await trio.sleep_forever()
            finally:
                come(made.clients) if saves == "a client" else made.idle.change(0)

    monkeypatch.setattr(made.idle, "_changed", AtTheVeryMoment())
    nursery.start_soon(made.idle.run)
    assert await made.waited(100)


@pytest.mark.parametrize("turns", range(12))
@pytest.mark.parametrize("start_turns", [0, 1, 2, 3])
async def test_a_client_that_stays_for_a_few_turns_of_the_loop_is_not_waited_for_afterwards(
    autojump_clock, house, start_turns, turns
):
    made = house(10)
    for _ in range(start_turns):
        await trio.lowlevel.checkpoint()
    come(made.clients)
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    go(made.clients)
    assert not await made.waited(10.1)


@pytest.mark.parametrize("turns", range(8))
async def test_a_change_shortly_after_another_one_is_heard(autojump_clock, house, turns):
    made = house(0)
    await wait_all_tasks_blocked()
    made.idle.change(0)
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    made.idle.change(10)
    assert not await made.waited(10.1)
