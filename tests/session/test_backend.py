"""Opening a daemon: what goes over the wire, and every way in which it can fail."""

import errno
import os
import socket
import struct

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.config.routes import Destination
from proxyd.endpoint import ancillary
from proxyd.negotiation.identity import ClientIdentity
from proxyd.session import backend
from proxyd.session.backend import OpenFailed, open_backend
from proxyd.wire import failure, remote
from proxyd.wire.failure import ErrorCode
from proxyd.wire.frame import Frame, FrameType, Header
from proxyd.wire.programs import VERSION, AuthMethod, Keepalive, Program, Remote
from tests.relay.frames import send_descriptor
from tests.session.desk import NO_STARTER, eventually, open_descriptors
from tests.session.scripted_daemon import HANG_UP, SILENCE, Raw

IDENTITY = ClientIdentity(
    user_name="fred", uid=1000, group_name="wheel", gid=10, pid=4242, start_ticks=77
)
STAGES = [
    Remote.AUTH_LIST,
    Remote.CONNECT_SUPPORTS_FEATURE,
    Remote.CONNECT_OPEN,
    Remote.CONNECT_SET_IDENTITY,
]
NAMES = dict(zip(STAGES, ["listing", "probing", "opening", "naming"], strict=True))


# The wire by hand, from docs/protocol/frames.md and docs/protocol/opening.md: not by the code under
# test.


def words(*numbers):
    return struct.pack(f">{len(numbers)}I", *numbers)


def text(content):
    raw = content.encode()
    return words(len(raw)) + raw + bytes(-len(raw) % 4)


def call(procedure, serial, payload=b""):
    return words(28 + len(payload), 0x20008086, 1, procedure, 0, serial, 0) + payload


def string_param(name, value):
    return text(name) + words(7) + text(value)


def number_param(name, value, kind=4):
    return text(name) + words(kind) + struct.pack(">q", value)


WHO = (
    words(6)
    + string_param("user-name", "fred")
    + number_param("unix-user-id", 1000)
    + string_param("group-name", "wheel")
    + number_param("unix-group-id", 10)
    + number_param("process-id", 4242, kind=3)
    + number_param("process-time", 77)
    + words(0)
)


def destination(path, unit=None):
    return Destination("qemu:///system", "virtqemud", str(path), unit)


async def opening(path, *, flags=0, keepalive=False, unit=None):
    return await open_backend(
        destination(path, unit), flags, IDENTITY, keepalive=keepalive, starter=NO_STARTER
    )


async def failed_with(daemon, *, keepalive=True):
    """How opening fails; asserts that nothing of it is left on either side."""
    before = open_descriptors()
    with pytest.raises(OpenFailed) as failed:
        await opening(daemon.path, keepalive=keepalive)
    await eventually(lambda: daemon.line.closed, "the daemon sees the end")
    assert open_descriptors() == before
    return failed.value


async def test_the_open_sequence_byte_for_byte(daemon):
    endpoint = await opening(daemon.path)

    assert daemon.line.wire == (
        call(66, 0) + call(1, 1, words(1) + text("qemu:///system") + words(0)) + call(419, 2, WHO)
    )
    endpoint.close()


async def test_the_open_sequence_of_a_client_that_wants_to_be_pinged_byte_for_byte(daemon):
    endpoint = await opening(daemon.path, flags=1, keepalive=True)

    assert daemon.line.wire == (
        call(66, 0)
        + call(60, 1, words(10))
        + call(1, 2, words(1) + text("qemu:///system") + words(1))
        + call(419, 3, WHO)
    )
    endpoint.close()


async def test_an_identity_of_which_nothing_is_known_is_sent_all_the_same(daemon):
    endpoint = await open_backend(
        destination(daemon.path), 0, ClientIdentity(), keepalive=False, starter=NO_STARTER
    )

    assert daemon.line.wire.endswith(call(419, 2, words(0, 0)))
    endpoint.close()


