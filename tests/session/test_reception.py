"""What becomes of a connection of this host for which there is no place."""

import logging
from dataclasses import replace

import pytest
from trio.testing import wait_all_tasks_blocked

from proxyd.admission.capacity import Capacity
from proxyd.config.listeners import Door
from proxyd.config.transports import Transport
from proxyd.peer.credentials import Denied
from proxyd.session import reception
from proxyd.session.refusal import PATIENCE_S
from proxyd.session.tally import Refusal
from proxyd.wire import failure
from proxyd.wire.programs import AuthMethod, Remote
from tests.session.desk import SOMEBODY, eventually, failure_of, lines, succeeded, tracebacks

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


# While nobody new is let in

BY_NETWORK = Door(
    name="tcp", method=AuthMethod.NONE, readonly=False, own_uid_only=False, transport=Transport.TCP
)


async def test_who_comes_while_it_is_drained_is_told_and_who_is_here_goes_on(desk, log):
    here = await desk.opened()
    desk.admission.drain(on=True)
    for uid in (0, NOBODY):
        late = desk.connect(uid=uid, gid=uid)
        assert failure_of(await late.call(Remote.AUTH_LIST)) == failure.draining()
        assert await late.ended()
    assert succeeded(await here.call(Remote.CONNECT_GET_LIB_VERSION))
    assert desk.admission.clients == 1
    assert desk.services.refusals.reasons == {Refusal.DRAINING: 2}
    assert len(lines(log, "turned away: operation forbidden", logging.WARNING)) == 2
    desk.admission.drain(on=False)
    await desk.is_as_before()


async def test_who_negotiates_when_it_begins_may_open(desk):
    early = desk.connect()
    assert succeeded(await early.call(Remote.AUTH_LIST))
    desk.admission.drain(on=True)
    assert succeeded(await early.open())
    desk.admission.drain(on=False)
    await desk.is_as_before()


async def test_who_stands_when_it_begins_is_told_at_once(short, log):
    for _ in range(4):
        await short.opened(uid=NOBODY, gid=NOBODY)
    standing = [short.connect(uid=NOBODY, gid=NOBODY) for _ in range(2)]
    await wait_all_tasks_blocked(0.01)
    assert short.admission.standing == 2
    short.admission.drain(on=True)
    for each in standing:
        assert failure_of(await each.call(Remote.AUTH_LIST)) == failure.draining()
    await eventually(lambda: not short.admission.callers, "nobody stands there")
    # Not even while all places are taken does anybody wait, and none is told to.
    late = short.connect(uid=NOBODY, gid=NOBODY)
    assert failure_of(await late.call(Remote.AUTH_LIST)) == failure.draining()
    short.admission.drain(on=False)
    await short.is_as_before()


async def test_who_stands_at_the_doorstep_and_is_silent_costs_what_he_costs_otherwise(
    desk, monkeypatch
):
    monkeypatch.setattr(reception, "holder_of", lambda *_: SOMEBODY)
    desk.admission.capacity = replace(desk.admission.capacity, callers=100)
    desk.admission.drain(on=True)
    silent = [desk.connect(BY_NETWORK) for _ in range(50)]
    await wait_all_tasks_blocked(0.01)
    assert desk.admission.callers == 50
    assert not desk.services.refusals.reasons
    assert failure_of(await silent[7].call(Remote.AUTH_LIST)) == failure.draining()
    await eventually(lambda: desk.admission.callers == 49, "he has gone")
    desk.admission.drain(on=False)
    assert succeeded(await silent[3].open())  # whoever was silent for so long comes in
    desk.hang_up()
    await eventually(lambda: not desk.admission.callers, "all have gone")
    await desk.is_as_before()


async def test_when_it_stops_nobody_is_told_any_more(short):
    for _ in range(4):
        await short.opened(uid=NOBODY, gid=NOBODY)
    waiting = short.connect(uid=NOBODY, gid=NOBODY)
    await wait_all_tasks_blocked(0.01)
    short.admission.close()
    short.reception.doorstep.close()
    short.admission.drain(on=True)
    assert await waiting.ended()
    assert not short.services.refusals.reasons
    short.admission.closed = False
    short.admission.drain(on=False)
    await short.is_as_before()


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
