"""Whole sessions: a client on a real socket, a real relay, and a daemon that plays a script."""

import datetime as dt
import errno
import logging
import os
import socket
import subprocess
import tempfile
from contextlib import contextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.config.listeners import Door
from proxyd.config.priority import parse_priority
from proxyd.config.transports import Transport
from proxyd.endpoint import ancillary
from proxyd.endpoint.couriers import COURIERS
from proxyd.negotiation.server import (
    CALL_LIMIT,
    FRAME_LIMIT,
    UNCALLED_LIMIT,
    ServerNegotiation,
)
from proxyd.pki.certificates import load_credentials
from proxyd.pki.files import CertificateFiles
from proxyd.session.backend import open_backend
from proxyd.session.tls_greeting import TlsGreeting, handshake_threads
from proxyd.tls.server_context import make_server_tls
from proxyd.wire import failure, remote
from proxyd.wire.failure import Domain, ErrorCode, Failure
from proxyd.wire.programs import AuthMethod, Keepalive, Remote
from proxyd.wire.remote import OpenArguments
from tests.bed.pairs import tcp_pair
from tests.bed.pki import Pki
from tests.relay.frames import call_with_descriptors, send_descriptor
from tests.session.desk import (
    DEADLINE_S,
    SOMEBODY,
    TIMEOUT_S,
    URI,
    Caller,
    Desk,
    KnownNames,
    eventually,
    failure_of,
    lines,
    no_more_descriptors,
    open_descriptors,
    succeeded,
    tracebacks,
)
from tests.session.scripted_daemon import HANG_UP, SILENCE

READ_ONLY = Door(name="libvirt-sock-ro", method=AuthMethod.NONE, readonly=True, own_uid_only=False)
POLKIT = Door(name="libvirt-sock", method=AuthMethod.POLKIT, readonly=False, own_uid_only=False)
POLKIT_RO = Door(
    name="libvirt-sock-ro", method=AuthMethod.POLKIT, readonly=True, own_uid_only=False
)
OWN = Door(name="libvirt-sock", method=AuthMethod.NONE, readonly=False, own_uid_only=True)
BY_TLS = Door(
    name="tls 127.0.0.1:16514",
    transport=Transport.TLS,
    method=AuthMethod.NONE,
    readonly=False,
    own_uid_only=False,
)

NOBODY = 65534
WITHOUT_NAME = 54321

WARNING = logging.WARNING
OPENED = [Remote.AUTH_LIST, Remote.CONNECT_OPEN, Remote.CONNECT_SET_IDENTITY]


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    pki = Pki(tmp_path_factory.mktemp("pki"))
    server = pki.server()
    files = CertificateFiles(
        ca=str(pki.ca_file), crl=None, pairs=((str(server.cert_file), str(server.key_file)),)
    )
    return make_server_tls(
        load_credentials(files, now=dt.datetime.now(dt.UTC)),
        parse_priority(None),
        enforce=True,
        allowed=None,
    )


def identity_of(line):
    """What the daemon was told about the client."""
    told = remote.unpack_identity(line.arguments(Remote.CONNECT_SET_IDENTITY))
    return {param.field: param.value for param in told}


# What a session is for


async def test_a_client_gets_the_answers_of_the_daemon(desk):
    caller = await desk.opened()

    answer = await caller.call(Remote.CONNECT_GET_LIB_VERSION)

    assert (answer.header.serial, answer.payload) == (1, bytes.fromhex("0000000000acd840"))
    await desk.is_as_before()


async def test_the_daemon_is_told_who_the_client_is(desk, daemon):
    await desk.opened(uid=NOBODY, gid=NOBODY)

    told = identity_of(daemon.line)

    assert told["unix-user-id"] == told["unix-group-id"] == NOBODY
    assert (told["user-name"], told["group-name"]) == ("nobody", "nogroup")
    assert told["process-id"] == os.getpid()
    assert told["process-time"] > 0


async def test_a_client_of_the_read_only_socket_is_read_only_at_the_daemon(desk, daemon):
    caller = desk.connect(READ_ONLY)

    assert succeeded(await caller.open(flags=0))

    opened = OpenArguments.unpack(daemon.line.arguments(Remote.CONNECT_OPEN))
    assert opened == OpenArguments(URI, 1)


async def test_the_daemon_pings_only_for_a_client_that_asked_for_it(desk, daemon):
    await desk.opened()
    pinged = desk.connect()
    await pinged.call(Remote.CONNECT_SUPPORTS_FEATURE, remote.pack_int(10))
    await pinged.open()

    silent, pinging = daemon.lines
    assert silent.calls == OPENED
    assert pinging.calls == [OPENED[0], Remote.CONNECT_SUPPORTS_FEATURE, *OPENED[1:]]


async def test_an_empty_name_is_the_first_daemon_that_is_there(desk, daemon):
    os.symlink(daemon.path, f"{os.path.dirname(daemon.path)}/virtlxcd-sock")

    assert succeeded(await desk.connect().open(None))

    assert OpenArguments.unpack(daemon.line.arguments(Remote.CONNECT_OPEN)).name == "lxc:///system"


async def test_an_empty_name_without_any_daemon_is_an_error(desk):
    assert failure_of(await desk.connect().open(None)) == failure.not_open()
    await desk.is_as_before()


