"""Daemons that come and go, reset, stand still, and answer late or in pieces; clients likewise.

Afterwards proxyd has the descriptors and threads that it had before, and nobody beside noticed.
"""

import errno
import os
import signal
import socket
import time
from contextlib import ExitStack, contextmanager

import pytest

from proxyd.wire.failure import Failure
from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.daemon import short_directory
from tests.bed.frozen import freeze, sockets_of, wait_until_still
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.fakes.moody_daemon import ECHOES, RESETS, MoodyDaemon
from tests.relay.frames import noise
from tests.system.rpc import RpcClient, opened, reset, rpc_client

pytestmark = pytest.mark.system

URI = "test:///default"
FLAPS = 5
IN_A_ROW = 10
RESETS_OF_EACH_SIDE = 40
LATE_S = 2
PATIENCE_S = 2  # for a daemon that stands still
PRIMES = (7, 31, 251, 4093, 65537)


@pytest.fixture
def daemon():
    with short_directory() as directory, MoodyDaemon(directory / "sock") as moody:
        yield moody


@pytest.fixture
def front(make_proxyd, daemon):
    """A proxyd before the moody daemon, by UNIX and by TCP."""
    return make_proxyd(
        {
            "proxyd_routes": [f"test={daemon.path}"],
            "listen_tcp": 1,
            "auth_tcp": "none",
            "listen_addr": "127.0.0.1",
            "tcp_port": "0",
            "listen_tls": 0,
        },
        backend_dir=os.path.dirname(daemon.path),
    )


@contextmanager
def unharmed(front):
    """Whatever happens in the block: a session beside it goes on, and nothing is left of it."""
    with opened(front.sock) as beside:
        assert echoes(beside, b"before")
        sockets, threads = wait_until_still(front), front.threads()
        yield beside
        assert echoes(beside, b"afterwards")
        wait_until(lambda: sockets_of(front) == sockets, 20, f"{sockets} descriptors are left")
        wait_until(lambda: front.threads() <= threads, 20, f"{threads} threads are left")
    assert "Traceback" not in front.log_text()


def echoes(client, payload):
    """Whether a call comes back, whole and in its place."""
    answer = client.call(ECHOES, payload)
    return answer.header.serial == client.serial and answer.payload == payload


def dialled(front, transport):
    """A connected socket, by UNIX or TCP."""
    if transport == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(front.sock))
        return sock
    host, _, port = front.tcp_address().rpartition(":")
    sock = socket.create_connection((host, int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


@contextmanager
def opened_by(front, transport):
    client = RpcClient(dialled(front, transport))
    try:
        assert client.open(URI).header.status == Status.OK
        yield client
    finally:
        client.close()


def refusal(front):
    """Why nothing can be opened at present."""
    with rpc_client(front.sock) as client:
        answer = client.open(URI)
        assert answer.header.status == Status.ERROR
        return Failure.unpack(answer.payload)


def test_a_daemon_that_flaps_is_served_whenever_it_is_there(front, daemon):
    with unharmed(front):
        for _ in range(FLAPS):
            daemon.fall()
            assert refusal(front).int1 == errno.ENOENT
            daemon.accepts = False
            daemon.rise()
            assert "the connection ended while it was opened" in refusal(front).message
            daemon.accepts = True
            for _ in range(IN_A_ROW):
                with opened(front.sock) as client:
                    assert echoes(client, b"at once")


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_forty_resets_from_each_side_disturb_nobody_and_leave_nothing(front, transport):
    with unharmed(front) as beside:
        for number in range(RESETS_OF_EACH_SIDE):
            with opened_by(front, transport) as client:
                client.send(client.frame(RESETS, bytes(100)))
                assert client.ended()
            with opened_by(front, transport) as client:
                # Half a frame in front of it and an answer unread behind it, each every other time.
                wire = client.frame(ECHOES, noise(100_000, number))
                client.send(wire if number % 2 else wire[: len(wire) // 2])
                if number % 4 == 1:
                    client.sock.recv(1)
                reset(client.sock)
            assert echoes(beside, noise(1000, number))


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_who_ends_its_half_gets_the_answer_that_comes_two_seconds_later(front, daemon, transport):
    payload = noise(200_000)
    with unharmed(front), opened_by(front, transport) as client:
        daemon.late_s = LATE_S
        began = time.monotonic()
        client.send(client.frame(ECHOES, b"short") + client.frame(ECHOES, payload))
        client.sock.shutdown(socket.SHUT_WR)

        answers = [client.receive().payload for _ in range(2)]

        assert answers == [b"short", payload]
        assert time.monotonic() - began >= LATE_S
        assert client.ended()
        daemon.late_s = 0


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_bytes_in_pieces_of_one_or_a_prime_number_arrive_both_ways(front, daemon, transport):
    with unharmed(front), opened_by(front, transport) as client:
        for chunk in (1, *PRIMES):
            daemon.chunk = chunk
            for size in (0, 1, 1000, min(2_000 * chunk, 1_000_000)):
                payload = noise(size, chunk)
                wire = client.frame(ECHOES, payload)
                for at in range(0, len(wire), chunk):
                    client.send(wire[at : at + chunk])
                assert client.receive().payload == payload


def test_a_daemon_that_is_stopped_holds_up_its_own_clients_alone(
    make_libvirtd, make_proxyd, daemon
):
    stopped = make_libvirtd()
    front = make_proxyd(
        {
            "proxyd_routes": [f"test={daemon.path}", f"qemu={stopped.sock}"],
            "proxyd_handshake_timeout": PATIENCE_S,
        },
        backend_dir=stopped.run_dir,
    )
    uri = unix_uri("qemu:///system", front.sock)
    virsh(uri, "list").succeeded()
    with unharmed(front) as beside, ExitStack() as stack:
        client = stack.enter_context(opened(front.sock, "qemu:///system"))
        freeze(stopped)
        try:
            client.send(client.frame(Remote.CONNECT_GET_LIB_VERSION))

            assert all(echoes(beside, noise(1000, number)) for number in range(100))
            late = virsh(uri, "list")
            assert all(echoes(beside, noise(1000, number)) for number in range(100))
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
        answer = client.receive()

        assert late.status == 1
        assert (
            f"did not answer within {PATIENCE_S} s: {os.strerror(errno.ETIMEDOUT)}" in late.stderr
        )
        assert (answer.header.serial, answer.header.status) == (client.serial, Status.OK)
        assert client.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
        virsh(uri, "list").succeeded()
