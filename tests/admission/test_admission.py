import logging
import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.admission.admission import Admission
from proxyd.admission.capacity import Capacity
from proxyd.admission.holder import Holder, Rank
from proxyd.admission.place import GRACE_S, PROOF_S
from proxyd.session.accept_loop import accept_clients
from proxyd.wire.programs import AuthMethod
from tests.admission.callers import (
    ANNA,
    BERT,
    BY_TCP,
    FRED,
    HERE,
    LOCAL,
    LOCAL_SASL,
    ROOT,
    TCP,
    TCP_SASL,
    THERE,
    TLS,
    UNIX,
    door,
)
from tests.session.desk import OPEN_TO_ALL

LOCAL_POLKIT = door(method=AuthMethod.POLKIT)
BY_TLS, TLS_SASL = door(TLS), door(TLS, AuthMethod.SASL)


@pytest.fixture
def log(caplog):
    with caplog.at_level(logging.DEBUG):
        yield caplog


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def admission(max_clients=2, max_anonymous=0, **options):
    """One that gives nobody more than max_clients."""
    return Admission(max_clients=max_clients, max_anonymous=max_anonymous, **options)


class House:
    """An admission with all that follows from max_clients, and who was sent away from it."""

    def __init__(self, max_clients, max_anonymous=0, **options):
        self.clock = Clock()
        self.gate = admission(
            max_clients, max_anonymous, capacity_of=Capacity.of, clock=self.clock, **options
        )
        self.sent_away = []

    def come(self, holder, by=LOCAL, count=1, *, silent=False, opened=False):
        """So many of a holder's; those that got a place."""
        places = [self.gate.admit(holder, by) for _ in range(count)]
        places = [place for place in places if place is not None]
        for place in places:
            place.end = lambda why, place=place: self.sent_away.append((place, why))
            if silent:
                place.await_client()
            if opened:
                self.gate.opened(place)
        return places

    def wait(self, seconds=GRACE_S):
        self.clock.now += seconds


class Waiter:
    """A listener that waits for room; `let_in` counts how often it found some."""

    def __init__(self, gate, nursery, transport=UNIX):
        self.gate = gate
        self.transport = transport
        self.let_in = 0
        nursery.start_soon(self._wait)

    async def _wait(self):
        await self.gate.room(self.transport)
        self.let_in += 1


# How many


async def test_room_is_found_at_once_when_there_is_some():
    with trio.fail_after(0):
        await admission().room(UNIX)


async def test_everybody_who_waits_is_woken_when_a_client_leaves_and_looks_again(nursery):
    gate = admission(max_clients=1)
    place = gate.seat(FRED)
    waiters = [Waiter(gate, nursery) for _ in range(3)]
    await wait_all_tasks_blocked()
    assert not gate.has_room(UNIX)

    gate.left(place)
    again = gate.seat(ANNA)  # another listener was quicker
    await wait_all_tasks_blocked()
    assert [waiter.let_in for waiter in waiters] == [0, 0, 0]

    gate.left(again)
    await wait_all_tasks_blocked()
    assert [waiter.let_in for waiter in waiters] == [1, 1, 1]


async def test_a_raised_limit_lets_those_in_who_wait(nursery):
    gate = admission(max_clients=1)
    gate.seat(FRED)
    waiter = Waiter(gate, nursery)
    await wait_all_tasks_blocked()

    gate.change(max_clients=2, max_anonymous=0)
    await wait_all_tasks_blocked()

    assert waiter.let_in == 1


async def test_a_lowered_limit_sends_nobody_away_and_lets_nobody_in(nursery):
    gate = admission(max_clients=3)
    places = [gate.seat(FRED) for _ in range(3)]

    gate.change(max_clients=1, max_anonymous=0)
    waiter = Waiter(gate, nursery)
    gate.left(places.pop())
    gate.left(places.pop())
    await wait_all_tasks_blocked()

    assert (gate.clients, waiter.let_in) == (1, 0)


def test_who_leaves_twice_leaves_once():
    gate = admission()
    place = gate.seat(FRED)
    gate.left(place)
    gate.left(place)
    assert gate.clients == 0
    assert gate.holdings.places(FRED) == 0