async def test_one_call_is_under_way_at_a_time(daemon):
    daemon.script = {stage: trio.Event() for stage in STAGES}
    async with trio.open_nursery() as nursery:
        endpoints = []

        async def remember():
            endpoints.append(await opening(daemon.path, keepalive=True))

        nursery.start_soon(remember)
        for number, stage in enumerate(STAGES, 1):
            await wait_all_tasks_blocked()
            assert daemon.line.calls == STAGES[:number]
            daemon.script[stage].set()
    endpoints[0].close()


async def test_what_the_daemon_says_behind_its_last_reply_is_left_for_the_relay(daemon):
    ping = remote.keepalive(Keepalive.PING).pack()
    last = remote.call(Remote.CONNECT_SET_IDENTITY, 2).header.replied(0)
    daemon.script[Remote.CONNECT_SET_IDENTITY] = Raw(remote.reply(last).pack() + ping)
    endpoint = await opening(daemon.path)
    scratch = memoryview(bytearray(100))

    got = endpoint.read_into(scratch)

    assert bytes(scratch[:got]) == ping
    endpoint.close()


async def test_a_ping_and_an_event_on_the_way_are_no_trouble(daemon):
    ping = remote.keepalive(Keepalive.PING).pack()
    event = words(28, 0x20008086, 1, 107, FrameType.MESSAGE, 0, 0)
    listed = remote.call(Remote.AUTH_LIST, 0).header.replied(0)
    daemon.script[Remote.AUTH_LIST] = Raw(
        ping + event + remote.reply(listed, remote.pack_auth_methods([AuthMethod.NONE])).pack()
    )

    endpoint = await opening(daemon.path)

    procedures = daemon.line.calls
    assert procedures[0] == Remote.AUTH_LIST
    assert [each for each in procedures if each in STAGES] == [STAGES[0], *STAGES[2:]]
    assert remote.keepalive(Keepalive.PONG).pack() in daemon.line.wire
    endpoint.close()


# Refusals


@pytest.mark.parametrize("stage", [STAGES[0], *STAGES[2:]])
async def test_a_refusal_is_the_daemons_own_words_and_the_end_of_the_connection(daemon, stage):
    said = failure.driver_not_served("not for you")
    daemon.script[stage] = said

    failed = await failed_with(daemon)

    assert failed.failure == said
    assert failed.stage == f"virtqemud {NAMES[stage]}"
    assert daemon.line.calls == STAGES[: STAGES.index(stage) + 1]


async def test_a_refused_identity_is_not_asked_for_a_second_time_nor_left_out(daemon):
    daemon.script[Remote.CONNECT_SET_IDENTITY] = failure.uri_not_allowed("no")

    failed = await failed_with(daemon, keepalive=False)

    assert failed.stage == "virtqemud naming"
    assert len(daemon.lines) == 1
    assert daemon.line.calls.count(Remote.CONNECT_SET_IDENTITY) == 1


async def test_a_daemon_that_does_not_ping_is_opened_all_the_same(daemon):
    daemon.script[Remote.CONNECT_SUPPORTS_FEATURE] = failure.unknown_procedure(60)

    endpoint = await opening(daemon.path, keepalive=True)

    assert daemon.line.calls == STAGES
    endpoint.close()


@pytest.mark.parametrize(
    ("method", "named"), [(AuthMethod.SASL, "SASL"), (AuthMethod.POLKIT, "polkit"), (9, "unknown")]
)
async def test_a_daemon_that_asks_the_proxy_for_proof_is_a_clear_refusal(daemon, method, named):
    daemon.script[Remote.AUTH_LIST] = remote.pack_auth_methods([method])

    failed = await failed_with(daemon)

    assert failed.failure.code == ErrorCode.AUTH_FAILED
    assert named in failed.failure.message
    assert daemon.line.calls == [Remote.AUTH_LIST]


# Misbehaviour


@pytest.mark.parametrize("stage", STAGES)
async def test_a_daemon_that_hangs_up_is_named_with_its_socket(daemon, stage):
    daemon.script[stage] = HANG_UP

    failed = await failed_with(daemon)

    assert failed.stage == f"virtqemud {NAMES[stage]}"
    said = f"virtqemud at '{daemon.path}': the connection ended while it was opened: closed"
    assert said in failed.failure.message


