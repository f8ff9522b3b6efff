"""Admin clients on socket pairs: who is served, for how long, and what ends them."""

import logging

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.peer.credentials import Denied
from proxyd.wire import adminrpc, remote
from proxyd.wire.adminrpc import (
    ClientEntry,
    ClientList,
    Flags,
    ListClients,
    ListServers,
    OfClient,
    OfServer,
    ServerList,
)
from proxyd.wire.frame import FrameType, Header
from proxyd.wire.programs import Admin, Keepalive, Program, Remote
from tests.admin.asking import shown
from tests.admin.desk import TIMEOUT_S, Desk
from tests.session.desk import failure_of, succeeded

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


@pytest.fixture
async def desk(nursery, mock_clock):
    """Its clock stands still until it is told to jump."""
    made = Desk(nursery)
    yield made
    made.hang_up()


def told(log, level):
    """What was logged at this level."""
    return [record.getMessage() for record in log.records if record.levelno == level]


async def works(caller):
    """Whether this client is served as any other."""
    return succeeded(await caller.call(Admin.CONNECT_LIST_SERVERS, ListServers().pack()))


async def test_a_client_is_served_from_open_to_close(desk):
    caller = desk.visit()
    assert succeeded(await caller.open())
    listed = await caller.call(Admin.CONNECT_LIST_SERVERS, ListServers().pack())
    assert ServerList.unpack(listed.payload).names == ("virtproxyd", "admin")
    assert succeeded(await caller.call(Admin.CONNECT_CLOSE))
    assert await caller.ended()
    assert desk.server.clients() == []


async def test_a_client_finds_itself_in_the_list(desk):
    caller = desk.visit()
    listed = await caller.call(Admin.SERVER_LIST_CLIENTS, ListClients("admin").pack())
    (entry,) = ClientList.unpack(listed.payload).clients
    said = await caller.call(Admin.CLIENT_GET_INFO, OfClient(entry).pack())
    assert shown(said.payload)[:5] == [
        ("readonly", "BOOLEAN", False),
        ("unix_user_id", "INT", 0),
        ("unix_user_name", "STRING", "user0"),
        ("unix_group_id", "INT", 0),
        ("unix_group_name", "STRING", "group0"),
    ]


async def test_calls_that_come_all_at_once_are_answered_one_by_one(desk):
    caller = desk.visit()
    for _ in range(50):
        caller.send(caller.frame(Admin.CONNECT_LIST_SERVERS, ListServers().pack()))
    serials = [(await caller.receive()).header.serial for _ in range(50)]
    assert serials == list(range(50))


async def test_a_ping_is_answered(desk):
    caller = desk.visit()
    caller.ping()
    assert await caller.receive() == remote.keepalive(Keepalive.PONG)


async def test_another_user_is_closed_without_a_byte(desk, log):
    caller = desk.visit(uid=1000, gid=1000)
    caller.send(caller.frame(Admin.CONNECT_LIST_SERVERS, ListServers().pack()))
    assert await caller.ended()
    assert desk.server.clients() == []
    (line,) = told(log, logging.WARNING)
    assert "uid 1000" in line
    assert "only uid 0 is" in line


async def test_root_is_another_user_for_a_users_daemon(desk, log, monkeypatch):
    monkeypatch.setattr("proxyd.admin.visit.os.geteuid", lambda: 1000)
    caller = desk.visit()
    assert await caller.ended()
    assert "only uid 1000 is" in "".join(told(log, logging.WARNING))


async def test_a_process_that_has_ended_is_closed_without_a_byte(desk, log, monkeypatch):
    def ended(sock):
        raise Denied("process 7 has ended")

    monkeypatch.setattr("proxyd.admin.visit.credentials_of", ended)
    caller = desk.visit()
    assert await caller.ended()
    assert "process 7 has ended" in "".join(told(log, logging.WARNING))