# Whose places


def test_one_user_gets_max_clients_and_leaves_something_for_every_other_and_for_root():
    house = House(100)
    assert len(house.come(FRED, count=200, opened=True)) == 100
    assert house.come(ANNA, opened=True)
    assert house.come(ROOT, opened=True)
    assert not house.come(FRED)


def test_the_network_gets_no_place_beyond_max_clients():
    house = House(100)
    assert len(house.come(HERE, BY_TCP, count=200, opened=True)) == 100
    assert not house.come(THERE, BY_TCP)
    assert house.come(ANNA)
    assert house.come(ROOT)


def test_who_holds_few_gets_few_beyond_max_clients():
    house = House(100)
    house.come(FRED, count=100, opened=True)
    assert len(house.come(ANNA, count=100, opened=True)) == Capacity.of(100).few
    assert house.come(BERT)


def test_roots_places_are_out_of_everybodys_reach():
    house = House(100)
    for uid in range(2000, 2200):
        house.come(Holder(f"uid {uid}", Rank.LOCAL, uid), count=100, opened=True)
    assert len(house.come(ROOT, count=100, opened=True)) == Capacity.of(100).reserved
    assert not house.gate.has_room(UNIX)


def test_a_limit_for_each_counts_those_who_have_no_place_yet():
    gate = admission(100, most_each=2)
    gate.called(HERE)
    assert gate.has_share(HERE)
    gate.seat(HERE)
    assert not gate.has_share(HERE)
    assert gate.has_share(THERE)
    gate.no_caller(HERE)
    assert gate.has_share(HERE)


# Who makes way


def test_the_silent_one_of_the_largest_holder_makes_way_for_whose_has_fewer():
    house = House(10)
    first, *_ = house.come(FRED, count=6, silent=True)
    house.come(ANNA, count=4, silent=True)
    house.wait()

    assert house.come(HERE, BY_TCP)

    ((gone, why),) = house.sent_away
    assert gone is first
    assert why == "it kept us waiting for 1.0 s, and its place was needed"
    assert house.gate.clients == 10


def test_silent_ones_of_another_make_way_before_spare_places_are_used():
    house = House(10)
    house.come(FRED, count=10, silent=True)
    house.wait()
    house.come(ANNA, count=3)
    assert (house.gate.clients, len(house.sent_away)) == (10, 3)


@pytest.mark.parametrize("doing", ["has just come", "is thought about", "is open"])
def test_who_does_not_keep_us_waiting_makes_way_for_nobody(doing):
    house = House(10)
    for place in house.come(FRED, count=10, silent=True):
        if doing == "is thought about":
            place.think()
        elif doing == "is open":
            house.gate.opened(place)
    house.wait(0.5 if doing == "has just come" else 100)

    assert not house.come(HERE, BY_TCP)
    assert house.sent_away == []


def test_who_has_sent_a_whole_call_begins_anew_and_who_trickles_does_not():
    house = House(10)
    talking, trickling, *_ = house.come(FRED, count=10, silent=True)
    house.wait(0.9)
    for place in (talking, trickling):
        place.think()
    house.gate.heard(talking)
    for place in (talking, trickling):
        place.await_client()
    house.wait(0.2)

    assert talking.waited_s(house.clock.now) == pytest.approx(0.2)
    assert trickling.waited_s(house.clock.now) == pytest.approx(1.1)


def test_root_makes_way_for_nobody():
    house = House(10)
    house.come(ROOT, count=10, silent=True)
    house.wait(100)
    assert not house.come(HERE, BY_TCP)


def test_nobody_makes_way_for_his_own_kind():
    house = House(10)
    house.come(FRED, count=10, silent=True)
    house.wait(100)
    assert not house.come(FRED)
    assert house.sent_away == []


# Who has to prove who he is