async def test_the_log_has_a_line_when_a_session_opens_and_one_when_it_ends(desk, daemon, log):
    caller = await desk.opened()
    await caller.call(Remote.CONNECT_GET_LIB_VERSION)
    await desk.is_empty()

    who = f"libvirt-sock, uid 0 (root) pid {os.getpid()}, test:///default at {daemon.path}"
    opened, ended = (text for text in log.messages if text.startswith("session 1 "))
    assert opened == f"session 1 opened: {who}"
    assert ended.startswith(f"session 1 ended: {who}: the client closed the connection; 0.")
    assert ended.endswith(" s, 28 bytes up, 36 bytes down, 1 calls, 0 errors")


# Nothing of the client goes to the daemon before the daemon knows whose it is


async def test_nothing_of_a_client_reaches_the_daemon_before_its_identity_was_acknowledged(
    desk, daemon
):
    acknowledged = daemon.script[Remote.CONNECT_SET_IDENTITY] = trio.Event()
    caller = desk.connect()

    caller.send(
        caller.frame(Remote.AUTH_LIST)
        + caller.opening()
        + caller.frame(Remote.CONNECT_GET_LIB_VERSION)
        + caller.frame(Remote.CONNECT_GET_LIB_VERSION)
    )

    assert (await caller.receive()).header.serial == 0
    await eventually(lambda: daemon.lines and daemon.line.calls == OPENED, "the open sequence")
    await wait_all_tasks_blocked(0.05)
    assert daemon.line.calls == OPENED
    assert daemon.line.receiver.cut_off == b""
    assert [each.serial for each in daemon.line.frames] == [0, 1, 2]
    acknowledged.set()
    assert [(await caller.receive()).header.serial for _ in range(3)] == [1, 2, 3]
    assert [each.serial for each in daemon.line.frames] == [0, 1, 2, 2, 3]
    await desk.is_as_before()


async def test_pipelined_calls_arrive_behind_the_hand_over(desk, daemon):
    caller = desk.connect()
    another = call_with_descriptors(0, serial=7)

    caller.send(caller.frame(Remote.AUTH_LIST) + caller.opening() + another)
    caller.send(caller.frame(Remote.CONNECT_GET_LIB_VERSION))

    assert [(await caller.receive()).header.serial for _ in range(4)] == [0, 1, 7, 2]
    *opening, first, second = daemon.line.frames
    assert [each.header.procedure for each in opening] == OPENED
    assert first.wire == another
    assert second.serial == 2
    await desk.is_as_before()


async def test_who_has_been_told_that_it_is_open_may_pass_descriptors(desk, daemon):
    caller = await desk.opened()

    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        files = (os.fstat(first.fileno()).st_ino, os.fstat(second.fileno()).st_ino)
        carrying = call_with_descriptors(2, serial=7)
        caller.send(carrying)
        send_descriptor(caller.sock, first.fileno())
        send_descriptor(caller.sock, second.fileno())
        caller.send(caller.frame(Remote.CONNECT_GET_LIB_VERSION))

    assert (await caller.receive()).header.serial == 7
    await caller.receive()
    with_files, _ = daemon.line.frames[-2:]
    assert (with_files.wire, with_files.files) == (carrying, files)
    await desk.is_as_before()


async def test_a_client_that_says_everything_and_stops_writing_is_answered(desk, daemon):
    caller = desk.connect()
    caller.send(caller.opening() + caller.frame(Remote.CONNECT_GET_LIB_VERSION))
    caller.sock.shutdown(socket.SHUT_WR)

    assert succeeded(await caller.receive())
    await eventually(lambda: daemon.line.closed, "the daemon sees the end")

    assert daemon.line.calls == [*OPENED, Remote.CONNECT_GET_LIB_VERSION]
    await desk.is_as_before()


# What cannot be opened


@pytest.mark.parametrize(
    ("uri", "code", "domain"),
    [
        ("esx:///", ErrorCode.CONFIG_UNSUPPORTED, Domain.NONE),
        ("qemu+ssh://elsewhere/system", ErrorCode.INVALID_ARG, Domain.REMOTE),
        ("nothing", ErrorCode.NO_CONNECT, Domain.NONE),
        ("qemu:///system", ErrorCode.SYSTEM_ERROR, Domain.RPC),
    ],
)
async def test_after_a_refusal_the_client_may_try_another_name(desk, log, uri, code, domain):
    caller = desk.connect()

    refused = await caller.open(uri)

    said = failure_of(refused)
    assert (said.code, said.domain, refused.header.serial) == (code, domain, 0)
    assert len(lines(log, "cannot open", logging.WARNING)) == 1
    assert succeeded(await caller.open())
    assert succeeded(await caller.call(Remote.CONNECT_GET_LIB_VERSION))
    await desk.is_as_before()


async def test_a_refusal_of_the_daemon_reaches_the_client_as_the_daemon_said_it(desk, daemon):
    said = failure.driver_not_served("not today")
    daemon.script[Remote.CONNECT_OPEN] = said
    caller = desk.connect()

    assert failure_of(await caller.open()) == said

    daemon.script.clear()
    assert succeeded(await caller.open())
    assert [line.closed for line in daemon.lines] == [True, False]
    await desk.is_as_before()


