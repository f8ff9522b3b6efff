"""A session goes from the relay of one process to that of another; both stand in this one."""

import os
import socket

import pytest
import trio

from proxyd.endpoint.plain import PlainEndpoint, UnixEndpoint
from proxyd.session.handover import Relay
from tests.bed.pairs import tcp_pair
from tests.fakes.layer import layered
from tests.fakes.tls import TLS_1_3, secured
from tests.relay.frames import call, reply
from tests.relay.moving import from_text, to_text
from tests.session.desk import DEADLINE_S, eventually


class Houses:
    """Two relays, and sessions that begin in the first."""

    def __init__(self, nursery):
        self.ended = {"old": [], "new": []}
        self.old = Relay(self.ended["old"].append)
        self.new = Relay(self.ended["new"].append)
        for relay in (self.old, self.new):
            nursery.start_soon(relay.run)
        self.sockets = []

    def open(self, number, make=UnixEndpoint, pair=socket.socketpair):
        client, near = pair()
        daemon, far = socket.socketpair()
        self.sockets += [client, daemon]
        for outer in (client, daemon):
            outer.settimeout(DEADLINE_S)
        ends = make(near), UnixEndpoint(far)
        return client, daemon, self.old.adopt(number, *ends, now_ns=0, owner="", readonly=False)

    def close(self):
        for sock in self.sockets:
            sock.close()


@pytest.fixture
async def houses(no_descriptor_leaks, nursery):
    made = Houses(nursery)
    yield made
    made.close()


async def converse(client, daemon, serial):
    client.sendall(call(serial))
    assert await trio.to_thread.run_sync(daemon.recv, 100) == call(serial)
    daemon.sendall(reply(serial))
    assert await trio.to_thread.run_sync(client.recv, 100) == reply(serial)


def copies(frozen):
    return [socket.socket(fileno=os.dup(each)) for each in frozen.descriptors]


@pytest.mark.parametrize("pair", [socket.socketpair, tcp_pair])
async def test_a_session_moves_and_ends_where_it_went(houses, pair):
    make = UnixEndpoint if pair is socket.socketpair else PlainEndpoint
    client, daemon, _ = houses.open(1, make, pair)
    await converse(client, daemon, 1)

    frozen = await houses.old.freeze(1)
    client.sendall(call(2))
    moved = houses.new.resume(from_text(to_text(frozen.state)), *copies(frozen))
    houses.old.let_go(frozen)

    assert await trio.to_thread.run_sync(daemon.recv, 100) == call(2)
    await converse(client, daemon, 3)
    assert (moved.number, moved.up.calls) == (1, 3)
    client.close()
    daemon.close()
    await eventually(lambda: houses.ended["new"] == [moved], "it has ended")
    assert houses.ended["old"] == []


async def test_what_is_restored_touches_no_byte_until_it_goes_on(houses):
    client, daemon, _ = houses.open(1)
    frozen = await houses.old.freeze(1)
    client.sendall(call(1))
    sockets = copies(frozen)
    houses.new.restored(frozen.state, *sockets)
    for sock in sockets:
        sock.close()

    houses.old.thaw(frozen)

    assert await trio.to_thread.run_sync(daemon.recv, 100) == call(1)
    await converse(client, daemon, 2)
    assert houses.ended == {"old": [], "new": []}


async def test_a_state_that_is_not_understood_leaves_the_sockets_to_the_caller(houses):
    client, daemon, _ = houses.open(1)
    frozen = await houses.old.freeze(1)
    sockets = copies(frozen)
    with pytest.raises(ValueError, match="'future' is unknown"):
        houses.new.resume({**frozen.state, "future": 1}, *sockets)
    for sock in sockets:
        sock.close()

    houses.old.thaw(frozen)

    await converse(client, daemon, 1)


async def test_nobody_and_who_cannot_move_are_no_one(houses):
    peer, endpoint = secured(*tcp_pair(), version=TLS_1_3)
    houses.sockets.append(peer)
    _, _, pair = houses.open(1, lambda sock: (sock.close(), endpoint)[1])
    assert await houses.old.freeze(1) is None
    assert not pair.moves
    assert await houses.old.freeze(2) is None


async def test_who_gives_up_while_it_waits_leaves_the_session_where_it_is(houses):
    client, daemon, _ = houses.open(1)
    for _ in range(20):
        with trio.CancelScope() as scope:
            scope.cancel()
            await houses.old.freeze(1)
        assert scope.cancelled_caught
    await converse(client, daemon, 1)
    await houses.old.answers()
    assert houses.old.loops[0]._frozen == {}


async def test_an_encrypted_session_thaws_in_its_own_thread(houses):
    peer, endpoint = layered(*tcp_pair())
    houses.sockets.append(peer)
    _, daemon, pair = houses.open(1, lambda sock: (sock.close(), endpoint)[1])
    frozen = await houses.old.freeze(1)
    assert frozen.pair is pair
    assert [loop.sessions for loop in houses.old.loops] == [0, 1]
    peer.sendall(call(1))
    houses.old.thaw(frozen)
    assert await trio.to_thread.run_sync(daemon.recv, 100) == call(1)


async def test_what_is_frozen_when_the_relay_ends_is_ended_and_reported():
    ended = []
    async with trio.open_nursery() as nursery:
        houses = Houses(nursery)
        houses.ended["old"] = ended
        houses.old._on_end = ended.append
        client, daemon, pair = houses.open(1)
        assert await houses.old.freeze(1) is not None
        nursery.cancel_scope.cancel()
    assert ended == [pair]
    assert (client.recv(1), daemon.recv(1)) == (b"", b"")
    houses.close()