@pytest.mark.parametrize(
    ("holder", "by", "expected"),
    [
        (FRED, LOCAL, False),
        (FRED, LOCAL_SASL, True),
        (FRED, LOCAL_POLKIT, True),
        (ROOT, LOCAL_POLKIT, False),
        (ROOT, LOCAL_SASL, True),
        (HERE, BY_TCP, False),
        (HERE, TCP_SASL, True),
        (HERE, BY_TLS, True),
    ],
)
def test_whether_somebody_is_a_stranger(holder, by, expected):
    house = House(10)
    (place,) = house.come(holder, by)
    assert place.anonymous is expected
    assert house.gate.anonymous == expected

    house.gate.proved(place)
    house.gate.proved(place)

    assert house.gate.anonymous == 0


async def test_a_user_waits_for_his_own_and_for_nobody_elses(nursery):
    house = House(100, max_anonymous=2)
    first, _, third = house.come(FRED, LOCAL_SASL, count=3)
    (other,) = house.come(ANNA, LOCAL_SASL)
    assert (house.gate.needs_turn(third), house.gate.needs_turn(other)) == (True, False)
    nursery.start_soon(house.gate.turn, third)
    await wait_all_tasks_blocked()
    assert house.gate.needs_turn(third)

    house.gate.proved(first)
    await wait_all_tasks_blocked()

    assert not house.gate.needs_turn(third)
    assert house.gate.anonymous == 3


async def test_a_place_that_is_lost_at_the_moment_of_its_turn_keeps_no_turn(nursery):
    house = House(100, max_anonymous=1)
    first, second = house.come(FRED, LOCAL_SASL, count=2)
    nursery.start_soon(house.gate.turn, second)
    await wait_all_tasks_blocked()

    house.gate.left(first)
    house.gate.left(second)
    await wait_all_tasks_blocked()

    assert house.gate.anonymous == 0
    assert house.gate.turns.take_now(FRED)


@pytest.mark.parametrize(("by", "most"), [(TCP_SASL, 5), (BY_TLS, Capacity.of(100).handshakes)])
def test_strangers_are_so_many_and_make_way_when_they_keep_us_waiting(by, most):
    house = House(100, max_anonymous=5)
    assert len(house.come(HERE, by, count=100, silent=True)) == most
    assert not house.gate.might_admit(by.transport)
    house.wait()
    assert house.gate.might_admit(by.transport)

    assert house.come(THERE, by)

    assert [gone.holder for gone, _ in house.sent_away] == [HERE]
    assert house.gate.anonymous == most


def test_strangers_of_one_way_in_keep_nobody_of_another_waiting():
    house = House(100, max_anonymous=5)
    house.come(HERE, TCP_SASL, count=5)
    assert house.come(HERE, BY_TLS)
    assert house.come(FRED, LOCAL_SASL)


def test_of_strangers_the_one_makes_way_whose_address_has_most():
    house = House(100, max_anonymous=5)
    (lone,) = house.come(THERE, TCP_SASL, silent=True)
    first, *_ = house.come(HERE, TCP_SASL, count=4, silent=True)
    house.wait(2)
    house.come(Holder("10.0.0.3", Rank.NETWORK), TCP_SASL)
    assert [gone for gone, _ in house.sent_away] == [first]
    assert not lone.gone


def test_a_lone_stranger_makes_way_for_nobody_who_has_more():
    house = House(100, max_anonymous=3)
    house.come(THERE, TCP_SASL, silent=True)
    house.come(HERE, TCP_SASL, count=2)  # of whom nothing is waited for
    house.wait(2)
    assert not house.come(HERE, TCP_SASL)
    assert house.sent_away == []


@pytest.mark.parametrize("by", [TCP_SASL, BY_TLS])
def test_strangers_who_are_never_silent_make_way_once_they_could_have_proven_something(by):
    house = House(100, max_anonymous=5)
    first, *_ = house.come(HERE, by, count=100)  # of whom nothing is waited for
    house.wait(PROOF_S - 0.1)
    assert not house.gate.might_admit(by.transport)
    assert not house.come(THERE, by)
    house.wait(0.1)
    assert house.gate.might_admit(by.transport)

    assert house.come(THERE, by)

    assert [gone for gone, _ in house.sent_away] == [first]
    assert "it proved nothing within 2.0 s" in house.sent_away[0][1]


