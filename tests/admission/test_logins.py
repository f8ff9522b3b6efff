"""Failed logins: who is slowed down, who is refused, and who is neither because of others."""

from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.admission import logins as module
from proxyd.admission.holder import Holder, Rank
from proxyd.admission.logins import Logins, TooManyFailures

A_MINUTE = 5
HERE = Holder("10.0.0.1", Rank.NETWORK)
ELSEWHERE = Holder("10.0.0.2", Rank.NETWORK)
SITES = [Holder(f"10.1.0.{number}", Rank.NETWORK) for number in range(100)]
JUMP_S = 61 + 60  # after which nothing is owed and no pause remembered


class Bench:
    """Logins on a clock that jumps; `aside` says how many wait."""

    def __init__(self, clock, a_minute=A_MINUTE):
        self.logins = Logins(a_minute, clock)
        self.clock = clock
        self.aside_now = 0

    @asynccontextmanager
    async def aside(self):
        self.aside_now += 1
        try:
            yield
        finally:
            self.aside_now -= 1

    async def begin(self, holder=HERE, name="ann"):
        return await self.logins.begin(holder, name, self.aside)

    async def fail(self, holder=HERE, name="ann"):
        """How long it took to be told so."""
        began = trio.current_time()
        attempt = await self.begin(holder, name)
        attempt.failed()
        await self.logins.pause(attempt, self.aside)
        return trio.current_time() - began

    async def come_in(self, holder=HERE, name="ann"):
        began = trio.current_time()
        (await self.begin(holder, name)).succeeded()
        return trio.current_time() - began

    async def use_up(self, holder=HERE, name="ann"):
        """All that there is, side by side, for time pays back."""
        attempts = []
        while not self.logins._empty(module._Pair(holder.name, name)):
            attempts.append(await self.begin(holder, name))
        for each in attempts:
            each.failed()

    async def is_refused(self, holder=HERE, name="ann"):
        try:
            (await self.begin(holder, name)).left()
        except TooManyFailures:
            return True
        return False


@pytest.fixture
def bench(autojump_clock):
    return Bench(autojump_clock.current_time)


async def test_each_failure_takes_longer_to_be_told_and_one_is_forgotten_soon(
    autojump_clock, bench
):
    assert [await bench.fail() for _ in range(4)] == pytest.approx([0.25, 0.5, 1, 2])
    assert bench.logins.delayed_s == pytest.approx(3.75)
    await trio.sleep(JUMP_S)
    assert await bench.fail() == pytest.approx(0.25)


async def test_another_connection_is_no_way_around_the_pause(autojump_clock, bench):
    first = await bench.begin()
    first.failed()
    began = trio.current_time()
    (await bench.begin(name="bob")).succeeded()
    assert trio.current_time() - began == pytest.approx(0.25)


async def test_as_many_fail_at_once_as_may_fail_and_the_rest_is_refused_unseen(
    autojump_clock, bench, nursery
):
    outcomes = []

    async def guess():
        try:
            attempt = await bench.begin()
        except TooManyFailures:
            outcomes.append("refused")
            return
        outcomes.append("seen")
        await trio.sleep(0.01)
        attempt.failed()
        await bench.logins.pause(attempt, bench.aside)

    for _ in range(200):
        nursery.start_soon(guess)
    await trio.sleep(1)
    assert outcomes.count("seen") == A_MINUTE
    assert len(outcomes) == 200
    assert bench.logins.over.names() == ["10.0.0.1"]


async def test_many_good_logins_side_by_side_wait_for_each_other_and_all_come_in(
    autojump_clock, bench, nursery
):
    came_in = []

    async def come_in(name):
        attempt = await bench.begin(name=name)
        await trio.sleep(0.1)
        attempt.succeeded()
        came_in.append(name)

    for number in range(100):
        nursery.start_soon(come_in, f"user{number}")
    await trio.sleep(100 / A_MINUTE * 0.1 + 0.05)
    assert len(came_in) == 100
    assert bench.logins.delayed_s == 0


