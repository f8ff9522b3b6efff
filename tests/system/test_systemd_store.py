"""What systemd keeps for the next start of a service, and how it says that there will be one.

The daemon is a small one on proxyd's own parts, within what the shipped unit leaves it.
"""

import re
import socket
from pathlib import Path

import pytest

from tests.bed.daemon import short_directory
from tests.bed.machine import CHECKOUT, PYTHON, Machine, in_unit
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

DEADLINE_S = 30
SHIPPED = Path(__file__).parents[2] / "units/virtproxyd.service"
SERVICE = "virtproxyd.service"
SOCK = "/run/libvirt/libvirt-sock"

# It takes one client at a time, which it asks nothing, and goes on with it over a restart: all that
# it knows of it is how many lines it has had. Told to stop, it does so when there is no more.
PROGRAM = """
import os, signal, socket, sys, trio
from contextlib import ExitStack
from proxyd.config.settings import Settings
from proxyd.listen.activation import recognise, take_passed
from proxyd.process.fdstore import NAME, Parcel, keep, taken_out
from proxyd.process.systemd_manager import restart_under_way
from proxyd.process.signals import block_signals, received_signals
from proxyd.process.systemd_notify import Notifier

async def serve(client, lines, nursery):
    with trio.CancelScope() as until:
        clients[client] = until
        try:
            while True:
                await trio.lowlevel.wait_readable(client)
                if not client.recv(100):
                    break
                lines += 1
                client.send(f"{os.getpid()} {lines}".encode())
        finally:
            counts[client] = lines
            del clients[client]
    if not until.cancelled_caught:
        client.close()

async def accept(listener, nursery):
    while True:
        await trio.lowlevel.wait_readable(listener)
        client, _ = listener.accept()
        client.setblocking(False)
        nursery.start_soon(serve, client, 0, nursery)

async def run(notifier, sockets, kept):
    async with trio.open_nursery() as nursery:
        with received_signals() as signals:
            for packet in taken_out(kept):
                for lines, fd in zip(packet.content.decode().split(), packet.descriptors):
                    client = socket.socket(fileno=fd)
                    client.setblocking(False)
                    nursery.start_soon(serve, client, int(lines), nursery)
            notifier.unstore(NAME)
            for each in sockets:
                nursery.start_soon(accept, each.listener, nursery)
            notifier.ready()
            async for _ in signals:
                break
            job = await trio.to_thread.run_sync(restart_under_way, notifier.address, os.getpid())
            notifier.stopping()
            here = list(clients)
            for until in clients.values():
                until.cancel()
            while clients:
                await trio.sleep(0)
            said = "ended"
            if job is not None:
                parcel = Parcel()
                for client in here:
                    parcel.put(str(counts[client]).encode(), [client.fileno()])
                kept = await keep(parcel, notifier)
                said = f"restarted, {'kept' if kept else 'not kept'}"
            print(f"{said}, {len(here)} clients", file=sys.stderr, flush=True)
            nursery.cancel_scope.cancel()

clients, counts = {}, {}
block_signals()
if os.path.exists("/run/fail"):
    sys.exit(1)
with ExitStack() as given_back:
    notifier = Notifier.from_environ(os.environ, pid=os.getpid())
    kept = []
    passed = take_passed(os.environ, given_back, pid=os.getpid(), kept=kept)
    sockets = recognise(passed, Settings(), privileged=True)
    trio.run(run, notifier, sockets, kept)
"""
SOCKET = f"""
[Socket]
ListenStream={SOCK}
Service={SERVICE}
TriggerLimitIntervalSec=0
"""


def unit(**different):
    """The shipped one, with another program and other values."""
    text = SHIPPED.read_text()
    for key, value in different.items():
        text = re.sub(rf"(?m)^{key}=.*$", f"{key}={value}", text)
    return text.replace("[Service]", "StartLimitIntervalSec=0\n[Service]", 1)


