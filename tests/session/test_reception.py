"""What becomes of a connection of this host for which there is no place."""

import logging

import pytest
from trio.testing import wait_all_tasks_blocked

from proxyd.admission.capacity import Capacity
from proxyd.peer.credentials import Denied
from proxyd.session.refusal import PATIENCE_S
from proxyd.wire.programs import Remote
from tests.session.desk import eventually, failure_of, lines, succeeded, tracebacks

NOBODY = 65534


@pytest.fixture
def short(desk):
    """A desk with few places."""
    desk.admission._capacity_of = Capacity.of
    desk.admission.change(max_clients=4, max_anonymous=2)
    return desk


async def test_who_finds_no_place_waits_for_one_of_his_own(short):
    first, *_ = [await short.opened(uid=NOBODY, gid=NOBODY) for _ in range(4)]
    waiting = short.connect(uid=NOBODY, gid=NOBODY)
    waiting.send(waiting.opening())
    await wait_all_tasks_blocked(0.01)
    assert short.admission.standing == 1
    root = await short.opened()

    root.close()
    first.close()

    assert succeeded(await waiting.receive())
    await short.is_as_before()


async def test_who_finds_no_room_to_wait_is_told_so_once_in_the_log(short, log):
    for _ in range(4):
        await short.opened(uid=NOBODY, gid=NOBODY)
    waiting = [short.connect(uid=NOBODY, gid=NOBODY) for _ in range(6)]
    told = [failure_of(await each.call(Remote.AUTH_LIST)) for each in waiting[2:5]]

    assert {each.message for each in told} == {
        "Too many active clients: 4 are connected, and others wait already (max_clients):"
        " try again later"
    }
    assert all([await each.ended() for each in waiting[2:5]])
    assert len(lines(log, "uid 65534: turned away", logging.WARNING)) == 1
    assert not tracebacks(log)
    await short.is_as_before()


async def test_of_one_user_few_are_told_and_the_rest_is_closed_at_once(desk):
    desk.admission.most_each = 1
    await desk.opened(uid=NOBODY, gid=NOBODY)
    over = [desk.connect(uid=NOBODY, gid=NOBODY) for _ in range(10)]
    await wait_all_tasks_blocked(0.01)
    assert desk.admission.clients == 1

    answers = []
    for each in over:
        try:
            answers.append(await each.call(Remote.AUTH_LIST))
        except BrokenPipeError:
            answers.append(None)

    assert sum(answer is not None for answer in answers) == 4
    desk.admission.most_each = 0
    await desk.is_as_before()


async def test_who_is_told_and_says_nothing_is_gone_in_a_second(slow_desk, mock_clock):
    slow_desk.admission.most_each = 1
    await slow_desk.opened(uid=NOBODY, gid=NOBODY)
    silent = slow_desk.connect(uid=NOBODY, gid=NOBODY)
    await wait_all_tasks_blocked()

    mock_clock.jump(PATIENCE_S)

    assert await silent.ended()
    slow_desk.admission.most_each = 0
    await slow_desk.is_as_before()


async def test_a_client_that_goes_while_it_waits_leaves_nothing(short):
    for _ in range(4):
        await short.opened(uid=NOBODY, gid=NOBODY)
    short.connect(uid=NOBODY, gid=NOBODY)
    await wait_all_tasks_blocked(0.01)
    assert short.admission.standing == 1

    short.callers.pop().close()

    await eventually(lambda: not short.admission.callers, "it is forgotten")
    await short.is_as_before()


async def test_a_nameless_client_is_gone_in_a_second_and_holds_no_place(slow_desk, mock_clock):
    class NoNames:
        async def names_of(self, uid, gid):
            raise Denied(f"no user has the uid {uid}")

    known, slow_desk.names = slow_desk.names, NoNames()
    caller = slow_desk.connect(uid=NOBODY, gid=NOBODY)
    assert failure_of(await caller.open()).message == "no user has the uid 65534"
    assert slow_desk.admission.clients == 0

    mock_clock.jump(PATIENCE_S)

    assert await caller.ended()
    slow_desk.names = known
    await slow_desk.is_as_before()


async def test_who_comes_for_nothing_again_and_again_does_not_fill_the_log(desk, log):
    for _ in range(30):
        caller = desk.connect(uid=NOBODY, gid=NOBODY)
        caller.send(b"\0" * 28)  # no frame
        assert await caller.ended()
    warnings = lines(log, "protocol error", logging.WARNING)
    assert len(warnings) == 10
    assert warnings[-1].endswith(" s")
    assert "(more like this of uid 65534 are told as info)" in warnings[-1]
    assert len(lines(log, "protocol error", logging.INFO)) == 20
    await desk.is_as_before()