async def test_an_attempt_that_is_left_in_the_middle_has_failed(autojump_clock, bench):
    for each in [await bench.begin() for _ in range(A_MINUTE)]:
        each.left()
        each.left()
    await trio.sleep(8)
    assert await bench.is_refused(name="bob")


async def test_one_that_waits_for_a_token_goes_on_when_it_comes_back_or_is_refused(
    autojump_clock, bench, nursery
):
    going_on = [await bench.begin() for _ in range(A_MINUTE)]
    outcomes = []

    async def wait(name):
        try:
            await bench.begin(name=name)
        except TooManyFailures:
            outcomes.append((name, "refused"))
        else:
            outcomes.append((name, "begun"))

    for name in ("bob", "eve"):
        nursery.start_soon(wait, name)
        await wait_all_tasks_blocked()
    assert outcomes == []
    going_on.pop().succeeded()
    await wait_all_tasks_blocked()
    assert outcomes == [("bob", "begun")]


async def test_who_goes_while_he_waits_for_a_token_leaves_nothing(autojump_clock, bench, nursery):
    going_on = [await bench.begin() for _ in range(A_MINUTE)]
    with trio.move_on_after(1):
        await bench.begin(name="bob")
    for each in going_on:
        each.succeeded()
    assert not bench.logins._holders.lines
    assert not bench.logins._holders.going_on


async def test_whoever_was_vouched_for_costs_nothing_unless_it_fails_after_all(
    autojump_clock, bench
):
    for _ in range(3 * A_MINUTE):
        attempt = await bench.begin(name="")
        attempt.vouched()
        attempt.left()
    assert bench.logins.delayed_s == 0
    attempt = await bench.begin(name="")
    attempt.vouched()
    attempt.failed()
    assert bench.logins._holders.buckets.owed(HERE.name) == pytest.approx(1)


async def test_a_slip_of_the_finger_is_paid_back(autojump_clock, bench):
    for _ in range(3):
        await bench.fail()
    await bench.come_in()
    assert bench.logins._holders.buckets.owed(HERE.name) == pytest.approx(0)
    assert bench.logins._names.buckets.owed("ann") == pytest.approx(0)
    assert await bench.come_in(name="bob") == 0


async def test_who_has_a_password_pays_back_nothing_of_what_he_tried_with_other_names(
    autojump_clock, bench
):
    await bench.use_up(name="ann")
    owed = bench.logins._holders.buckets.owed(HERE.name)
    bench.logins._have_come_in.note(module._Pair(HERE.name, "eve"))
    await bench.come_in(name="eve")
    assert bench.logins._holders.buckets.owed(HERE.name) == pytest.approx(owed)
    assert await bench.is_refused(name="ann")


# Nobody locks out anybody else


async def test_who_has_come_in_from_here_has_tokens_of_his_own(autojump_clock, bench):
    await bench.come_in(name="ann")
    await bench.use_up(name="bob")
    assert await bench.is_refused(name="eve")
    assert await bench.come_in(name="ann") == 0
    # Of which who shares his address may use up no more than anybody's.
    await bench.use_up(name="ann")
    assert await bench.is_refused(name="ann")


async def test_a_day_later_he_is_a_stranger_again(autojump_clock, bench):
    await bench.come_in(name="ann")
    autojump_clock.jump(86401)
    await bench.use_up(name="bob")
    assert await bench.is_refused(name="ann")


async def test_a_name_that_others_try_everywhere_lets_its_user_in_from_anywhere_else(
    autojump_clock, bench
):
    for site in SITES:
        await bench.use_up(site)
    assert await bench.come_in(ELSEWHERE, "ann") == 0
    # But once he has failed there, too, he shares their fate until he has come in.
    assert await bench.fail(HERE, "ann") > 0
    assert await bench.is_refused(HERE, "ann")
    assert not await bench.is_refused(HERE, "bob")