async def test_a_client_whose_identity_is_refused_gets_no_session(desk, daemon):
    said = failure.uri_not_allowed("who are you?")
    daemon.script[Remote.CONNECT_SET_IDENTITY] = said
    caller = desk.connect()
    caller.send(caller.opening() + caller.frame(Remote.CONNECT_GET_LIB_VERSION))

    assert failure_of(await caller.receive()) == said

    assert failure_of(await caller.receive()) == failure.not_open()
    await eventually(lambda: daemon.line.closed, "the connection to the daemon is closed")
    assert daemon.line.calls == OPENED
    await desk.is_as_before()


async def test_a_daemon_that_hangs_up_is_an_error_for_the_client(desk, daemon):
    daemon.script[Remote.CONNECT_OPEN] = HANG_UP

    said = failure_of(await desk.connect().open())

    assert said.code == ErrorCode.INTERNAL_ERROR
    assert f"'{daemon.path}': the connection ended while it was opened" in said.message
    await desk.is_as_before()


async def test_a_route_that_leads_back_here_is_refused(desk, directory):
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(directory / "own"))
        own.listen()
        desk.descriptors = open_descriptors()
        desk.routes["test"] = str(directory / "own")

        said = failure_of(await desk.connect().open())

        assert "leads back to this proxy" in said.message
        await desk.is_as_before()


async def test_a_long_name_does_not_fill_the_log(desk, log):
    caller = desk.connect()

    said = failure_of(await caller.open("x" * 16_000))

    assert said.code == ErrorCode.INTERNAL_ERROR
    assert max(len(text) for text in log.messages) < 5000
    await desk.is_as_before()


# Out of time


async def test_a_silent_client_is_cut_off_at_the_deadline(slow_desk, mock_clock, log):
    caller = slow_desk.connect()
    await wait_all_tasks_blocked()
    mock_clock.jump(TIMEOUT_S - 0.1)
    await wait_all_tasks_blocked()
    assert slow_desk.roster.clients

    mock_clock.jump(0.2)

    assert await caller.ended()
    assert len(lines(log, "no connection was opened within 30 s", logging.WARNING)) == 1
    await slow_desk.is_as_before()


async def test_bytes_that_trickle_in_do_not_move_the_deadline(slow_desk, mock_clock):
    caller = slow_desk.connect()
    for byte in caller.opening()[: TIMEOUT_S - 1]:
        caller.send(bytes([byte]))
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
    assert slow_desk.roster.clients

    mock_clock.jump(1)

    assert await caller.ended()
    await slow_desk.is_as_before()


async def test_calls_that_are_answered_do_not_move_the_deadline(slow_desk, mock_clock):
    caller = slow_desk.connect()
    for _ in range(TIMEOUT_S - 1):
        assert await caller.call(Remote.AUTH_LIST)
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
    assert await caller.call(Remote.AUTH_LIST)

    mock_clock.jump(2)

    assert await caller.ended()
    await slow_desk.is_as_before()


@pytest.mark.parametrize("stalls_at", OPENED)
async def test_a_daemon_that_does_not_answer_is_a_timeout_for_the_client(
    slow_desk, daemon, mock_clock, log, stalls_at
):
    daemon.script[stalls_at] = SILENCE
    caller = slow_desk.connect()
    caller.send(caller.opening())
    await wait_all_tasks_blocked()

    mock_clock.jump(TIMEOUT_S + 1)

    said = failure_of(await caller.receive())
    assert (said.code, said.int1) == (ErrorCode.SYSTEM_ERROR, errno.ETIMEDOUT)
    assert said.message.endswith(f"did not answer within 30 s: {os.strerror(errno.ETIMEDOUT)}")
    assert await caller.ended()
    assert len(lines(log, "did not answer within 30 s", logging.WARNING)) == 1
    await slow_desk.is_as_before()


async def test_a_backlog_that_stays_full_is_a_timeout_for_the_client(
    slow_desk, mock_clock, directory, other_process
):
    listener = other_process.listen(directory / "full", backlog=0)
    with listener, socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(directory / "full"))
        slow_desk.descriptors = open_descriptors()
        slow_desk.routes["test"] = str(directory / "full")
        caller = slow_desk.connect()
        caller.send(caller.opening())
        await wait_all_tasks_blocked()

        mock_clock.jump(TIMEOUT_S + 1)

        assert failure_of(await caller.receive()).int1 == errno.ETIMEDOUT
        await slow_desk.is_as_before()


async def test_a_client_that_reads_nothing_is_cut_off_at_the_deadline(slow_desk, mock_clock):
    near, far = socket.socketpair()
    with near:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        slow_desk.descriptors = open_descriptors() - 1  # `far` is the session's to close
        slow_desk.serve(far)
        for serial in range(90):
            near.send(remote.call(Remote.CONNECT_GET_LIB_VERSION, serial).pack())
        await wait_all_tasks_blocked()

        mock_clock.jump(TIMEOUT_S + 1)

        await slow_desk.is_as_before()


async def test_an_open_session_has_no_deadline(slow_desk, mock_clock):
    caller = await slow_desk.opened()

    mock_clock.jump(100 * TIMEOUT_S)
    await wait_all_tasks_blocked()

    assert succeeded(await caller.call(Remote.CONNECT_GET_LIB_VERSION))


