"""Calls a second: the bucket, and a loop that does not read who owes."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.relay.guards import GUARDED, restricted
from proxyd.relay.pace import Pace
from proxyd.relay.pair import RelayedPair
from proxyd.rules.permissions import allowance_of
from proxyd.wire.frame import FrameType
from tests.relay import frames
from tests.relay.moving import Travelling
from tests.relay.session import HandTurned, fill

SECOND = 1_000_000_000
MOST_OF_A_READ = 18


class Walking(Travelling):
    """A session with a pace from the start."""

    def __init__(self, pace, **kind):
        super().__init__(**kind)
        self.loop.restrict(self.pair, kind.get("guards", GUARDED), pace)
        self.loop.turn(0)


@pytest.fixture
def walk(no_descriptor_leaks):
    running = []

    def starting(pace, **kind):
        running.append(Walking(pace, **kind))
        return running[-1]

    yield starting
    for each in running:
        each.close()


@pytest.fixture
def start_travel(no_descriptor_leaks):
    running = []

    def starting(**kind):
        running.append(Travelling(**kind))
        return running[-1]

    yield starting
    for each in running:
        each.close()


# ----------------------------------------------------------------------------- the bucket


def test_a_second_s_calls_may_come_at_once():
    pace = Pace(10)
    assert [pace.charge(1, 5) for _ in range(10)] == [5] * 10
    assert pace.charge(1, 5) == 5 + SECOND // 10
    assert pace.charge(0, 5 + SECOND // 10) == 5 + SECOND // 10


@given(
    st.floats(0.05, 5000),
    st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 30)), min_size=1, max_size=60),
)
def test_never_more_than_a_second_s_calls_the_rate_s_and_one_read_s(rate, reads):
    """Whoever reads only when that is paid."""
    pace, now, taken = Pace(rate), 0, []
    due = 0
    for pause, calls in reads:
        now = max(now + pause, due)
        due = pace.charge(calls, now)
        taken.append((now, calls))
    for first, (began, _) in enumerate(taken):
        in_window = 0
        for at, calls in taken[first:]:
            in_window += calls
            allowed = max(1.0, rate) + rate * (at - began) / SECOND + 30
            assert in_window <= allowed * 1.001 + 1


@given(st.floats(0.001, 1e6), st.integers(0, 1 << 40), st.integers(0, 1 << 62))
def test_a_debt_has_a_bound(rate, calls, now):
    due = Pace(rate).charge(calls, now)
    assert now <= due <= now + 600 * SECOND


def test_who_was_quiet_owes_nothing():
    pace = Pace(2)
    pace.charge(50, 0)
    assert pace.charge(2, 100 * SECOND) == 100 * SECOND


def test_another_rate_leaves_what_is_owed():
    pace = Pace(1)
    due = pace.charge(11, 0)
    assert due == 10 * SECOND
    pace.change(1000)
    assert pace.charge(0, 0) == due


def test_two_threads_lose_no_call():
    pace = Pace(1e9)  # a nanosecond each
    threads = [
        threading.Thread(target=lambda: [pace.charge(1, 0) for _ in range(20_000)])
        for _ in range(2)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert pace.charge(0, 0) == 0
    assert pace.charge(int(1e9), 0) == 40_000


# ----------------------------------------------------------------------------- the loop


def until(session, seconds, condition):
    """Turns as the relay thread does, for so long at most; whether it came so far."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        session.loop.turn(0.005)
        session.at_daemon.take()
        session.at_client.take()
    return True


def test_who_makes_more_calls_is_not_read_until_they_are_paid_for(walk):
    session = walk(Pace(50))
    wire = b"".join(frames.call(at) for at in range(150))
    began = time.monotonic()
    session.client.setblocking(True)
    session.client.sendall(wire)
    session.client.setblocking(False)
    assert until(session, 10, lambda: len(session.at_daemon.arrived) == 150)
    took = time.monotonic() - began
    assert session.at_daemon.serials == list(range(150))
    assert 1.5 <= took < 5  # (150 - a second's 50 - one read's) / 50 per s
    assert not session.ended


def test_meanwhile_it_is_written_to_and_the_loop_waits(walk):
    session = walk(Pace(1))
    session.send(session.client, frames.call(1) + frames.call(2))
    assert session.up.unpaid
    session.client.send(frames.call(3))
    assert session.waits()
    assert session.at_daemon.serials == [1, 2]
    session.send(session.daemon, frames.reply(1) + frames.reply(2))
    assert session.at_client.serials == [1, 2]
    assert until(session, 5, lambda: session.at_daemon.serials == [1, 2, 3])