class NoNames:
    async def names_of(self, uid, gid):
        raise Denied("no user has this uid")


class HungNames:
    async def names_of(self, uid, gid):
        await trio.sleep_forever()


@pytest.mark.parametrize("names", [NoNames, HungNames])
async def test_who_has_no_name_is_served_without_one(nursery, autojump_clock, names):
    desk = Desk(nursery, names())
    caller = desk.visit()
    said = await caller.call(Admin.CLIENT_GET_INFO, OfClient(ClientEntry("admin", 1)).pack())
    assert ("unix_user_id", "INT", 0) in shown(said.payload)
    assert "unix_user_name" not in dict(param[:2] for param in shown(said.payload))
    desk.hang_up()


async def test_a_call_of_another_program_is_refused_and_the_next_is_served(desk):
    caller = desk.visit()
    caller.send(remote.call(Remote.AUTH_LIST, 0).pack())
    said = failure_of(await caller.receive())
    assert (said.code, said.domain) == (39, 7)
    assert said.message == "Cannot find program 536903814 version 1"
    assert await works(caller)


async def test_arguments_that_do_not_decode_are_refused_and_the_next_call_is_served(desk):
    caller = desk.visit()
    said = failure_of(await caller.call(Admin.CONNECT_LIST_SERVERS, b"\0"))
    assert (said.code, said.domain) == (39, 7)
    assert await works(caller)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\xff" * 64])
async def test_garbage_ends_it(desk, log, garbage):
    caller = desk.visit()
    caller.send(garbage)
    assert await caller.ended()
    assert desk.server.clients() == []
    assert "protocol error: a frame length of" in "".join(told(log, logging.WARNING))
    assert await works(desk.visit())


async def test_descriptors_end_it(desk):
    caller = desk.visit()
    frame = remote.Frame(Header(Program.ADMIN, 1, 1, FrameType.CALL_WITH_FDS, 0), bytes(8))
    caller.send(frame.pack())
    assert await caller.ended()


async def stuck_after(desk, mock_clock, said):
    caller = desk.visit()
    caller.send(said)
    await wait_all_tasks_blocked()
    mock_clock.jump(TIMEOUT_S - 1)
    await wait_all_tasks_blocked()
    assert len(desk.server.clients()) == 1
    mock_clock.jump(2)
    await wait_all_tasks_blocked()


FIRST = adminrpc.call(Admin.CONNECT_OPEN, 0, Flags().pack()).pack()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "made no call"),
        (remote.keepalive(Keepalive.PING).pack(), "made no call"),
        (remote.call(Remote.AUTH_LIST, 0).pack(), "made no call"),
        (FIRST[:3], "sent part of a frame"),
        (FIRST[:-1], "sent part of a frame"),
        (FIRST + FIRST[:5], "sent part of a frame"),
    ],
)
async def test_a_client_that_stalls_is_closed(desk, mock_clock, log, said, reason):
    await stuck_after(desk, mock_clock, said)
    assert desk.server.clients() == []
    assert reason in "".join(told(log, logging.WARNING))
    assert await works(desk.visit())


async def test_sending_byte_by_byte_gains_no_time(desk, mock_clock):
    caller = desk.visit()
    await caller.open()
    frame = caller.frame(Admin.CONNECT_LIST_SERVERS, ListServers().pack())
    for number in range(4):
        caller.send(frame[number : number + 1])
        await wait_all_tasks_blocked()
        assert len(desk.server.clients()) == 1
        mock_clock.jump(TIMEOUT_S / 4 + 1)
        await wait_all_tasks_blocked()
    assert await caller.ended()


async def test_a_client_may_be_idle_between_two_calls(desk, mock_clock):
    caller = desk.visit()
    await caller.open()
    for _ in range(3):
        await wait_all_tasks_blocked()
        mock_clock.jump(100 * TIMEOUT_S)
        assert await works(caller)