@pytest.mark.parametrize("stage", STAGES)
async def test_a_daemon_that_streams_events_is_refused_and_what_it_did_is_said(daemon, stage):
    event = Frame(Header(Program.REMOTE, VERSION, 318, FrameType.MESSAGE, 0)).pack()
    daemon.script[stage] = Raw(event * 2000)

    failed = await failed_with(daemon)

    assert "it sent more than 32 frames that answer nothing" in failed.failure.message


async def test_a_daemon_that_sends_descriptors_while_it_is_opened_is_refused(
    directory, other_process, nursery, null, monkeypatch
):
    monkeypatch.setattr(ancillary, "SO_PASSRIGHTS", 9999)  # else it is refused when it sends them

    async def a_reply_with_one(listener):
        await trio.lowlevel.wait_readable(listener)
        sock, _ = listener.accept()
        with sock:
            await trio.lowlevel.wait_readable(sock)
            send_descriptor(sock, null, words(32, 0x20008086))

    with other_process.listen(directory / "gives") as listener:
        nursery.start_soon(a_reply_with_one, listener)

        with pytest.raises(OpenFailed, match="it sent descriptors that nobody asked for"):
            await opening(directory / "gives")


@pytest.mark.parametrize("stage", STAGES)
async def test_a_daemon_that_stalls_holds_nothing_once_the_wait_is_given_up(
    daemon, mock_clock, stage
):
    before = open_descriptors()
    daemon.script[stage] = SILENCE
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as waiting:

            async def give_up():
                await wait_all_tasks_blocked()
                waiting.cancel()

            nursery.start_soon(give_up)
            await opening(daemon.path, keepalive=True)
    assert waiting.cancelled_caught

    await eventually(lambda: daemon.line.closed, "the daemon sees the end")
    assert open_descriptors() == before


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        bytes(28),
        words(0xFFFFFFFF),
        words(1048577),
        call(66, 5),  # a call, where a reply is due
        words(28, 0x20008086, 1, 66, 1, 99, 0),  # a reply to nobody
        words(28, 0x20008087, 1, 66, 1, 0, 0),  # of another program
        words(32, 0x20008086, 1, 66, 1, 0, 1, 7),  # an error that stops short
    ],
)
async def test_garbage_is_an_error_for_the_client_and_ends_the_connection(daemon, stage, garbage):
    daemon.script[stage] = Raw(garbage)

    failed = await failed_with(daemon)

    assert failed.failure.code == ErrorCode.INTERNAL_ERROR
    assert "the daemon broke the protocol" in failed.failure.message
    assert failed.stage == f"virtqemud {NAMES[stage]}"


async def test_a_list_of_methods_that_stops_short_is_an_error_for_the_client(daemon):
    daemon.script[Remote.AUTH_LIST] = words(3, 0)

    failed = await failed_with(daemon)

    assert "the daemon broke the protocol" in failed.failure.message


async def test_a_daemon_that_goes_away_in_the_middle_of_a_reply_is_a_hang_up(
    directory, other_process, nursery
):
    async def half_a_reply(listener):
        await trio.lowlevel.wait_readable(listener)
        sock, _ = listener.accept()
        with sock:
            await trio.lowlevel.wait_readable(sock)
            sock.send(words(32, 0x20008086))

    with other_process.listen(directory / "half") as listener:
        nursery.start_soon(half_a_reply, listener)

        with pytest.raises(OpenFailed, match="ended while it was opened"):
            await opening(directory / "half")


# No connection at all


async def test_a_socket_that_is_not_there_says_its_path_and_how_to_start_it(directory):
    before = open_descriptors()
    path = directory / "virtqemud-sock"

    with pytest.raises(OpenFailed) as failed:
        await opening(path, unit="virtqemud.socket")

    said = failed.value.failure
    assert (said.code, said.int1) == (ErrorCode.SYSTEM_ERROR, errno.ENOENT)
    assert said.message == (
        f"Failed to connect socket to '{path}': No such file or directory"
        " (to start it: systemctl start virtqemud.socket)"
    )
    assert failed.value.stage == "connecting"
    assert open_descriptors() == before