def test_who_talks_on_makes_way_for_nobody_of_his_own_address():
    house = House(100, max_anonymous=3)
    house.come(HERE, TCP_SASL, count=3)
    house.wait(10)
    assert not house.come(HERE, TCP_SASL)


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize(("holder", "by"), [(THERE, BY_TLS), (FRED, LOCAL)])
def test_when_no_place_is_left_strangers_make_way_for_anybody(silent, holder, by):
    house = House(5, max_anonymous=5)
    house.come(FRED, LOCAL, opened=True)
    strangers = [Holder(f"10.1.0.{number}", Rank.NETWORK) for number in range(4)]
    for each in strangers:
        house.come(each, TCP_SASL, silent=silent)
    house.come(ANNA, LOCAL, count=2, opened=True)  # who has few, and then one from a stranger
    house.wait(PROOF_S)

    assert house.come(holder, by)

    assert house.sent_away[-1][0].holder in strangers


@pytest.mark.parametrize("uneven", [True, False])
def test_a_crowded_doorstep_keeps_listening_while_one_address_has_more_there_than_others(uneven):
    house = House(2, max_anonymous=2)
    house.come(HERE, TCP_SASL, count=2)
    house.gate.crowd_doorstep(overrun=True, crowded=True, uneven=uneven)
    assert house.gate.has_room(TLS) is uneven


def test_who_has_proven_who_he_is_makes_way_for_nobody_however_long_it_takes():
    house = House(1, max_anonymous=1)
    (place,) = house.come(HERE, TCP_SASL)
    house.gate.proved(place)
    house.wait(10)
    assert not house.come(THERE, TCP_SASL)
    assert not house.come(FRED, LOCAL, count=4)[1:]


async def test_behind_the_handshake_there_is_another_limit(nursery, mock_clock):
    house = House(100, max_anonymous=1)
    first, second = house.come(HERE, TLS_SASL, count=2)
    await house.gate.leave_handshake(first)
    first.await_client()
    left = trio.Event()

    async def leave():
        await house.gate.leave_handshake(second)
        left.set()

    nursery.start_soon(leave)
    await wait_all_tasks_blocked()
    assert not left.is_set()

    house.wait()
    mock_clock.jump(1)
    await wait_all_tasks_blocked()

    assert left.is_set()
    assert [gone for gone, _ in house.sent_away] == [first]


# What is told


async def test_the_log_says_once_that_there_is_no_room_and_names_the_keys(nursery, log):
    gate = admission(max_clients=2, max_anonymous=1)
    for _ in range(2):
        gate.seat(FRED)
    for _ in range(3):
        Waiter(gate, nursery)
    await wait_all_tasks_blocked()

    (told,) = log.messages
    assert told.startswith("no room for more clients by UNIX: 2 of 2 are connected; others wait")
    assert "max_clients, max_anonymous_clients" in told


def test_of_strangers_it_says_how_many_they_are(log):
    house = House(100, max_anonymous=2)
    house.come(HERE, TCP_SASL, count=2)
    house.gate.stands(TCP)
    house.gate.stands(TLS)
    assert "TCP: 2 of 100 are connected, 2 of 2 unauthenticated; others wait" in log.messages[0]
    assert "TLS: 2 of 100 are connected, 0 of 25 in their handshake" in log.messages[1]


async def test_the_log_says_when_nobody_waits_any_more(nursery, log):
    gate = admission(max_clients=1)
    place = gate.seat(FRED)
    Waiter(gate, nursery)
    await wait_all_tasks_blocked()

    gate.left(place)
    place = gate.seat(FRED)
    gate.nobody_waits(UNIX)  # there may be nobody, but there is no room either
    gate.left(place)
    gate.stands(UNIX)
    gate.nobody_waits(UNIX)  # nobody in the backlog, but somebody at the doorstep
    gate.stands_no_more(UNIX)
    gate.nobody_waits(UNIX)
    gate.nobody_waits(UNIX)

    assert [record.levelno for record in log.records] == [logging.WARNING, logging.INFO]
    assert log.messages[1] == "nobody waits any more by UNIX: 0 clients are connected"


def test_nothing_is_logged_while_nobody_waits(log):
    gate = admission(max_clients=1)
    for _ in range(3):
        gate.left(gate.seat(FRED))
    assert log.messages == []