async def test_a_client_that_does_not_take_its_reply_is_closed(desk, nursery, mock_clock, log):
    caller = desk.visit()
    for _ in range(1000):  # of each 36 bytes are sent: a few lists fill any socket
        desk.host.main.join()
    payload = ListClients("virtproxyd").pack()
    for _ in range(50):
        caller.send(caller.frame(Admin.SERVER_LIST_CLIENTS, payload))
    await wait_all_tasks_blocked()
    assert len(desk.server.clients()) == 1
    mock_clock.jump(TIMEOUT_S + 1)
    await wait_all_tasks_blocked()
    assert desk.server.clients() == []
    assert f"did not take its reply within {TIMEOUT_S} s" in "".join(told(log, logging.WARNING))


async def test_ten_that_are_stuck_keep_nobody_waiting_and_are_gone_in_the_end(desk, mock_clock):
    for _ in range(10):
        desk.visit().send(FIRST[:20])
    await wait_all_tasks_blocked()
    caller = desk.visit()
    assert await works(caller)
    assert len(desk.server.clients()) == 11
    mock_clock.jump(TIMEOUT_S + 1)
    await wait_all_tasks_blocked()
    assert len(desk.server.clients()) == 1
    assert await works(caller)


async def test_who_sends_without_end_keeps_nobody_waiting(desk):
    flood = desk.visit()
    await flood.open()
    flood.ping(1000)
    assert await works(desk.visit())
    assert len(flood.sock.recv(1000 * 28)) < 500 * 28


async def test_a_client_that_hangs_up_is_gone(desk):
    caller = desk.visit()
    await caller.open()
    caller.close()
    await wait_all_tasks_blocked()
    assert desk.server.clients() == []


async def test_a_client_can_close_another(desk):
    caller, other = desk.visit(), desk.visit()
    await other.open()
    closing = OfClient(ClientEntry("admin", 2)).pack()
    assert succeeded(await caller.call(Admin.CLIENT_CLOSE, closing))
    assert await other.ended()
    assert len(desk.server.clients()) == 1


async def test_a_client_that_closes_itself_hears_of_it_first(desk):
    caller = desk.visit()
    closing = OfClient(ClientEntry("admin", 1)).pack()
    assert succeeded(await caller.call(Admin.CLIENT_CLOSE, closing))
    assert await caller.ended()


async def test_a_shut_down_is_answered_before_everything_ends(nursery, log):
    async with trio.open_nursery() as serving:

        def stop(*, preserve):
            serving.cancel_scope.cancel()

        desk = Desk(serving)
        desk.host.shut_down = stop
        caller = desk.visit()
        caller.send(caller.frame(Admin.CONNECT_DAEMON_SHUTDOWN, Flags().pack()))
    assert succeeded(await caller.receive())
    assert await caller.ended()
    assert "proxyd stopped" in "".join(told(log, logging.INFO))
    desk.hang_up()


async def test_an_error_of_our_own_ends_one_client_and_is_logged(desk, log, monkeypatch):
    def broken():
        raise RuntimeError("a mistake")

    caller = desk.visit()
    await caller.open()
    with monkeypatch.context() as patched:
        patched.setattr(desk.host, "servers", broken)
        assert await caller.call(Admin.CONNECT_LIST_SERVERS, ListServers().pack()) is None
    assert desk.server.clients() == []
    assert "a mistake" in log.text
    assert await works(desk.visit())


async def test_changes_are_logged_with_who_made_them_and_looking_is_not(desk, log):
    caller = desk.visit()
    await works(caller)
    assert told(log, logging.INFO) == []
    await caller.call(Admin.SERVER_UPDATE_TLS_FILES, OfServer("admin").pack())
    asked, refused = told(log, logging.INFO)
    assert asked.startswith("admin client 1, uid 0 (user0) pid ")
    assert asked.endswith(": SERVER_UPDATE_TLS_FILES")
    assert "the admin server has no TLS listener" in refused
