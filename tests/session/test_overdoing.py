"""Who comes too often, and who fails too often: what becomes of him at accept and in SASL."""

import logging
from dataclasses import replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.admission.rates import Buckets
from proxyd.config.transports import Transport
from proxyd.sasl.mechanism import LoginRefused
from proxyd.session import reception
from proxyd.session.tally import Refusal
from proxyd.wire import remote
from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.fakes.hand_clock import HandClock
from tests.session.desk import OPEN_TO_ALL, SOMEBODY, eventually, failure_of, lines, succeeded
from tests.session.test_sasl_exchange import BY_SASL, Offer, proof, start, step

NOBODY = 65534
FEW = 3
BY_TLS = replace(OPEN_TO_ALL, name="tls", transport=Transport.TLS)
BY_TCP = replace(OPEN_TO_ALL, name="tcp", transport=Transport.TCP)


def connect(desk, door=OPEN_TO_ALL, uid=NOBODY):
    return desk.connect(door, uid=uid, gid=uid)


@pytest.fixture
def hasty(desk):
    """A desk to which one may come three times an hour."""
    desk.admission.rate.change(a_second=0.001, burst=FEW)
    return desk


@pytest.fixture
def slow_to_forgive(desk):
    desk.proof = proof()
    desk.admission.logins.change(FEW)
    return desk


async def test_who_comes_too_fast_is_told_so_before_he_has_a_place(hasty, log):
    for _ in range(FEW):
        assert succeeded(await connect(hasty).open())
    late = connect(hasty)
    assert failure_of(await late.call(Remote.AUTH_LIST)).message == (
        "Too many connections: uid 65534 begins more than 0.001 a second (proxyd_connection_rate):"
        " try again in a moment"
    )
    assert await late.ended()
    assert hasty.admission.clients == FEW
    assert succeeded(await connect(hasty, uid=0).open())
    assert hasty.services.refusals.reasons == {Refusal.RATE: 1}
    assert hasty.admission.rate.over.names() == ["uid 65534"]
    hasty.admission.rate.change(a_second=0, burst=1)
    assert succeeded(await connect(hasty).open())
    await hasty.is_as_before()


async def test_of_many_who_come_too_fast_few_are_told_and_no_task_is_made_for_the_rest(hasty, log):
    hasty.reception._tells = Buckets(a_second=1, burst=reception._TOLD_AT_ONCE, clock=HandClock())
    denied = []
    hasty.services.refusals.on_denied = lambda caller, why: denied.append(why)
    for _ in range(FEW):
        connect(hasty)
    await wait_all_tasks_blocked(0.01)
    tasks = len(hasty.nursery.child_tasks)
    late = [connect(hasty) for _ in range(500)]
    assert len(hasty.nursery.child_tasks) - tasks == reception._TOLD_AT_ONCE
    hasty.hang_up()
    await eventually(lambda: not hasty.roster.clients, "they are gone")
    assert len(late) == hasty.services.refusals.reasons[Refusal.RATE] == 500
    assert len(lines(log, "turned away: Too many connections", logging.WARNING)) == 1
    assert len(denied) <= reception._TOLD_AT_ONCE + 1
    await hasty.is_as_before()


@pytest.mark.parametrize(("door", "told"), [(BY_TLS, False), (BY_TCP, True)])
async def test_who_comes_too_fast_by_the_network_is_closed_or_told_where_that_is_cheap(
    hasty, monkeypatch, door, told
):
    monkeypatch.setattr(reception, "holder_of", lambda *_: SOMEBODY)
    for _ in range(FEW):
        assert hasty.admission.rate.admits(SOMEBODY)
    late = connect(hasty, door)
    if told:
        assert "proxyd_connection_rate" in failure_of(await late.call(Remote.AUTH_LIST)).message
    assert await late.ended()
    assert hasty.admission.callers == 0
    monkeypatch.undo()
    await hasty.is_as_before()


# ---- logins


async def fails(caller, answer=b"!no"):
    """One whole attempt, and what was said to it."""
    await caller.call(Remote.AUTH_SASL_INIT)
    await caller.call(*start())
    return await caller.call(*step(answer))