async def test_the_deadline_also_counts_on_the_systems_clock(desk, daemon):
    desk.timeout_s = 0.1
    daemon.script[Remote.CONNECT_OPEN] = SILENCE

    assert failure_of(await desk.connect().open()).int1 == errno.ETIMEDOUT

    desk.timeout_s = TIMEOUT_S
    await desk.is_as_before()


async def test_a_name_service_that_hangs_ends_at_the_deadline(slow_desk, mock_clock, log):
    class Hanging:
        async def names_of(self, uid, gid):
            await trio.sleep_forever()

    slow_desk.names = Hanging()
    caller = slow_desk.connect()
    await wait_all_tasks_blocked()

    mock_clock.jump(TIMEOUT_S + 1)

    assert await caller.ended()
    assert len(lines(log, f"uid 0 (no name) pid {os.getpid()}: looking up who")) == 1
    await slow_desk.is_empty()


# Who may come in


async def test_another_uid_is_sent_away_from_a_users_own_daemon(desk, log):
    caller = desk.connect(OWN, uid=NOBODY, gid=NOBODY)

    assert await caller.ended()

    (line,) = lines(log, "this daemon serves only uid 0", logging.WARNING)
    assert "uid 65534 (nobody)" in line
    await desk.is_as_before()


async def test_the_own_uid_is_served_by_a_users_own_daemon(desk):
    assert succeeded(await desk.connect(OWN).open())


async def test_one_user_has_no_more_clients_than_a_user_may_have(desk, log):
    desk.admission.most_each = 2
    first, second = await desk.opened(uid=NOBODY, gid=NOBODY), desk.connect(uid=NOBODY, gid=NOBODY)
    assert succeeded(await second.open())
    third = desk.connect(uid=NOBODY, gid=NOBODY)

    said = failure_of(await third.call(Remote.AUTH_LIST))

    assert said.message.startswith("Too many active clients: 2 clients of uid 65534 are connected")
    assert "proxyd_max_clients_per_peer" in said.message
    assert await third.ended()
    (line,) = lines(log, "Too many active clients", logging.WARNING)
    assert "uid 65534: turned away" in line
    assert succeeded(await desk.connect().open())  # another user has places of his own

    first.close()
    await eventually(lambda: len(desk.roster.clients) == 2, "the first one's place is free")
    assert succeeded(await desk.connect(uid=NOBODY, gid=NOBODY).open())
    desk.admission.most_each = 0
    await desk.is_as_before()


async def test_root_is_let_in_by_polkit_once_it_has_asked(desk):
    caller = desk.connect(POLKIT)
    before = failure_of(await caller.open())
    assert (desk.admission.clients, desk.admission.anonymous) == (1, 0)

    listed = await caller.call(Remote.AUTH_LIST)

    assert before == failure.authentication_required()
    assert remote.unpack_auth_methods(listed.payload) == [AuthMethod.NONE]
    assert succeeded(await caller.open())
    await desk.is_as_before()


@pytest.mark.parametrize(("door", "action"), [(POLKIT, "manage"), (POLKIT_RO, "monitor")])
async def test_whom_polkit_refuses_is_told_so_and_stays_anonymous(desk, log, door, action):
    caller = desk.connect(door, uid=NOBODY, gid=NOBODY)
    listed = await caller.call(Remote.AUTH_LIST)
    assert remote.unpack_auth_methods(listed.payload) == [AuthMethod.POLKIT]

    said = failure_of(await caller.call(Remote.AUTH_POLKIT))

    assert said == desk.polkit.denial
    ((subject, asked),) = desk.polkit.asked
    assert (subject.uid, subject.pid, asked) == (NOBODY, os.getpid(), f"org.libvirt.unix.{action}")
    assert "uid 65534 (nobody)" in lines(log, f"org.libvirt.unix.{action} after", WARNING)[0]
    assert failure_of(await caller.open()) == failure.authentication_required()
    assert desk.admission.anonymous == 1
    await desk.is_as_before()


async def test_whom_polkit_lets_in_is_served(desk):
    caller = desk.connect(POLKIT, uid=NOBODY, gid=NOBODY)
    desk.polkit.denial = None
    said = await caller.call(Remote.AUTH_POLKIT)
    assert remote.unpack_int(said.payload) == 1
    assert succeeded(await caller.open())
    assert desk.admission.anonymous == 0
    await desk.is_as_before()


async def test_a_prompt_does_not_use_up_the_time_of_the_session(slow_desk, mock_clock):
    slow_desk.polkit.event, slow_desk.polkit.denial = trio.Event(), None
    caller = slow_desk.connect(POLKIT, uid=NOBODY, gid=NOBODY)
    caller.send(caller.frame(Remote.AUTH_POLKIT))
    await wait_all_tasks_blocked()
    mock_clock.jump(TIMEOUT_S + 1)
    await wait_all_tasks_blocked()
    slow_desk.polkit.event.set()
    assert remote.unpack_int((await caller.receive()).payload) == 1
    assert succeeded(await caller.open())
    await slow_desk.is_as_before()


