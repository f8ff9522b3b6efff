"""Which relay thread a session comes to: encrypted ones have several."""

import contextlib
import socket
import threading

import pytest
import trio

from proxyd.endpoint.plain import UnixEndpoint
from proxyd.relay.pipes import MOST_HELD
from proxyd.session import handover
from proxyd.session.handover import Relay, RelayDied
from tests.bed.pairs import tcp_pair
from tests.fakes.layer import layered
from tests.relay.frames import call, reply
from tests.session.desk import DEADLINE_S, eventually

MOST = 3


def relay_threads():
    names = [thread.name for thread in threading.enumerate()]
    return sorted(name for name in names if name.startswith("relay"))


class House:
    """A relay with three threads that encrypt, and its sessions."""

    def __init__(self):
        self.ended = []
        self.relay = Relay(self.ended.append, encrypting=MOST)
        self.sockets = []

    def plain(self, number):
        client, near = socket.socketpair()
        client.settimeout(DEADLINE_S)
        return self._open(number, client, UnixEndpoint(near))

    def encrypted(self, number):
        return self._open(number, *layered(*tcp_pair()))

    def _open(self, number, client, endpoint):
        daemon, far = socket.socketpair()
        daemon.settimeout(DEADLINE_S)
        self.sockets += [client, daemon]
        self.relay.adopt(number, endpoint, UnixEndpoint(far), now_ns=0, owner="joe", readonly=False)
        return client, daemon

    @property
    def sessions(self):
        return [loop.sessions for loop in self.relay.loops]

    def close(self):
        for sock in self.sockets:
            sock.close()


@pytest.fixture
async def house(no_descriptor_leaks):
    made = House()
    with contextlib.closing(made):
        yield made


@pytest.fixture
async def running(house, nursery):
    nursery.start_soon(house.relay.run)
    await eventually(lambda: len(relay_threads()) == 1 + MOST, "all threads run")
    return house


async def converse(client, daemon, serial=1):
    client.sendall(call(serial))
    assert await trio.to_thread.run_sync(daemon.recv, 100) == call(serial)
    daemon.sendall(reply(serial))
    assert await trio.to_thread.run_sync(client.recv, 100) == reply(serial)


async def test_encrypted_sessions_have_a_thread_each_before_any_has_two(running):
    pairs = [running.encrypted(number) for number in range(1, 7)]
    for pair in pairs:
        await converse(*pair)
    assert running.sessions == [0, 2, 2, 2]
    assert relay_threads() == ["relay", "relay-crypto", "relay-crypto-2", "relay-crypto-3"]
    assert [loop.name for loop in running.relay.loops] == [
        "plain",
        "encrypted",
        "encrypted-2",
        "encrypted-3",
    ]
    await running.relay.answers()


async def test_plain_sessions_stay_in_one_thread(running):
    for number in range(1, 7):
        await converse(*running.plain(number))
    assert running.sessions == [6, 0, 0, 0]


async def test_loads_are_looked_at_while_there_are_encrypted_sessions(running, monkeypatch):
    looked = []
    monkeypatch.setattr(handover, "_LOOK_EVERY_S", 0.001)
    for thread in running.relay._encrypting:
        monkeypatch.setattr(thread, "look", looked.append)
    await converse(*running.plain(1))
    assert not looked
    client, daemon = running.encrypted(2)
    await eventually(lambda: len(looked) > MOST, "they are looked at, again and again")
    client.close()
    daemon.close()
    await eventually(lambda: running.ended, "it has ended")
    await eventually(lambda: not running.relay._encrypts.is_set(), "there is no need any more")


async def test_who_comes_goes_where_the_least_is_done(running):
    for number in range(1, 4):
        await converse(*running.encrypted(number))
    _, busy, idle, busy_too = running.relay._threads
    busy.load, idle.load, busy_too.load = 1.0, 0.0, 0.75
    await converse(*running.encrypted(4))
    assert running.sessions == [0, 1, 2, 1]


async def test_what_a_thread_does_is_found_out(running):
    client, daemon = running.encrypted(1)
    await converse(client, daemon)
    thread = running.relay._encrypting[0]
    thread.look(1)
    await converse(client, daemon, 2)
    thread.look(2)
    assert thread.load > 0  # of a nanosecond it took all and more
    thread.look(3_600_000_000_000)
    assert thread.load == 0


async def test_orders_reach_a_session_in_whichever_thread(running):
    pairs = {number: running.encrypted(number) for number in range(1, 4)}
    for number, (client, daemon) in pairs.items():
        await converse(client, daemon)
        frozen = await running.relay.freeze(number)
        assert frozen.pair.number == number
        running.relay.thaw(frozen)
        await converse(client, daemon, 2)
        running.relay.drop(number, "told to")
        await eventually(lambda number=number: len(running.ended) == number, "it has ended")
    assert {pair.reason for pair in running.ended} == {"told to"}
    assert await running.relay.freeze(1) is None
    running.relay.drop(1, "again")  # nobody minds


async def test_sessions_of_before_the_threads_run_are_served(house, nursery):
    pairs = [house.encrypted(number) for number in range(1, 4)]
    nursery.start_soon(house.relay.run)
    for pair in pairs:
        await converse(*pair)
    assert house.sessions == [0, 1, 1, 1]


async def test_the_end_of_the_relay_ends_all_threads_and_sessions(house):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.relay.run)
        pairs = [house.encrypted(number) for number in range(1, 5)]
        for pair in pairs:
            await converse(*pair)
        nursery.cancel_scope.cancel()
    await eventually(lambda: not relay_threads(), "all have ended")
    assert [client.recv(10) for client, _ in pairs] == [b""] * 4
    await eventually(lambda: len(house.ended) == 4, "each is reported")
    client, daemon = house.encrypted(9)  # too late, and no thread is made for it
    assert (client.recv(10), daemon.recv(10)) == (b"", b"")
    assert relay_threads() == []


async def test_who_is_let_go_just_when_a_thread_has_ended_harms_nobody(running):
    running.encrypted(1)
    frozen = await running.relay.freeze(1)
    (thread,) = [each for each in threading.enumerate() if each.name == "relay-crypto"]
    frozen_in = running.relay.loops[1]
    frozen_in.stop("over")
    thread.join(DEADLINE_S)  # it has reported the session, and trio has not heard of it
    running.relay.let_go(frozen)
    await eventually(lambda: running.ended == [frozen.pair], "it is reported")


async def test_any_of_the_threads_that_dies_ends_the_relay(house, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def broken():
        raise AssertionError("a mistake of ours")

    with pytest.RaisesGroup(RelayDied):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.relay.run)
            for number in range(1, 4):
                await converse(*house.encrypted(number))
            last = house.relay.loops[-1]
            last.ask(broken)
    last.run()  # closes what the dead thread left


async def test_long_calls_of_all_encrypted_sessions_share_one_memory(house):
    for number in range(1, 4):
        house.encrypted(number)
    plain, *encrypting = house.relay.loops
    assert encrypting[0].pipes.of("joe").lend(MOST_HELD // 2)
    assert not encrypting[-1].pipes.of("joe").lend(1)
    assert encrypting[-1].pipes.of("ann").lend(1)
    assert plain.pipes.of("joe").lend(MOST_HELD // 2)
    for loop in house.relay.loops:
        loop._close()
