import logging
import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.config.listening import Transport
from proxyd.session.accepting import accept_clients
from proxyd.session.admission import Admission
from tests.session.desk import OPEN_TO_ALL

UNIX, TCP = Transport.UNIX, Transport.TCP


@pytest.fixture
def log(caplog):
    with caplog.at_level(logging.DEBUG):
        yield caplog


def admission(max_clients=2, max_anonymous=0):
    return Admission(max_clients=max_clients, max_anonymous=max_anonymous)


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


async def test_there_is_room_until_the_limit_is_reached(nursery):
    gate = admission(max_clients=2)
    gate.arrived(UNIX, anonymous=False)
    assert gate.has_room(UNIX)
    gate.arrived(UNIX, anonymous=False)
    assert not gate.has_room(UNIX)

    waiter = Waiter(gate, nursery)
    await wait_all_tasks_blocked()

    assert waiter.let_in == 0


async def test_room_is_found_at_once_when_there_is_some():
    with trio.fail_after(0):
        await admission().room(UNIX)


async def test_everybody_who_waits_is_woken_when_a_client_leaves(nursery):
    gate = admission(max_clients=1)
    gate.arrived(UNIX, anonymous=False)
    waiters = [Waiter(gate, nursery) for _ in range(3)]
    await wait_all_tasks_blocked()

    gate.left(UNIX, anonymous=False)
    await wait_all_tasks_blocked()

    assert [waiter.let_in for waiter in waiters] == [1, 1, 1]


async def test_a_listener_that_is_woken_too_late_goes_on_waiting(nursery):
    gate = admission(max_clients=1)
    gate.arrived(UNIX, anonymous=False)
    waiter = Waiter(gate, nursery)
    await wait_all_tasks_blocked()

    gate.left(UNIX, anonymous=False)
    gate.arrived(UNIX, anonymous=False)  # another listener was quicker
    await wait_all_tasks_blocked()

    assert waiter.let_in == 0


async def test_anonymous_clients_have_a_limit_of_their_own(nursery):
    gate = admission(max_clients=10, max_anonymous=2)
    gate.arrived(UNIX, anonymous=True)
    gate.arrived(UNIX, anonymous=False)
    gate.arrived(UNIX, anonymous=True)
    waiter = Waiter(gate, nursery)
    await wait_all_tasks_blocked()
    assert (gate.has_room(UNIX), waiter.let_in) == (False, 0)

    gate.proved(UNIX)
    await wait_all_tasks_blocked()

    assert (gate.clients, gate.anonymous, waiter.let_in) == (3, 1, 1)


async def test_one_limit_that_is_clear_does_not_open_the_other(nursery):
    gate = admission(max_clients=2, max_anonymous=1)
    gate.arrived(UNIX, anonymous=True)
    gate.arrived(UNIX, anonymous=False)
    waiter = Waiter(gate, nursery)

    gate.proved(UNIX)
    await wait_all_tasks_blocked()
    assert waiter.let_in == 0

    gate.left(UNIX, anonymous=False)
    await wait_all_tasks_blocked()
    assert waiter.let_in == 1


def test_zero_means_any_number_of_anonymous_clients():
    gate = admission(max_clients=100, max_anonymous=0)
    for _ in range(99):
        gate.arrived(UNIX, anonymous=True)
    assert gate.has_room(UNIX)


async def test_a_raised_limit_lets_those_in_who_wait(nursery):
    gate = admission(max_clients=1)
    gate.arrived(UNIX, anonymous=False)
    waiter = Waiter(gate, nursery)
    await wait_all_tasks_blocked()

    gate.change(max_clients=2, max_anonymous=0)
    await wait_all_tasks_blocked()

    assert waiter.let_in == 1