def install(machine, **different):
    command = in_unit(PYTHON, "/opt/program.py")
    machine.write("/opt/program.py", PROGRAM)
    text = unit(ExecStart=command, Environment=f"PYTHONPATH={CHECKOUT}", **different)
    machine.write(f"/etc/systemd/system/{SERVICE}", text)
    machine.write("/etc/systemd/system/virtproxyd.socket", SOCKET)
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "virtproxyd.socket")


@pytest.fixture(scope="module")
def booted():
    with short_directory() as directory, Machine(directory) as booted:
        yield booted


@pytest.fixture
def machine(booted):
    yield booted
    booted.run("rm", "--force", "/run/fail")
    booted.run("systemctl", "stop", SERVICE, "virtproxyd.socket")
    booted.run("systemctl", "reset-failed")


@pytest.fixture
def connect(machine):
    clients = []

    def connect():
        client = socket.socket(socket.AF_UNIX)
        clients.append(client)
        client.settimeout(DEADLINE_S)
        client.connect(str(machine.root / SOCK[1:]))
        return client

    yield connect
    for each in clients:
        each.close()


def ask(client):
    """Who serves it, and how often it has asked."""
    client.sendall(b"x")
    return [int(each) for each in client.recv(100).split()]


def kept(machine):
    return int(machine.show(SERVICE, "NFileDescriptorStore"))


def test_clients_live_on_over_restarts(machine, connect):
    install(machine)
    clients = [connect() for _ in range(300)]
    pids = {ask(each)[0] for each in clients}
    for count in range(2, 5):
        machine.systemctl("restart", SERVICE)
        answers = [ask(each) for each in clients]
        assert {times for _, times in answers} == {count}
        pids |= {pid for pid, _ in answers}
    assert len(pids) == 4
    wait_until(lambda: kept(machine) == 0, DEADLINE_S, "systemd keeps nothing")
    assert "restarted, kept, 300 clients" in machine.journal(SERVICE)


def test_who_goes_afterwards_is_seen_off(machine, connect):
    install(machine)
    client = connect()
    ask(client)
    machine.systemctl("restart", SERVICE)
    client.sendall(b"x")
    client.shutdown(socket.SHUT_WR)
    assert client.recv(100).endswith(b" 2")
    assert client.recv(100) == b""  # so nobody else has a copy


def test_nobody_is_kept_over_a_stop(machine, connect):
    install(machine)
    client = connect()
    ask(client)
    machine.systemctl("stop", SERVICE)
    assert client.recv(100) == b""
    assert "ended, 1 clients" in machine.journal(SERVICE)
    assert kept(machine) == 0


def test_a_signal_from_somebody_else_is_no_restart(machine, connect):
    install(machine)
    client = connect()
    ask(client)
    machine.systemctl("kill", SERVICE)
    assert client.recv(100) == b""


def test_a_start_that_fails_does_not_end_them(machine, connect):
    install(machine)
    client = connect()
    first, _ = ask(client)
    machine.write("/run/fail", "")
    assert machine.run("systemctl", "restart", SERVICE).status == 1
    machine.run("rm", "/run/fail")  # Restart=on-failure tries again
    second, count = ask(client)
    assert (second != first, count) == (True, 2)


def test_they_are_kept_over_a_daemon_reload_and_a_daemon_reexec(machine, connect):
    install(machine)
    client = connect()
    ask(client)
    machine.write("/run/fail", "")
    assert machine.run("systemctl", "restart", SERVICE).status == 1
    machine.systemctl("daemon-reload")
    machine.systemctl("daemon-reexec")
    machine.run("rm", "/run/fail")
    assert ask(client)[1] == 2


def test_a_unit_that_keeps_nothing_is_found_out(machine, connect):
    """As one of an older release is, which would not know what to do with it."""
    install(machine, FileDescriptorStoreMax="0")
    client = connect()
    ask(client)
    machine.systemctl("restart", SERVICE)
    assert client.recv(100) == b""
    assert "restarted, not kept, 1 clients" in machine.journal(SERVICE)
