"""The bare relay: nothing is lost where somebody reads slowly, and it ends with those beside it."""

import os
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress

import pytest

from loadtest.client import Opening
from loadtest.connecting import connect
from loadtest.limit import build
from loadtest.limit.bare import bare_relays
from loadtest.targets import parse_target
from tests.bed.waiting import wait_until

DEADLINE_S = 20
LARGE = os.urandom(1 << 20) * 4
OPENING = Opening("test:///default", readonly=False, wait_s=DEADLINE_S)


@pytest.fixture(params=[False, True], ids=["unix", "tls"])
def tls(request):
    return request.param


@contextmanager
def listening(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(DEADLINE_S)
        yield listener


@pytest.fixture
def relayed(socket_paths, tls):
    """`meet()` connects through a relay: the client's end, and the daemon's."""
    path = next(socket_paths)
    direct = parse_target(f"direct=unix:{path}")
    with listening(path) as listener, bare_relays(direct, OPENING, {tls}) as found:
        target, opening = found[tls]
        met = []

        def meet():
            # The relay reaches the daemon before it lets a client in: a backlog takes that.
            client = connect(target, DEADLINE_S, opening.credentials)
            daemon, _ = listener.accept()
            daemon.settimeout(DEADLINE_S)
            met.extend([client, daemon])
            return client, daemon

        meet.target = target
        meet.pid = target.groups[0].pids[0]
        meet.listener = listener
        yield meet
        for each in met:
            each.close()


def received(end, count):
    scratch, whole = bytearray(200_000), bytearray()
    while len(whole) < count and (got := end.recv_into(scratch)):
        whole += scratch[:got]
    return bytes(whole)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_call_and_its_reply_pass(relayed):
    client, daemon = relayed()
    for said in (b"call", b"another"):
        client.sendall(said)
        assert received(daemon, len(said)) == said
        daemon.sendall(said[::-1])
        assert received(client, len(said)) == said[::-1]


def test_who_reads_late_gets_all_of_it_both_ways_at_once(relayed):
    client, daemon = relayed()
    threads = [threading.Thread(target=end.sendall, args=(LARGE,)) for end in (client, daemon)]
    for each in threads:
        each.start()
    # Both are stuck in the relay's buffers now, or soon; then one is read after the other.
    assert received(daemon, len(LARGE)) == LARGE
    assert received(client, len(LARGE)) == LARGE
    for each in threads:
        each.join(DEADLINE_S)


def test_when_the_client_goes_the_daemon_is_told_and_nothing_is_left(relayed):
    before = descriptors(relayed.pid)
    client, daemon = relayed()
    client.sendall(b"last words")
    client.close()
    assert received(daemon, 100) == b"last words"
    daemon.close()
    wait_until(lambda: descriptors(relayed.pid) == before, DEADLINE_S, "the relay closed both")


def test_when_the_daemon_goes_the_client_gets_what_came_before_and_the_end(relayed):
    before = descriptors(relayed.pid)
    client, daemon = relayed()
    daemon.sendall(b"last words")
    daemon.close()
    assert received(client, 100) == b"last words"
    client.close()
    wait_until(lambda: descriptors(relayed.pid) == before, DEADLINE_S, "the relay closed both")


def test_who_dies_with_bytes_on_the_way_is_let_go(relayed):
    before = descriptors(relayed.pid)
    client, daemon = relayed()
    daemon.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            daemon.send(LARGE)
    client.close()  # with all of that unread
    daemon.settimeout(DEADLINE_S)
    with suppress(ConnectionError):
        assert received(daemon, 1) == b""
    daemon.close()
    wait_until(lambda: descriptors(relayed.pid) == before, DEADLINE_S, "the relay closed both")


def test_another_session_goes_on_when_one_ends(relayed):
    (first, _), (second, daemon) = relayed(), relayed()
    first.close()
    second.sendall(b"still here")
    assert received(daemon, 10) == b"still here"


def test_it_ends_when_whoever_started_it_does(socket_paths):
    direct = parse_target(f"direct=unix:{next(socket_paths)}")
    with bare_relays(direct, OPENING, {False, True}) as found:
        pids = [target.groups[0].pids[0] for target, _ in found.values()]
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_without_a_daemon_the_client_is_hung_up_on(socket_paths):
    direct = parse_target(f"direct=unix:{next(socket_paths)}")
    with bare_relays(direct, OPENING, {False}) as found:
        target, opening = found[False]
        client = connect(target, DEADLINE_S, opening.credentials)
        with suppress(ConnectionResetError):
            assert received(client, 1) == b""
        client.close()


def test_through_tls_nobody_comes_in_who_has_not_the_runs_own_certificate(socket_paths):
    path = next(socket_paths)
    direct = parse_target(f"direct=unix:{path}")
    with listening(path), bare_relays(direct, OPENING, {True}) as found:
        address = found[True][0].address
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        came_in = b""
        with (
            socket.create_connection((address.host, address.port), DEADLINE_S) as sock,
            suppress(ssl.SSLError, ConnectionError),
            context.wrap_socket(sock) as stranger,
        ):
            came_in = stranger.recv(1)  # TLS 1.3 says it behind the handshake
        assert came_in == b""


def test_a_relay_that_does_not_start_says_why_in_one_line(tmp_path):
    program = build.built(tmp_path, tls=False)
    done = subprocess.run(
        [program, "/nowhere/sock", "/daemon"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "/nowhere/sock: No such file or directory\n"