async def test_a_lowered_limit_sends_nobody_away_and_lets_nobody_in(nursery):
    gate = admission(max_clients=3)
    for _ in range(3):
        gate.arrived(UNIX, anonymous=False)

    gate.change(max_clients=1, max_anonymous=0)
    waiter = Waiter(gate, nursery)
    gate.left(UNIX, anonymous=False)
    gate.left(UNIX, anonymous=False)
    await wait_all_tasks_blocked()

    assert (gate.clients, waiter.let_in) == (1, 0)


async def test_the_log_says_once_that_there_is_no_room_and_names_the_keys(nursery, log):
    gate = admission(max_clients=2, max_anonymous=1)
    gate.arrived(UNIX, anonymous=True)
    for _ in range(3):
        Waiter(gate, nursery)
    await wait_all_tasks_blocked()

    (told,) = log.messages
    assert told.startswith("no room for more clients by UNIX: 1 of 2 are connected, 1 of 1 unauth")
    assert "max_clients, max_anonymous_clients" in told


async def test_the_log_says_when_nobody_waits_any_more(nursery, log):
    gate = admission(max_clients=1)
    gate.arrived(UNIX, anonymous=False)
    Waiter(gate, nursery)
    await wait_all_tasks_blocked()

    gate.left(UNIX, anonymous=False)
    gate.arrived(UNIX, anonymous=False)
    gate.nobody_waits(UNIX)  # there may be nobody, but there is no room either
    gate.left(UNIX, anonymous=False)
    gate.nobody_waits(UNIX)
    gate.nobody_waits(UNIX)

    assert [record.levelno for record in log.records] == [logging.WARNING, logging.INFO]
    assert log.messages[1] == "nobody waits any more by UNIX: 0 clients are connected"


def test_nothing_is_logged_while_nobody_waits(log):
    gate = admission(max_clients=1)
    for _ in range(3):
        gate.arrived(UNIX, anonymous=False)
        gate.left(UNIX, anonymous=False)
    assert log.messages == []


async def test_strangers_of_the_network_keep_nobody_of_this_host_waiting(nursery, log):
    gate = admission(max_clients=10, max_anonymous=2)
    for _ in range(2):
        gate.arrived(TCP, anonymous=True)
    remote, local = Waiter(gate, nursery, TCP), Waiter(gate, nursery, UNIX)
    await wait_all_tasks_blocked()
    assert (remote.let_in, local.let_in) == (0, 1)

    gate.nobody_waits(UNIX)  # says nothing of those by TCP
    gate.left(TCP, anonymous=True)
    await wait_all_tasks_blocked()
    assert remote.let_in == 1
    assert [message[:35] for message in log.messages] == ["no room for more clients by TCP: 2 "]


# The end


async def test_after_the_close_there_is_no_room_whatever_leaves_or_changes(nursery):
    gate = admission(max_clients=2)
    gate.arrived(UNIX, anonymous=True)
    gate.close()
    waiter = Waiter(gate, nursery)
    await wait_all_tasks_blocked()

    gate.proved(UNIX)
    gate.change(max_clients=100, max_anonymous=0)
    gate.left(UNIX, anonymous=False)
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
    if waits_for == "room":
        gate.arrived(UNIX, anonymous=False)
    nursery.start_soon(accept_clients, listener, OPEN_TO_ALL, gate, accepted.append)
    await wait_all_tasks_blocked()
    trio.lowlevel.add_instrument(ClosedWhenWoken(gate))

    with connected(listener) as caller:
        if waits_for == "room":
            gate.left(UNIX, anonymous=False)
        await wait_all_tasks_blocked(0.01)

        assert gate.closed
        assert accepted == []
        with listener.accept()[0] as left_for_the_next_daemon:
            caller.send(b"x")
            assert left_for_the_next_daemon.recv(1) == b"x"


async def test_a_change_to_come_is_one_event_and_then_another():
    gate = admission()
    first = gate.changed
    gate.arrived(UNIX, anonymous=False)
    second = gate.changed
    gate.left(UNIX, anonymous=False)

    assert (first.is_set(), second.is_set(), gate.changed.is_set()) == (True, True, False)