async def test_a_socket_that_nobody_serves_is_refused_with_the_same_hint(directory):
    path = directory / "virtqemud-sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))

    with pytest.raises(OpenFailed) as failed:
        await opening(path, unit="virtqemud.socket")

    assert failed.value.failure.int1 == errno.ECONNREFUSED
    assert "systemctl start virtqemud.socket" in failed.value.failure.message


async def test_without_a_unit_nobody_is_sent_to_systemctl(directory):
    with pytest.raises(OpenFailed) as failed:
        await opening(directory / "nothing")
    assert "systemctl" not in failed.value.failure.message


async def test_a_file_that_is_no_socket_is_refused(directory):
    (directory / "file").write_text("")

    with pytest.raises(OpenFailed) as failed:
        await opening(directory / "file", unit="virtqemud.socket")

    assert failed.value.failure.int1 == errno.ECONNREFUSED


async def test_a_path_that_fits_into_no_address_is_said_to_be_too_long(directory):
    before = open_descriptors()
    path = directory / ("x" * 200)

    with pytest.raises(OpenFailed, match="too long") as failed:
        await opening(path)

    assert failed.value.failure.code == ErrorCode.SYSTEM_ERROR
    assert f"'{path}'" in failed.value.failure.message
    assert open_descriptors() == before


async def test_a_full_backlog_is_tried_again_until_there_is_room(
    directory, other_process, mock_clock, nursery
):
    path = directory / "busy"
    listener = other_process.listen(path, backlog=0)
    opened = []

    async def remember():
        with pytest.raises(OpenFailed, match="ended while it was opened"):
            await opening(path)
        opened.append(True)

    with listener, socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(path))
        nursery.start_soon(remember)
        for _ in range(3):
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
        assert opened == []

        listener.accept()[0].close()
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        listener.accept()[0].close()
        await wait_all_tasks_blocked()

        assert opened == [True]


async def test_a_full_backlog_can_be_given_up(directory, other_process, mock_clock, nursery):
    path = directory / "busy"
    with other_process.listen(path, backlog=0), socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(path))
        before = open_descriptors()
        with trio.move_on_after(5) as deadline:

            async def pass_time():
                await wait_all_tasks_blocked()
                mock_clock.jump(6)

            nursery.start_soon(pass_time)
            await opening(path)

        assert deadline.cancelled_caught
        assert open_descriptors() == before


async def test_a_route_that_leads_back_here_is_refused_before_anything_was_said(directory):
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(directory / "own"))
        own.listen()
        before = open_descriptors()

        with pytest.raises(OpenFailed, match="leads back to this proxy") as failed:
            await opening(directory / "own")

        assert str(directory / "own") in failed.value.failure.message
        assert open_descriptors() == before
        accepted, _ = own.accept()
        with accepted:
            assert accepted.recv(100) == b""


async def test_a_link_that_leads_back_here_is_refused_as_well(directory):
    os.symlink(directory / "own", directory / "virtqemud-sock")
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(directory / "own"))
        own.listen()

        with pytest.raises(OpenFailed, match="leads back to this proxy"):
            await opening(directory / "virtqemud-sock")


def test_a_socket_that_lets_us_not_in_says_who_asked_and_whom_it_lets_in(tmp_path):
    path = tmp_path / "virtqemud-sock"
    path.touch(mode=0o600)
    to = Destination(name="qemu:///system", daemon="virtqemud", path=str(path), unit=None)
    refusal = backend._unreachable(to, PermissionError(errno.EACCES, "Permission denied"))
    assert refusal.message == (
        f"Failed to connect socket to '{path}': Permission denied (asked by proxyd as uid"
        f" {os.geteuid()}, the socket has mode 0600, uid {os.geteuid()}, gid {os.getegid()})"
    )
