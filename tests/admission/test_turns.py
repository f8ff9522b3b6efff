import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.admission.turns import Turns


class Asker:
    """One that takes a turn and keeps it until told otherwise."""

    def __init__(self, turns, key, nursery):
        self.turns, self.key = turns, key
        self.has_it, self.over = False, trio.Event()
        self.scope = trio.CancelScope()
        nursery.start_soon(self._ask)

    async def _ask(self):
        with self.scope:
            await self.turns.take(self.key)
            self.has_it = True
            await self.over.wait()
            self.turns.give_back(self.key)


def holding(askers):
    return [asker.has_it for asker in askers]


async def test_so_many_of_one_key_have_their_turn_and_the_others_follow_in_their_order(nursery):
    turns = Turns(2)
    askers = []
    for _ in range(4):
        askers.append(Asker(turns, "a", nursery))
        await wait_all_tasks_blocked()
    assert holding(askers) == [True, True, False, False]

    askers[1].over.set()
    await wait_all_tasks_blocked()

    assert holding(askers) == [True, True, True, False]
    assert (turns.held, turns.held_by("a")) == (2, 2)


async def test_nobody_waits_in_anothers_line(nursery):
    turns = Turns(1)
    first, second = (Asker(turns, "a", nursery) for _ in range(2))
    other = Asker(turns, "b", nursery)
    await wait_all_tasks_blocked()
    assert sorted(holding([first, second])) == [False, True]
    assert other.has_it


@pytest.mark.parametrize("keys", [1, 2, 7])
async def test_of_a_total_something_is_always_left_for_the_next(nursery, keys):
    turns = Turns(20, total=100)
    for key in range(keys):
        for _ in range(200):
            Asker(turns, key, nursery)
    await wait_all_tasks_blocked()
    assert turns.held < 100
    assert max(turns.held_by(key) for key in range(keys)) <= 20

    another = Asker(turns, "another", nursery)
    await wait_all_tasks_blocked()

    assert another.has_it
    nursery.cancel_scope.cancel()


async def test_who_gives_up_leaves_the_line_and_no_trace(nursery):
    turns = Turns(1)
    first = Asker(turns, "a", nursery)
    await wait_all_tasks_blocked()
    second, third = (Asker(turns, "a", nursery) for _ in range(2))
    await wait_all_tasks_blocked()

    second.scope.cancel()
    await wait_all_tasks_blocked()
    first.over.set()
    await wait_all_tasks_blocked()

    assert third.has_it
    third.over.set()
    await wait_all_tasks_blocked()
    assert (turns.held, turns.take_now("a")) == (0, True)


async def test_a_turn_that_comes_at_the_moment_of_giving_up_is_not_lost(nursery):
    turns = Turns(1)
    assert turns.take_now("a")
    asker = Asker(turns, "a", nursery)
    await wait_all_tasks_blocked()

    turns.give_back("a")
    asker.scope.cancel()
    await wait_all_tasks_blocked()

    assert turns.held == asker.has_it


async def test_who_comes_does_not_overtake_those_in_line(nursery):
    turns = Turns(1)
    turns.take_now("a")
    waiting = Asker(turns, "a", nursery)
    await wait_all_tasks_blocked()
    turns.change(2)
    await wait_all_tasks_blocked()
    assert waiting.has_it
    assert not turns.take_now("a")
    nursery.cancel_scope.cancel()


def test_zero_is_any_number():
    turns = Turns(0)
    assert all(turns.take_now("a") for _ in range(1000))