async def test_thousands_of_addresses_that_fail_keep_nobody_out_who_has_come_in(
    autojump_clock, bench, monkeypatch
):
    monkeypatch.setattr(module, "MOST", 20)
    bench.logins = Logins(A_MINUTE, bench.clock)
    for limit in (bench.logins._regulars, bench.logins._pairs, bench.logins._holders):
        limit.buckets._most = 20
    await bench.come_in(ELSEWHERE, "ann")
    for site in SITES:
        if not await bench.is_refused(site, site.name):
            await bench.use_up(site, site.name)
    assert await bench.is_refused(HERE, "bob")  # every bucket that there is, is empty
    assert await bench.come_in(ELSEWHERE, "ann") == 0


# Bounds


async def test_few_wait_for_a_pause_and_the_others_are_refused(autojump_clock, bench, nursery):
    for _ in range(4):
        (await bench.begin()).failed()
        await trio.sleep(bench.logins._holders.pauses.until(HERE.name) - trio.current_time())
    attempt = await bench.begin()
    attempt.failed()
    refused = []

    async def come():
        refused.append(await bench.is_refused(name="bob"))

    for _ in range(50):
        nursery.start_soon(come)
    await wait_all_tasks_blocked()
    assert bench.aside_now == module._MOST_WAITING_EACH
    assert len(refused) == 50 - module._MOST_WAITING_EACH
    assert all(refused)


async def test_whose_pauses_have_added_up_is_refused_until_they_are_nearly_over(
    autojump_clock, bench
):
    bench.logins.change(1000)
    for each in [await bench.begin() for _ in range(20)]:
        each.failed()
    began = trio.current_time()
    assert await bench.is_refused()
    await trio.sleep(53)
    assert not await bench.is_refused()
    assert trio.current_time() - began == pytest.approx(60)


async def test_what_is_remembered_is_bounded(autojump_clock, bench):
    logins = bench.logins
    logins.change(100_000)
    for number in range(2 * module.MOST):
        attempt = await bench.begin(Holder(f"uid {number}", Rank.LOCAL), f"{number}" + 1000 * "x")
        attempt.failed()
        bench.logins._have_come_in.note(attempt.pair)
    assert len(logins._have_failed._at) == len(logins._have_come_in._at) == module.MOST
    for limit in (logins._regulars, logins._pairs, logins._holders, logins._names):
        assert len(limit.buckets) <= module.MOST
        assert len(limit.pauses) <= module.MOST
        assert not limit.going_on
        assert not limit.lines
    assert max(len(pair.name) for pair in logins._have_failed._at) == 64


# Who is let off, and what a reload changes


@pytest.mark.parametrize(("rank", "a_minute"), [(Rank.OWN, A_MINUTE), (Rank.LOCAL, 0)])
async def test_root_and_everybody_where_there_is_no_limit_may_fail_as_often_as_they_like(
    autojump_clock, rank, a_minute
):
    bench = Bench(autojump_clock.current_time, a_minute)
    for _ in range(100):
        assert await bench.fail(Holder("uid 0", rank, 0)) == 0
    assert not bench.logins.over.names()


async def test_a_reload_forgives_nothing_and_switches_it_off(autojump_clock, bench):
    await bench.use_up()
    bench.logins.change(A_MINUTE - 1)
    await trio.sleep(7.75)
    assert bench.logins._holders.buckets.owed(HERE.name) == pytest.approx(3.48, abs=0.1)
    bench.logins.change(0)
    assert await bench.fail() == 0


async def test_who_waits_for_a_token_when_the_limit_goes_goes_on(autojump_clock, bench, nursery):
    for _ in range(A_MINUTE):
        await bench.begin()
    nursery.start_soon(bench.begin, HERE, "bob")
    await wait_all_tasks_blocked()
    bench.logins.change(0)
    await wait_all_tasks_blocked()
    assert not bench.logins._holders.lines