async def test_a_client_that_goes_takes_its_question_back(slow_desk, mock_clock, log):
    slow_desk.polkit.event = trio.Event()
    caller = slow_desk.connect(POLKIT, uid=NOBODY, gid=NOBODY)
    caller.send(caller.frame(Remote.AUTH_POLKIT))
    await wait_all_tasks_blocked()
    caller.close()
    await wait_all_tasks_blocked()
    mock_clock.jump(1)
    await slow_desk.is_empty()
    assert slow_desk.polkit.taken_back == 1
    assert lines(log, "the client is gone: closed", logging.INFO)


async def test_who_asks_again_and_again_has_no_more_time_for_it(slow_desk, mock_clock, log):
    caller = slow_desk.connect(POLKIT, uid=NOBODY, gid=NOBODY)
    for _ in range(7):
        slow_desk.polkit.event = trio.Event()
        caller.send(caller.frame(Remote.AUTH_POLKIT))
        await wait_all_tasks_blocked()
        mock_clock.jump(20)
        slow_desk.polkit.event.set()
        await wait_all_tasks_blocked()
    # Two prompts of 20 s each were more than the 30 s that everybody has.
    await slow_desk.is_empty()
    assert lines(log, "no connection was opened within 30 s", WARNING)


async def test_no_number_of_refusals_lets_anybody_in(desk, daemon):
    caller = desk.connect(POLKIT, uid=NOBODY, gid=NOBODY)

    for _ in range(CALL_LIMIT // 4):
        for procedure in (Remote.AUTH_POLKIT, Remote.AUTH_LIST, Remote.AUTH_SASL_START):
            await caller.call(procedure)
        assert failure_of(await caller.open()) == failure.authentication_required()

    assert daemon.lines == []
    await desk.is_as_before()


CLIENT_WITHOUT_NAME = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
for call in sys.stdin.read().split():
    client.send(bytes.fromhex(call))
    sys.stdout.write(client.recv(65536)[28:].hex() + "\\n")
"""


@contextmanager
def process_without_a_name(directory):
    """A client of a uid that nobody has, and our end of its connection."""
    directory.chmod(0o755)
    path = directory / "door"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        listener.settimeout(DEADLINE_S)
        with subprocess.Popen(
            ["/usr/bin/python3", "-c", CLIENT_WITHOUT_NAME, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=WITHOUT_NAME,
            group=0,
            extra_groups=[],
        ) as process:
            yield process, listener.accept()[0]


def in_hex(frames):
    return " ".join(frame.pack().hex() for frame in frames)


async def test_a_process_of_a_uid_without_a_name_is_told_so(desk, daemon, directory):
    opening = remote.call(Remote.CONNECT_OPEN, 1, OpenArguments(URI, 0).pack())
    calls = [remote.call(Remote.AUTH_LIST, 0), opening, remote.call(Remote.CONNECT_CLOSE, 2)]
    with process_without_a_name(directory) as (process, sock):
        desk.serve(sock)

        told, _ = await trio.to_thread.run_sync(process.communicate, in_hex(calls))

    said = [Failure.unpack(bytes.fromhex(line)).message for line in told.split()]
    assert said == ["no user has the uid 54321: add one, or let another user connect"] * 3
    assert daemon.lines == []
    await desk.is_as_before()


async def test_every_call_of_a_nameless_uid_is_refused(desk, daemon):
    caller = desk.connect(uid=WITHOUT_NAME)

    said = [
        failure_of(await caller.call(Remote.AUTH_LIST)),
        failure_of(await caller.call(Remote.CONNECT_SUPPORTS_FEATURE, remote.pack_int(10))),
        failure_of(await caller.open()),
    ]

    assert {each.message for each in said} == {
        "no user has the uid 54321: add one, or let another user connect"
    }
    assert {each.int1 for each in said} == {errno.ENOENT}
    assert daemon.lines == []
    await desk.is_as_before()


async def test_a_process_that_has_ended_is_refused(desk, daemon):
    near, far = socket_of_a_process_that_has_ended()
    with near:
        desk.serve(far)
        desk.descriptors += 1  # `near`
        near.send(remote.call(Remote.CONNECT_OPEN, 0, OpenArguments(URI, 0).pack()).pack())
        reply = await trio.to_thread.run_sync(near.recv, 65536)

        assert b"has ended, so nobody can say who it was" in reply
    desk.descriptors -= 1
    assert daemon.lines == []
    await desk.is_as_before()


def socket_of_a_process_that_has_ended():
    """A pair whose far end was made by a child, passed here, and outlives it."""
    near, far = socket.socketpair()
    child = os.fork()
    if not child:
        mine, theirs = socket.socketpair()
        socket.send_fds(far, [b"."], [mine.fileno(), theirs.fileno()])
        os._exit(0)
    _, descriptors, _, _ = socket.recv_fds(near, 1, 2)
    os.waitpid(child, 0)
    near.close()
    far.close()
    return (socket.socket(fileno=each) for each in descriptors)


# Abuse


def half(caller):
    return caller.opening()[:40]


@pytest.mark.parametrize(
    "sends",
    [
        lambda caller: b"",
        lambda caller: b"\0\0",
        half,
        lambda caller: caller.frame(Remote.AUTH_LIST),
        lambda caller: caller.frame(Remote.AUTH_LIST) + half(caller),
        lambda caller: caller.opening(),
        lambda caller: caller.opening() + caller.frame(Remote.CONNECT_GET_LIB_VERSION),
        lambda caller: caller.opening() + half(caller),
        lambda caller: caller.opening("nonsense"),
        lambda caller: caller.frame(Remote.CONNECT_CLOSE),
    ],
)
async def test_a_client_that_hangs_up_leaves_nothing(desk, log, sends):
    caller = desk.connect()
    caller.send(sends(caller))

    caller.close()

    await desk.is_as_before()
    assert not tracebacks(log)
    assert len(lines(log, "1 ended")) == 1


@pytest.mark.parametrize("stalls_at", OPENED)
async def test_a_client_that_hangs_up_while_the_daemon_stalls_leaves_nothing(
    slow_desk, daemon, mock_clock, log, stalls_at
):
    daemon.script[stalls_at] = SILENCE
    caller = slow_desk.connect()
    caller.send(caller.opening())
    await wait_all_tasks_blocked()

    caller.close()
    await wait_all_tasks_blocked()
    mock_clock.jump(1)  # it is noticed long before the deadline

    await slow_desk.is_as_before()
    assert not tracebacks(log)
    assert lines(log, "the client is gone: closed", logging.INFO)


async def test_a_client_with_more_to_say_is_not_taken_for_gone(slow_desk, daemon, mock_clock):
    daemon.script[Remote.CONNECT_OPEN] = SILENCE
    caller = slow_desk.connect()
    caller.send(caller.opening() + caller.frame(Remote.CONNECT_GET_LIB_VERSION))
    for _ in range(5):
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
    await wait_all_tasks_blocked()
    assert slow_desk.roster.clients


@pytest.mark.parametrize(
    "wire",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x1b" + bytes(24),
        (FRAME_LIMIT + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_frame_ends_the_connection(desk, log, wire):
    caller = desk.connect()
    caller.send(wire)

    assert await caller.ended()

    assert len(lines(log, "protocol error", logging.WARNING)) == 1
    await desk.is_as_before()
    assert not tracebacks(log)


async def test_calls_without_end_end_the_connection(desk, log):
    caller = desk.connect()
    for _ in range(CALL_LIMIT):
        assert await caller.call(Remote.AUTH_LIST)

    assert await caller.call(Remote.AUTH_LIST) is None

    assert len(lines(log, "more than 100 calls and nothing opened", logging.WARNING)) == 1
    await desk.is_as_before()


async def test_opens_without_end_end_the_connection(desk):
    caller = desk.connect()
    for _ in range(CALL_LIMIT):
        failure_of(await caller.open("nonsense"))

    assert await caller.open("nonsense") is None

    await desk.is_as_before()


async def test_frames_that_are_no_calls_end_the_connection_soon(desk, log):
    caller = desk.connect()
    caller.send(remote.keepalive(Keepalive.PING).pack() * (UNCALLED_LIMIT + 1))
    pongs = [await caller.receive() for _ in range(UNCALLED_LIMIT)]

    assert all(remote.is_keepalive(pong.header) for pong in pongs)
    assert await caller.ended()

    assert len(lines(log, "more than 20 frames that are no calls", logging.WARNING)) == 1
    await desk.is_as_before()


async def test_descriptors_before_the_connection_is_open_are_refused_to_their_sender(desk, null):
    caller = desk.connect()
    wire = caller.frame(Remote.AUTH_LIST)
    await wait_all_tasks_blocked()
    with pytest.raises(PermissionError):
        send_descriptor(caller.sock, null, wire[:1])
    caller.send(wire)
    assert succeeded(await caller.receive())
    await desk.is_as_before()


@pytest.mark.parametrize("many", [1, 253])
async def test_where_the_kernel_cannot_refuse_them_they_end_the_client(
    desk, null, log, monkeypatch, many
):
    monkeypatch.setattr(ancillary, "SO_PASSRIGHTS", 9999)
    caller = desk.connect()
    wire = caller.frame(Remote.AUTH_LIST)
    socket.send_fds(caller.sock, [wire[:1]], [null] * many)

    assert await caller.ended()
    assert "it sent descriptors that nobody asked for" in log.text
    assert open_descriptors() == desk.descriptors + 1  # the caller's own socket

    await desk.is_as_before()


async def test_a_call_that_announces_descriptors_before_the_connection_is_open_ends_it(desk):
    caller = desk.connect()
    caller.send(call_with_descriptors(1, procedure=Remote.AUTH_LIST))

    assert await caller.ended()

    await desk.is_as_before()


async def test_closing_before_anything_was_opened_is_answered(desk):
    caller = desk.connect()

    assert succeeded(await caller.call(Remote.CONNECT_CLOSE))

    assert await caller.ended()
    await desk.is_as_before()


async def test_many_clients_at_once_leave_nothing(desk):
    callers = [await desk.opened() for _ in range(20)] + [desk.connect() for _ in range(20)]
    for caller in callers[::3]:
        caller.send(caller.frame(Remote.CONNECT_GET_LIB_VERSION))
    assert len(desk.roster.clients) == 40

    await desk.is_as_before()


async def test_a_client_that_comes_when_descriptors_run_out_is_not_called_dead(desk, log):
    caller = desk.connect()
    with no_more_descriptors():
        said = failure_of(await caller.open())

    assert "has ended" not in said.message
    assert "no user has" not in said.message
    assert "proxyd itself is short, not the client: Too many open files" in said.message
    assert "LimitNOFILE=" in said.message
    await desk.is_as_before()
    assert not tracebacks(log)


async def test_a_daemon_that_cannot_be_connected_for_want_of_descriptors_is_an_error_reply(
    desk, log
):
    caller = desk.connect()
    assert succeeded(await caller.call(Remote.AUTH_LIST))
    with no_more_descriptors():
        said = failure_of(await caller.open())

    assert (said.code, said.int1) == (ErrorCode.SYSTEM_ERROR, errno.EMFILE)
    await desk.is_as_before()
    assert not tracebacks(log)


async def test_an_error_of_our_own_ends_one_session_and_is_told_with_a_traceback(desk, log):
    class Broken(dict):
        def get(self, *_):
            raise RuntimeError("a mistake of ours")

    living = await desk.opened()
    desk.routes = Broken()

    assert await desk.connect().open() is None

    (told,) = (record for record in log.records if record.exc_info)
    assert told.getMessage() == "client 2: an error of proxyd's own"
    assert len(lines(log, "client 2 ended before a session was open", logging.ERROR)) == 1
    assert succeeded(await living.call(Remote.CONNECT_GET_LIB_VERSION))
    desk.routes = {}
    await desk.is_as_before()


@pytest.mark.parametrize("stalls_at", [None, *OPENED])
async def test_a_stop_ends_sessions_that_are_not_open_yet(daemon, log, stalls_at):
    async with trio.open_nursery() as outer:
        desk = Desk(daemon, KnownNames(), outer)
        outer.start_soon(desk.relay.run)
        async with trio.open_nursery() as inner:
            desk.nursery = inner
            caller = desk.connect()
            if stalls_at is not None:
                daemon.script[stalls_at] = SILENCE
                caller.send(caller.opening())
            await wait_all_tasks_blocked(0.01)
            inner.cancel_scope.cancel()

        assert await caller.ended()
        assert len(lines(log, "proxyd stopped", logging.INFO)) == 1
        await desk.is_empty()
        outer.cancel_scope.cancel()


# Closed by an administrator


CLOSED = "closed by an administrator"


async def is_closed(desk, caller, log):
    """What every close has to bring about, wherever the session was; once more is harmless."""
    (client,) = desk.roster.clients.values()
    client.close()
    client.close()

    assert await caller.ended()
    await eventually(lambda: not desk.roster.clients, "the roster is empty")
    assert (desk.admission.clients, desk.admission.anonymous) == (0, 0)
    client.close()
    assert len(lines(log, f": {CLOSED}; ", logging.INFO)) == 1
    assert not tracebacks(log)
    await desk.is_as_before()


async def test_an_open_session_is_closed_on_both_sides(desk, daemon, log):
    caller = await desk.opened()
    line = daemon.line

    await is_closed(desk, caller, log)

    assert line.closed
    assert line.receiver.ended or line.receiver.reset
    assert lines(log, f"session 1 ended: libvirt-sock, uid 0 (root) pid {os.getpid()}, {URI}")


async def test_a_session_in_the_middle_of_a_frame_is_closed(desk, daemon, log):
    caller = await desk.opened()
    caller.send(half(caller))

    await is_closed(desk, caller, log)


async def test_a_session_whose_daemon_takes_nothing_is_closed(desk, directory, daemon, log):
    """The daemon has not been reading for long: bytes of the client wait in the relay."""
    resting = trio.Event()
    daemon.script[Remote.CONNECT_GET_LIB_VERSION] = resting
    caller = await desk.opened()
    caller.send(caller.frame(Remote.CONNECT_GET_LIB_VERSION))
    await eventually(lambda: len(daemon.line.calls) == 4, "the call that is not answered")
    frame = caller.frame(Remote.CONNECT_GET_LIB_VERSION, bytes(4000))
    (client,) = desk.roster.clients.values()

    def is_full():
        try:
            caller.sock.send(frame)
        except BlockingIOError:
            return client.pair.up.stalled
        return False

    await eventually(is_full, "nothing fits in any more")
    client.close()
    await eventually(lambda: not desk.roster.clients, "the roster is empty")
    resting.set()

    assert await caller.ended()
    await desk.is_as_before()
    assert len(lines(log, f": {CLOSED}; ", logging.INFO)) == 1


@pytest.mark.parametrize("said", [b"", b"\0\0"])
async def test_a_client_that_has_said_nothing_whole_is_closed(desk, log, said):
    caller = desk.connect(POLKIT, uid=NOBODY, gid=NOBODY)
    caller.send(said)
    await wait_all_tasks_blocked(0.01)
    assert desk.admission.anonymous == 1

    await is_closed(desk, caller, log)

    assert lines(log, "client 1 ended before a session was open")


async def test_a_client_is_closed_before_its_session_has_made_its_first_step(desk, log):
    await is_closed(desk, desk.connect(), log)


async def test_a_client_that_waits_for_polkit_is_closed_and_the_question_is_taken_back(desk, log):
    desk.polkit.event = trio.Event()
    caller = desk.connect(POLKIT, uid=NOBODY, gid=NOBODY)
    caller.send(caller.frame(Remote.AUTH_LIST) + caller.frame(Remote.AUTH_POLKIT))
    assert await caller.receive()
    await eventually(lambda: desk.polkit.asked, "polkit is asked")

    await is_closed(desk, caller, log)

    assert desk.polkit.taken_back == 1


@pytest.mark.parametrize("stalls_at", OPENED)
async def test_a_client_whose_daemon_stalls_is_closed_on_both_sides(desk, daemon, log, stalls_at):
    daemon.script[stalls_at] = SILENCE
    caller = desk.connect()
    caller.send(caller.opening())
    await eventually(lambda: daemon.lines and stalls_at in daemon.line.calls, "it stalls")
    line = daemon.line

    await is_closed(desk, caller, log)

    assert line.closed


async def test_a_client_whose_name_is_looked_up_is_closed(desk, log):
    class Hanging:
        async def names_of(self, uid, gid):
            await trio.sleep_forever()

    usual, desk.names = desk.names, Hanging()
    caller = desk.connect()
    await wait_all_tasks_blocked(0.01)
    desk.names = usual

    await is_closed(desk, caller, log)


@pytest.mark.parametrize("moment", ["open_backend", "adopt"])
async def test_a_close_in_the_very_turn_of_the_hand_over_is_not_lost(
    desk, daemon, log, monkeypatch, moment
):
    """The session's task has been woken already, and runs on without a checkpoint."""

    async def opens_then(*arguments, **named):
        endpoint = await open_backend(*arguments, **named)
        desk.roster.clients[1].close()
        return endpoint

    def adopts_then(*arguments, **named):
        pair = adopt(*arguments, **named)
        desk.nursery.start_soon(close_next_turn)
        return pair

    async def close_next_turn():
        desk.roster.clients[1].close()

    adopt = desk.relay.adopt
    caller = desk.connect()
    with monkeypatch.context() as patched:
        if moment == "adopt":
            patched.setattr(desk.relay, "adopt", adopts_then)
        else:
            patched.setattr("proxyd.session.opener.open_backend", opens_then)
        caller.send(caller.opening())
        with trio.fail_after(DEADLINE_S):
            while await caller.receive() is not None:
                continue

    await eventually(lambda: not desk.roster.clients, "the roster is empty")
    assert daemon.line.closed
    assert len(lines(log, f": {CLOSED}; ", logging.INFO)) == 1
    await desk.is_as_before()


async def test_a_client_in_its_tls_handshake_is_closed(desk, log, tls):
    near, far = tcp_pair()
    caller = Caller(near)
    desk.callers.append(caller)
    greeting = TlsGreeting(far, "127.0.0.1:4711", tls, handshake_threads())
    desk.begin(greeting, BY_TLS, SOMEBODY)
    caller.send(bytes.fromhex("16030100"))  # the beginning of a ClientHello
    await wait_all_tasks_blocked(0.01)
    assert desk.admission.clients == 1

    await is_closed(desk, caller, log)

    assert lines(log, f"client 1 ended before a session was open: {BY_TLS.name}, from 127.0.0.1")


async def test_others_go_on_when_one_is_closed(desk):
    callers = [await desk.opened() for _ in range(3)]

    desk.roster.clients[2].close()

    assert await callers[1].ended()
    for caller in (callers[0], callers[2]):
        assert succeeded(await caller.call(Remote.CONNECT_GET_LIB_VERSION))
    assert list(desk.roster.clients) == [1, 3]
    await desk.is_as_before()


# Whose descriptors hang, and who breaks the protocol


async def test_whose_descriptors_hang_is_told_so_and_root_is_served(desk, monkeypatch):
    monkeypatch.setattr(COURIERS, "hangs", lambda owner: owner in {"uid 1", "uid 0"})
    told = failure_of(await desk.connect(uid=1).call(Remote.AUTH_LIST))
    assert told.code == ErrorCode.OPERATION_DENIED
    assert "uid 1 has passed cannot be closed" in told.message
    assert succeeded(await desk.connect(uid=0).call(Remote.AUTH_LIST))

    await desk.is_as_before()


async def test_who_breaks_the_protocol_waits_before_he_is_heard_again(desk):
    for _ in range(5):
        caller = desk.connect(uid=1)
        caller.send(bytes(40))  # a frame of no length
        assert await caller.ended()
    began = trio.current_time()
    assert succeeded(await desk.connect(uid=1).call(Remote.AUTH_LIST))
    assert trio.current_time() - began >= 0.2

    await desk.is_as_before()


async def test_a_client_that_takes_its_time_with_the_answer_gets_past_no_rules_of_meanwhile(
    desk, monkeypatch, log
):
    """The last moment in which rules can be applied to it where it is."""
    machines = ServerNegotiation.opened

    def opened(machine):
        desk.services.opener.rulings.applied += 1
        return machines(machine)

    monkeypatch.setattr(ServerNegotiation, "opened", opened)
    caller = desk.connect()
    await caller.open()
    assert await caller.ended()
    assert lines(log, "the rules changed while it was opened; it may come again")
    monkeypatch.undo()
    await desk.is_as_before()