def test_sessions_of_one_identity_share_it(walk):
    pace = Pace(1)
    first, second = walk(pace), walk(pace)
    first.send(first.client, frames.call(1))
    second.send(second.client, frames.call(1))
    assert not first.up.unpaid
    assert second.up.unpaid


def test_who_comes_anew_is_not_read_before_what_is_owed_is_paid(walk, start_travel):
    pace = Pace(3)
    first = walk(pace)
    first.send(first.client, b"".join(frames.call(serial) for serial in range(1, 6)))
    first.close()
    again = start_travel(pace=pace)
    assert again.move()
    assert again.up.unpaid
    began = time.monotonic()
    again.client.send(frames.call(1))
    assert until(again, 5, lambda: again.at_daemon.serials == [1])
    assert time.monotonic() - began > 0.5


def test_calls_that_are_refused_are_paid_for_too(walk):
    session = walk(Pace(1), guards=restricted(allowance_of([])))
    session.send(session.client, frames.call(1) + frames.call(2) + frames.call(3))
    assert session.at_client.serials == [1, 2, 3]
    assert session.up.unpaid


def test_other_frames_cost_nothing(walk):
    session = walk(Pace(1))
    keepalive = frames.frame(FrameType.MESSAGE, program=0x6B656570, procedure=1)
    session.send(session.client, frames.call(1) + keepalive * 50 + frames.packet(100_000, 7))
    assert not session.up.unpaid
    assert len(session.at_daemon.arrived) == 52


def test_one_read_takes_few_calls_of_who_has_a_pace(walk):
    session = walk(Pace(1000))
    session.client.send(frames.call(1) * 500)
    session.turn()
    assert 0 < session.up.calls <= MOST_OF_A_READ


def test_calls_of_every_size_go_on_whole(walk):
    session = walk(Pace(1000))
    wires = [frames.call(at, frames.noise(size)) for at, size in enumerate((0, 500, 5000, 90_000))]
    session.send(session.client, b"".join(wires))
    assert session.at_daemon.wires == wires


def test_who_has_no_pace_any_more_is_read_at_once(walk):
    session = walk(Pace(0.01))
    session.send(session.client, frames.call(1) + frames.call(2))
    session.client.send(frames.call(3))
    session.relay()
    assert session.at_daemon.serials == [1, 2]
    session.loop.restrict(session.pair, GUARDED, None)
    session.relay()
    assert session.at_daemon.serials == [1, 2, 3]


def test_what_came_before_it_had_one_is_not_charged_for(session):
    for at in range(20):
        session.send(session.client, frames.call(at))
    session.loop.restrict(session.pair, GUARDED, Pace(1))
    session.turn()
    session.send(session.client, frames.call(20))
    assert not session.up.unpaid


def test_a_session_that_moves_has_the_pace_of_whoever_goes_on(start_travel):
    session = start_travel(pace=Pace(1))
    for at in range(20):
        session.send(session.client, frames.call(at))
    assert session.move()
    session.send(session.client, frames.call(20))
    assert not session.up.unpaid  # nor is it charged for what came before
    session.send(session.client, frames.call(21))
    assert session.up.unpaid
    assert session.move()
    session.client.send(frames.call(22))
    assert until(session, 5, lambda: session.at_daemon.serials == list(range(23)))


def test_one_that_owes_thaws_and_owes(walk):
    session = walk(Pace(3))
    session.send(session.client, b"".join(frames.call(at) for at in range(4)))
    assert session.up.unpaid
    frozen = session.freeze()
    session.loop.thaw(frozen)
    session.turn()
    session.client.send(frames.call(4))
    assert session.waits(0.01)
    assert until(session, 5, lambda: session.at_daemon.serials == list(range(5)))


def test_one_that_ends_while_it_owes_is_forgotten(walk):
    session = walk(Pace(2))
    session.send(session.client, b"".join(frames.call(at) for at in range(3)))
    assert session.loop._unpaid
    session.loop.drop(session.pair.number, "a test")
    session.turn()
    assert session.ended
    assert until(session, 5, lambda: not session.loop._unpaid)


def test_the_end_behind_its_calls_comes_when_they_are_paid_for(walk):
    session = walk(Pace(10))
    fill(session.client, b"".join(frames.call(at) for at in range(30)))
    session.client.close()
    assert until(session, 10, lambda: session.at_daemon.ended)
    assert session.at_daemon.serials == list(range(30))


def test_a_pair_without_one_is_never_charged(session):
    assert isinstance(session, HandTurned)
    assert isinstance(session.pair, RelayedPair)
    session.send(session.client, frames.call(1) * 100)
    assert session.pair.charged == 0
    assert not session.loop._unpaid