async def test_the_answer_to_a_failure_waits_and_holds_no_turn_meanwhile(slow_to_forgive):
    desk = slow_to_forgive
    desk.admission.change(max_clients=100, max_anonymous=1)
    caller = connect(desk, BY_SASL)
    began = trio.current_time()
    await caller.call(Remote.AUTH_SASL_INIT)
    await caller.call(*start())
    caller.send(caller.frame(*step(b"!no")))
    # Whose turn would never come while that one has it.
    other = connect(desk, BY_SASL)
    assert succeeded(await other.call(Remote.AUTH_LIST))
    assert trio.current_time() - began < 0.25
    other.close()
    said = await caller.receive()
    assert trio.current_time() - began >= 0.25
    assert failure_of(said).message == "authentication failed: authentication failed"
    assert desk.admission.anonymous == 1
    assert desk.admission.logins.delayed_s >= 0.25
    assert (await fails(caller, b"joe")).header.status == Status.OK
    assert succeeded(await caller.open())
    await desk.is_as_before()


async def test_who_goes_while_his_answer_waits_is_let_go_and_his_failure_is_told(
    slow_to_forgive, log
):
    desk = slow_to_forgive
    for _ in range(2):  # a pause of a second is next
        desk.admission.logins._holders.pauses.lengthen("uid 65534")
    await trio.sleep(0.75)
    caller = connect(desk, BY_SASL)
    await caller.call(Remote.AUTH_SASL_INIT)
    await caller.call(*start())
    caller.send(caller.frame(*step(b"!no")))
    await eventually(lambda: desk.admission.logins._waiting, "it waits")
    caller.close()
    await desk.is_empty()
    assert lines(log, 'RIDDLE: "somebody": no')
    assert not desk.admission.logins._waiting
    await desk.is_as_before()


async def test_beyond_the_limit_no_mechanism_is_asked_and_the_log_has_one_line(
    slow_to_forgive, log
):
    desk = slow_to_forgive
    for _ in range(FEW):
        desk.admission.logins._holders.buckets.take("uid 65534")
    for _ in range(5):
        caller = connect(desk, BY_SASL)
        await caller.call(Remote.AUTH_SASL_INIT)
        await caller.call(*start())  # which asks the server to begin, and counts for nothing
        begun = len(desk.proof.offering.begun)
        said = await caller.call(*step(b"joe"))
        assert failure_of(said).message == "authentication failed: authentication failed"
        assert await caller.ended()
        assert len(desk.proof.offering.begun) == begun
    assert desk.roster.tally.refused == {Refusal.LOGINS: 5}
    told = lines(
        log, "more than 3 logins a minute have failed (proxyd_login_failures, of uid 65534"
    )
    assert len(told) == 5
    assert len(lines(log, "proxyd_login_failures", logging.WARNING)) == 1
    assert desk.admission.logins.over.names() == ["uid 65534"]
    await desk.is_as_before()


async def test_root_is_not_kept_waiting(slow_to_forgive):
    desk = slow_to_forgive
    caller = connect(desk, BY_SASL, uid=0)
    for _ in range(2 * FEW):
        assert (await fails(caller)).header.status == Status.ERROR
    assert desk.admission.logins.delayed_s == 0
    await desk.is_as_before()


@pytest.mark.parametrize("how", ["leaves", "begins anew"])
async def test_an_attempt_that_nobody_ends_has_failed(slow_to_forgive, how):
    desk = slow_to_forgive
    caller = connect(desk, BY_SASL)
    desk.admission.logins.change(100)
    begun = Remote.AUTH_SASL_START, remote.SaslStart("RIDDLE", b"joe").pack()
    await caller.call(Remote.AUTH_SASL_INIT)
    await caller.call(*begun)
    owed = desk.admission.logins._holders.buckets.owed
    if how == "begins anew":
        await caller.call(*begun)  # which is refused, and ends the first
        await caller.call(Remote.AUTH_SASL_INIT)
        await caller.call(*begun)
        assert 1 < owed("uid 65534") <= 2
    await desk.is_empty()
    assert not desk.admission.logins._holders.going_on
    assert 0 < owed("uid 65534") <= 2
    await desk.is_as_before()


async def test_what_is_missing_here_is_nobodys_failure(slow_to_forgive):
    class Broken(Offer):
        def begin(self, name, bindings):
            raise LoginRefused("without a key nobody can come in", ours=True)

    desk = slow_to_forgive
    desk.proof = proof(Broken())
    caller = connect(desk, BY_SASL)
    for _ in range(2 * FEW):
        await caller.call(Remote.AUTH_SASL_INIT)
        said = await caller.call(Remote.AUTH_SASL_START, remote.SaslStart("RIDDLE", b"joe").pack())
        assert said.header.status == Status.ERROR
    assert desk.roster.tally.refused == {Refusal.SASL: 2 * FEW}
    assert desk.admission.logins.delayed_s == 0
    await desk.is_as_before()
