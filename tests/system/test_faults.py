"""Ends that nobody planned: killed daemons, killed clients, sessions dropped at any moment."""

import os
import random
import signal
import subprocess
import threading

import pytest

from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from proxyd.wire.remote import OpenArguments
from tests.bed.command import clean_environment, run_to_end
from tests.bed.frozen import freeze, sockets_of, wait_until_still
from tests.bed.virsh import held_virsh, unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import DEADLINE_S, RpcClient, opened, rpc_client

pytestmark = pytest.mark.system

GET_TYPE = 3
SESSIONS = 500
TOGETHER = 200


@pytest.fixture
def quiet(proxyd):
    """A number of descriptors to come back to, and a normal client at the end."""
    virsh(unix_uri("test:///default", proxyd.sock), "list").succeeded()
    before = wait_until_still(proxyd)
    yield before
    virsh(unix_uri("test:///default", proxyd.sock), "list").succeeded()
    wait_until(lambda: sockets_of(proxyd) == before, 20, f"{before} descriptors are left of all")
    assert "Traceback" not in proxyd.log_text()


def test_a_daemon_killed_in_mid_call_ends_its_sessions_and_no_others(
    make_libvirtd, make_proxyd, qemu_backend
):
    doomed = make_libvirtd()
    front = make_proxyd(
        {"proxyd_routes": [f"test={qemu_backend.sock}", f"qemu={doomed.sock}"]},
        backend_dir=doomed.run_dir,
    )
    with opened(front.sock) as other, opened(front.sock, "qemu:///system") as client:
        before = front.descriptors()
        # One answer is on its way and one call will never be answered.
        client.send(client.frame(Remote.CONNECT_GET_LIB_VERSION))
        delivered = client.receive()
        freeze(doomed)
        client.send(client.frame(Remote.CONNECT_GET_LIB_VERSION))

        doomed.kill()

        assert delivered.header.status == Status.OK
        assert client.ended()
        assert other.call(GET_TYPE).header.status == Status.OK
        wait_until(
            lambda: len(front.descriptors()) == len(before) - 2, 10, "both sockets are closed"
        )


def test_what_a_daemon_answered_before_it_died_is_delivered(make_libvirtd, make_proxyd):
    doomed = make_libvirtd()
    front = make_proxyd({"proxyd_routes": [f"qemu={doomed.sock}"]}, backend_dir=doomed.run_dir)
    with opened(front.sock, "qemu:///system") as client:
        freeze(doomed)
        client.send(client.frame(Remote.CONNECT_GET_LIB_VERSION))
        wait_until(lambda: unread(doomed), 10, "the call waits in the daemon's socket")
        # proxyd sleeps while the daemon answers and dies: the answer is in a socket whose other
        # end is gone.
        freeze(front)
        try:
            os.kill(doomed.pid, signal.SIGCONT)
            wait_until(lambda: not unread(doomed), 10, "the daemon has read the call")
            wait_until(lambda: unread(front), 10, "its answer waits in proxyd's socket")
            doomed.kill()
        finally:
            os.kill(front.pid, signal.SIGCONT)

        answer = client.receive()

        assert answer.header.serial == client.serial
        assert client.ended()


def unread(daemon):
    """Whether bytes wait in a UNIX socket of a process."""
    listed = run_to_end(["ss", "-Hxp"], deadline_s=20).succeeded()
    mine = (line.split() for line in listed.splitlines() if f"pid={daemon.pid}," in line)
    return any(int(fields[2]) > 0 for fields in mine if fields[1] == "ESTAB")


def test_a_daemon_that_comes_back_is_found_at_once(make_libvirtd, make_proxyd):
    backend = make_libvirtd()
    front = make_proxyd({"proxyd_routes": [f"qemu={backend.sock}"]}, backend_dir=backend.run_dir)
    uri = unix_uri("qemu:///system", front.sock)
    virsh(uri, "uri").succeeded()
    backend.kill()
    gone = virsh(uri, "uri")
    backend.start()

    back = virsh(uri, "uri")

    assert (gone.status, back.status) == (1, 0)
    assert "Connection refused" in gone.stderr


