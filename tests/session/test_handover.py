"""Where the two planes meet: the relay thread's reports, its end and its death."""

import logging
import socket
import threading

import pytest
import trio

from proxyd.admission.admission import Admission
from proxyd.endpoint.plain import UnixEndpoint
from proxyd.session.handover import Relay, RelayDied
from proxyd.session.roster import Roster
from proxyd.wire.programs import Remote
from tests.session.desk import (
    DEADLINE_S,
    eventually,
    lines,
    open_descriptors,
    seated,
    succeeded,
)


def relay_threads():
    return [thread for thread in threading.enumerate() if thread.name == "relay"]


def never():
    raise AssertionError("nobody closed it")


class Plane:
    """A roster and a relay, and sessions between two sockets that a test holds."""

    def __init__(self):
        self.roster = Roster(Admission(max_clients=100, max_anonymous=0))
        self.reported_in = []
        self.relay = Relay(self._report)
        self.sockets = []

    def _report(self, pair):
        self.reported_in.append(threading.current_thread())
        self.roster.relay_ended(pair)

    def open(self):
        """The client's and the daemon's socket of a new session."""
        client, near = socket.socketpair()
        daemon, far = socket.socketpair()
        self.sockets += [client, daemon]
        for outer in (client, daemon):
            outer.settimeout(DEADLINE_S)
        arrived = seated(self.roster, end=never)
        pair = self.relay.adopt(
            arrived.number,
            UnixEndpoint(near),
            UnixEndpoint(far),
            now_ns=0,
            owner="",
            readonly=False,
        )
        self.roster.opened(arrived, pair, end=never)
        return client, daemon

    def close(self):
        for sock in self.sockets:
            sock.close()


@pytest.fixture
async def plane(no_descriptor_leaks):
    made = Plane()
    yield made
    made.close()


async def test_a_session_that_ends_is_reported_in_the_control_planes_thread(plane, nursery, log):
    nursery.start_soon(plane.relay.run)
    client, _ = plane.open()
    assert list(plane.roster.clients) == [1]

    client.close()
    plane.sockets[1].close()
    await plane.roster.admission.wait_change()

    assert plane.roster.clients == {}
    assert plane.reported_in == [threading.main_thread()]
    assert len(lines(log, "session 1 ended", logging.INFO)) == 1


async def test_one_session_that_ends_leaves_the_others(plane, nursery, log):
    nursery.start_soon(plane.relay.run)
    first, second = plane.open(), plane.open()

    for sock in first:
        sock.close()
    await eventually(lambda: list(plane.roster.clients) == [2], "the first is gone")

    second[0].send(b"\0\0\0\x1c" + bytes(24))
    assert await trio.to_thread.run_sync(second[1].recv, 100) == b"\0\0\0\x1c" + bytes(24)
    assert len(lines(log, " ended: ")) == 1


async def test_what_comes_after_the_end_of_one_end_is_the_end_of_the_session(plane, nursery):
    nursery.start_soon(plane.relay.run)
    client, daemon = plane.open()

    daemon.close()

    assert await trio.to_thread.run_sync(client.recv, 100) == b""
    client.close()
    await eventually(lambda: not plane.roster.clients, "the session is gone")


async def test_a_cancellation_ends_every_session_and_the_thread(plane, log):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(plane.relay.run)
        sessions = [plane.open() for _ in range(5)]
        await eventually(relay_threads, "the thread runs")
        nursery.cancel_scope.cancel()

    assert plane.roster.clients == {}
    assert plane.roster.admission.clients == 0
    assert [sock.recv(100) for session in sessions for sock in session] == [b""] * 10
    assert len(lines(log, ": proxyd stopped; ", logging.INFO)) == 5
    await eventually(lambda: not relay_threads(), "the thread has ended")


async def test_a_session_handed_over_before_the_thread_runs_is_served(plane, nursery):
    client, daemon = plane.open()

    nursery.start_soon(plane.relay.run)

    client.send(b"\0\0\0\x1c" + bytes(24))
    assert len(await trio.to_thread.run_sync(daemon.recv, 100)) == 28


async def test_a_session_handed_over_while_the_relay_ends_is_ended_like_the_rest(plane, log):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(plane.relay.run)
        await eventually(relay_threads, "the thread runs")
        nursery.cancel_scope.cancel()
        client, daemon = plane.open()

    assert (client.recv(100), daemon.recv(100)) == (b"", b"")
    assert plane.roster.clients == {}
    assert len(lines(log, "session 1 ended", logging.INFO)) == 1


async def test_a_relay_that_was_stopped_ends_without_an_error(plane, log):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(plane.relay.run)
        plane.open()
        await eventually(relay_threads, "the thread runs")

        plane.relay.loops[0].stop("on purpose")

    assert plane.roster.clients == {}
    assert len(lines(log, ": on purpose; ", logging.INFO)) == 1


@pytest.fixture
async def dying(plane):
    """A plane whose relay thread dies of an error of ours in its first turn."""

    def broken(timeout_s):
        raise RuntimeError("a mistake of ours")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plane.relay.loops[0], "turn", broken)
        patch.setattr(threading, "excepthook", lambda _: None)  # pytest's would fail a test for it
        yield plane
        await eventually(lambda: not relay_threads(), "the thread has ended")
    plane.relay.loops[0].run()  # obeys the order to stop that the dead thread left, and closes


async def test_a_relay_that_dies_says_so_with_a_traceback(dying, log):
    with pytest.raises(RelayDied):
        await dying.relay.run()

    (told,) = (record for record in log.records if record.exc_info)
    assert (told.getMessage(), told.levelno) == ("the relay thread died", logging.ERROR)


async def test_a_relay_that_dies_stops_everything_beside_it(dying):
    with pytest.RaisesGroup(RelayDied):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(dying.relay.run)


async def test_a_whole_session_is_gone_from_the_roster_when_its_client_is(desk, log):
    caller = await desk.opened()
    assert succeeded(await caller.call(Remote.CONNECT_GET_LIB_VERSION))
    assert list(desk.roster.clients) == [1]

    caller.close()

    await desk.is_as_before()
    assert len(lines(log, "session 1 ended", logging.INFO)) == 1
    assert open_descriptors() == desk.descriptors
