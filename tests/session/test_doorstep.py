"""The doorstep with real sockets; places are counted, and nobody is served."""

import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.admission.admission import Admission
from proxyd.admission.capacity import Capacity
from proxyd.admission.holder import Holder, Rank
from proxyd.config.transports import Transport
from proxyd.log.episodes import Episodes
from proxyd.session.doorstep import Doorstep
from proxyd.session.entrance import Entrance
from proxyd.session.line import Caller
from tests.admission.callers import BY_TCP, FRED, HERE, LOCAL, ROOT, THERE
from tests.session.desk import lines

TIMEOUT_S = 30
SETTLED_S = 0.01  # what the kernel takes to tell of a byte


class Bench:
    """`entered` are the callers that got a place, in their order."""

    def __init__(self):
        self.admission = Admission(max_clients=100, max_anonymous=0, capacity_of=Capacity.of)
        self.doorstep = Doorstep(
            self.admission, self._enter, timeout_s=lambda: TIMEOUT_S, episodes=Episodes()
        )
        self.entered, self.places = [], {}
        self.sockets = []

    def _enter(self, caller):
        place = self.admission.admit(caller.holder, caller.door)
        if place is None:
            return False
        self.entered.append(caller)
        self.places[caller] = place
        return True

    def caller(self, holder, door):
        near, far = socket.socketpair()
        self.sockets += [near, far]
        return near, Caller(far, Entrance(None, door, None), holder, trio.current_time())

    def call(self, holder=HERE, *, says=b""):
        """The client's end of one that comes by the network, and its caller."""
        near, caller = self.caller(holder, BY_TCP)
        near.send(says)
        self.doorstep.call(caller)
        return near, caller

    def stand(self, holder):
        near, caller = self.caller(holder, LOCAL)
        return near, caller, self.doorstep.stand(caller)

    def fill(self):
        """All places are somebody's who does not leave them."""
        while place := self.admission.admit(ROOT, LOCAL):
            self.places[place] = place
        return [self.places[key] for key in self.places if key is self.places[key]]

    def close(self):
        for sock in self.sockets:
            sock.close()


@pytest.fixture
async def bench(no_descriptor_leaks, autojump_clock, nursery):
    made = Bench()
    nursery.start_soon(made.doorstep.run)
    yield made
    nursery.cancel_scope.cancel()
    made.doorstep.close()
    made.close()


def is_closed(sock):
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


async def settled():
    await wait_all_tasks_blocked(SETTLED_S)


async def test_one_that_says_nothing_holds_no_place_until_its_first_byte(bench):
    near, caller = bench.call()
    await settled()
    assert (bench.entered, bench.admission.clients, bench.admission.callers) == ([], 0, 1)

    near.send(b"x")
    await settled()

    assert bench.entered == [caller]
    assert (bench.admission.clients, bench.admission.callers) == (1, 0)


async def test_one_that_has_spoken_already_does_not_wait(bench):
    _, caller = bench.call(says=b"x")
    assert bench.entered == [caller]


async def test_one_that_goes_is_forgotten(bench):
    near, _ = bench.call()
    near.close()
    await settled()
    assert (bench.entered, bench.admission.callers) == ([], 0)


async def test_one_that_says_all_it_has_to_say_and_closes_its_half_gets_a_place(bench):
    near, caller = bench.call()
    near.send(b"x")
    near.shutdown(socket.SHUT_WR)
    await settled()
    assert bench.entered == [caller]


async def test_one_that_stays_silent_is_closed_at_the_deadline_and_the_log_says_so(
    bench, log, autojump_clock
):
    near, _ = bench.call()
    await trio.sleep(TIMEOUT_S - 1)
    assert not is_closed(near)
    await trio.sleep(2)
    assert is_closed(near)
    assert len(lines(log, "TCP, from 10.0.0.1: sent nothing within 30 s")) == 1


async def test_when_it_is_full_the_longest_silent_of_the_largest_address_makes_way(bench, log):
    most = Capacity.of(100).callers
    lone, _ = bench.call(THERE)
    first, *others = [bench.call(HERE)[0] for _ in range(most - 1)]
    for _ in range(3):
        bench.call(Holder("10.0.0.3", Rank.NETWORK))
    assert bench.admission.callers == most
    assert [is_closed(each) for each in (first, *others[:3])] == [True, True, True, False]
    assert not is_closed(lone)
    assert len(lines(log, "more callers from the network than there is room for")) == 1


async def test_thousands_from_one_address_leave_another_alone(bench):
    lone, caller = bench.call(THERE)
    for _ in range(1000):
        bench.call(HERE)
    lone.send(b"x")
    await settled()
    assert bench.entered == [caller]


async def test_who_has_spoken_makes_way_for_no_silent_one_of_as_large_an_address(bench):
    bench.fill()
    most = Capacity.of(100).callers
    spoken = [
        bench.call(holder, says=b"x")[0] for holder in (HERE, THERE) for _ in range(most // 2)
    ]
    await settled()
    newcomers = [bench.call(holder)[0] for holder in (HERE, THERE)]
    assert all(map(is_closed, newcomers))
    assert not any(map(is_closed, spoken))


async def test_listeners_of_the_network_rest_when_nobody_could_be_let_in_at_all(bench):
    bench.fill()
    assert bench.admission.has_room(Transport.TCP)
    for _ in range(Capacity.of(100).callers):
        bench.call(HERE, says=b"x")
    await settled()
    assert not bench.admission.has_room(Transport.TCP)


async def test_places_go_to_those_who_have_the_fewest_and_root_is_first(bench):
    held = bench.fill()
    _, many, _ = bench.stand(FRED)
    _, more, _ = bench.stand(FRED)
    _, root, _ = bench.stand(ROOT)
    _, other = bench.call(HERE, says=b"x")
    assert bench.entered == []

    for place in held:
        bench.admission.left(place)
    await trio.sleep(1)

    assert bench.entered[0] is root
    assert set(bench.entered) == {root, many, more, other}


async def test_who_finds_no_room_even_to_stand_is_known_at_once(bench):
    bench.fill()
    standing = [bench.stand(FRED) for _ in range(Capacity.of(100).standing)]
    assert [loser for *_, loser in standing] == [None] * len(standing)

    _, another, loser = bench.stand(FRED)
    assert loser is another

    anna = Holder("uid 1001", Rank.LOCAL, 1001)
    *_, loser = bench.stand(anna)
    assert loser is standing[-1][1]


async def test_at_the_end_everybody_is_closed(bench):
    callers = [bench.call()[0] for _ in range(3)]
    bench.doorstep.close()
    assert all(map(is_closed, callers))
    assert bench.admission.callers == 0