def test_those_with_the_most_places_are_known_by_name():
    house = House(100)
    house.come(FRED, count=3)
    house.come(HERE, BY_TCP, count=5)
    house.come(ANNA)
    assert house.gate.holdings.largest(2) == [("10.0.0.1", 5), ("uid 1000", 3)]


# The end


async def test_after_the_close_there_is_no_room_whatever_leaves_or_changes(nursery):
    gate = admission(max_clients=2)
    place = gate.admit(FRED, LOCAL_SASL)
    gate.close()
    waiter = Waiter(gate, nursery)
    await wait_all_tasks_blocked()

    gate.proved(place)
    gate.change(max_clients=100, max_anonymous=0)
    gate.left(place)
    assert gate.admit(FRED, LOCAL) is None
    await wait_all_tasks_blocked()

    assert (gate.closed, gate.has_room(UNIX), gate.clients, waiter.let_in) == (True, False, 0, 0)


async def test_a_close_is_not_told_as_a_lack_of_room(nursery, log):
    gate = admission()
    gate.close()
    Waiter(gate, nursery)
    await wait_all_tasks_blocked()
    gate.nobody_waits(UNIX)
    assert log.messages == []


@pytest.fixture
def listener(directory):
    with socket.socket(socket.AF_UNIX) as made:
        made.setblocking(False)
        made.bind(str(directory / "door"))
        made.listen()
        yield made


def connected(listener):
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(listener.getsockname())
    return caller


class ClosedWhenWoken(trio.abc.Instrument):
    """Closes the gate when the listener's task has been woken and has not run yet."""

    def __init__(self, gate):
        self.gate = gate

    def task_scheduled(self, task):
        if task.coro.__name__ == accept_clients.__name__:
            self.gate.close()


@pytest.mark.parametrize("waits_for", ["a client", "room"])
async def test_who_comes_at_the_moment_of_the_close_stays_in_the_backlog(
    listener, nursery, waits_for
):
    gate, accepted = admission(max_clients=1), []
    place = gate.seat(FRED) if waits_for == "room" else None
    nursery.start_soon(accept_clients, listener, OPEN_TO_ALL, gate, accepted.append)
    await wait_all_tasks_blocked()
    trio.lowlevel.add_instrument(ClosedWhenWoken(gate))

    with connected(listener) as caller:
        if place is not None:
            gate.left(place)
        await wait_all_tasks_blocked(0.01)

        assert gate.closed
        assert accepted == []
        with listener.accept()[0] as left_for_the_next_daemon:
            caller.send(b"x")
            assert left_for_the_next_daemon.recv(1) == b"x"


async def test_a_change_to_come_is_one_event_and_then_another():
    gate = admission()
    first = gate.changed
    place = gate.seat(FRED)
    second = gate.changed
    gate.left(place)

    assert (first.is_set(), second.is_set(), gate.changed.is_set()) == (True, True, False)


# While nobody new is let in


def test_a_drained_daemon_gives_no_places_and_keeps_those_that_there_are():
    house = House(4)
    kept = house.gate.admit(FRED, LOCAL)
    house.gate.drain(on=True)
    assert house.gate.admit(ROOT, LOCAL) is None
    assert house.gate.admit(ANNA, BY_TCP) is None
    assert not kept.gone
    house.gate.left(kept)
    assert house.gate.admit(FRED, LOCAL) is None
    house.gate.drain(on=False)
    assert house.gate.admit(FRED, LOCAL) is not None


@pytest.mark.parametrize("transport", [UNIX, TCP, TLS])
def test_listeners_of_a_drained_daemon_accept_whoever_comes_until_it_stops(transport):
    gate = admission(max_clients=1)
    gate.seat(FRED)
    gate.crowd_doorstep(overrun=True, crowded=True)
    assert not gate.has_room(transport)
    gate.drain(on=True)
    assert gate.has_room(transport)
    gate.close()
    assert not gate.has_room(transport)


def test_a_change_of_limits_does_not_let_anybody_in():
    gate = admission(max_clients=1)
    gate.drain(on=True)
    gate.change(max_clients=100, max_anonymous=0)
    assert gate.admit(FRED, LOCAL) is None