def test_a_killed_client_leaves_nothing_behind(proxyd, quiet):
    with held_virsh(unix_uri("test:///default", proxyd.sock), "event", "--all", "--loop") as client:
        wait_until(lambda: sockets_of(proxyd) == quiet + 2, 10, "its session is open")
        client.kill()
        client.wait()

        wait_until(lambda: sockets_of(proxyd) == quiet, 10, "its session is over")


def test_a_client_killed_in_mid_bulk_leaves_nothing_behind(proxyd, quiet):
    with opened(proxyd.sock) as client:
        # Half of a long frame, so that a pipe of the relay holds some of it.
        client.send(client.frame(GET_TYPE, bytes(4_000_000))[:3_000_000])
    wait_until(lambda: sockets_of(proxyd) == quiet, 10, "its session is over")


def test_five_hundred_sessions_dropped_at_random_moments_leak_nothing(proxyd, quiet):
    chance = random.Random(20261121)
    wire = session_bytes(proxyd)
    for _ in range(SESSIONS):
        with rpc_client(proxyd.sock) as client:
            client.send(wire[: chance.randrange(len(wire) + 1)])
            for _ in range(chance.randrange(4)):
                client.sock.setblocking(False)
                try:
                    client.sock.recv(chance.choice([1, 4, 28, 4096]))
                except BlockingIOError:
                    break
    wait_until(lambda: sockets_of(proxyd) == quiet, 20, "all sessions are over")


def session_bytes(front):
    """Everything that one session would send, as one piece."""
    with rpc_client(front.sock) as client:
        opening = OpenArguments("test:///default", 0).pack()
        return (
            client.frame(Remote.AUTH_LIST)
            + client.frame(Remote.CONNECT_OPEN, opening)
            + b"".join(client.frame(GET_TYPE) for _ in range(4))
            + client.frame(GET_TYPE, bytes(100_000))
            + client.frame(Remote.CONNECT_CLOSE)
        )


def test_sessions_dropped_while_others_work_disturb_nobody(proxyd, quiet):
    stop = threading.Event()
    errors = []

    def churn():
        chance = random.Random(7)
        wire = session_bytes(proxyd)
        while not stop.is_set():
            with rpc_client(proxyd.sock) as client:
                client.send(wire[: chance.randrange(len(wire))])

    def work(client):
        for _ in range(2000):
            answer = client.call(GET_TYPE)
            if answer is None or answer.header.serial != client.serial:
                errors.append(answer)
                return

    clients = [RpcClient(proxyd.sock) for _ in range(4)]
    for client in clients:
        client.open("test:///default")
    churner = threading.Thread(target=churn)
    workers = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in [churner, *workers]:
        thread.start()
    for thread in workers:
        thread.join(DEADLINE_S * 2)
    stop.set()
    churner.join(DEADLINE_S)
    for client in clients:
        client.close()

    assert errors == []


def test_two_hundred_virsh_at_once_all_succeed(proxyd, quiet):
    command = ["virsh", "-c", unix_uri("test:///default", proxyd.sock), "domstate", "test"]
    running = [
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment(),
        )
        for _ in range(TOGETHER)
    ]
    said = [process.communicate(timeout=120)[0].strip() for process in running]

    assert [process.returncode for process in running] == [0] * TOGETHER
    assert said == ["running"] * TOGETHER


def test_an_idle_session_costs_two_descriptors(proxyd, quiet):
    sessions = [RpcClient(proxyd.sock) for _ in range(20)]
    try:
        for session in sessions:
            assert session.open("test:///default").header.status == Status.OK

        assert sockets_of(proxyd) == quiet + 2 * len(sessions)
    finally:
        for session in sessions:
            session.close()
