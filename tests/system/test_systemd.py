"""What a daemon and a real systemd tell each other, in a machine of its own for each test.

The daemon is a small one on proxyd's own parts, so that a test may hold it up where it wants to;
the whole of proxyd as a service is in test_systemd_install.py.
"""

import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxyd.listen.activation import Service
from tests.bed.daemon import short_directory
from tests.bed.machine import CHECKOUT, PYTHON, Machine, in_unit, start_libvirtd
from tests.bed.virsh import unix_uri
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

DEADLINE_S = 30

# A daemon that has nothing but what systemd is to see of one. It tells each client who it is, and
# does as the client says. Its argument says whether it exits as soon as nobody is connected, and
# what of its life waits until somebody opens a named pipe.
PROGRAM = """
import os, socket, sys, trio
from contextlib import ExitStack
from proxyd.config.settings import Settings
from proxyd.listen.activation import recognise, take_passed
from proxyd.process.systemd_notify import Notifier, feed_watchdog

class Daemon:
    def __init__(self, notifier, sockets):
        self.notifier, self.sockets = notifier, sockets
        self.clients = 0
        self.stuck = False
        self.idle = trio.Event()

    async def answers(self):
        if self.stuck:
            await trio.sleep_forever()

    async def run(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed_watchdog, self.notifier, self.answers)
            self.notifier.status(f"serves {len(self.sockets)} sockets")
            self.notifier.ready()
            while True:
                await self.accept_until_idle(nursery)
                if not self.clients:
                    break
            self.notifier.stopping()
            nursery.cancel_scope.cancel()

    async def accept_until_idle(self, sessions):
        async with trio.open_nursery() as accepting:
            for each in self.sockets:
                accepting.start_soon(self.accept, each, sessions)
            await self.idle.wait()
            self.idle = trio.Event()
            accepting.cancel_scope.cancel()

    async def accept(self, each, sessions):
        while True:
            await trio.lowlevel.wait_readable(each.listener)
            try:
                accepted, _ = each.listener.accept()
            except BlockingIOError:
                continue
            self.clients += 1
            sessions.start_soon(self.serve, trio.socket.from_stdlib_socket(accepted), each.service)

    async def serve(self, client, service):
        with client:
            await client.send(f"{os.getpid()} {service}".encode())
            while asked := (await client.recv(100)).decode():
                if asked == "environ":
                    await client.send(" ".join(os.environ).encode())
                self.stuck |= asked == "be stuck"
        self.clients -= 1
        if not self.clients and sys.argv[1] in {"idle", "linger"}:
            self.idle.set()

if sys.argv[1] == "wait":
    open(sys.argv[2]).close()
with ExitStack() as given_back:
    notifier = Notifier.from_environ(os.environ, pid=os.getpid())
    given_back.callback(notifier.close)
    passed = take_passed(os.environ, given_back, pid=os.getpid())
    sockets = recognise(passed, Settings(), privileged=True)
    trio.run(Daemon(notifier, sockets).run)
if sys.argv[1] == "linger":
    open(sys.argv[2]).close()
"""
UNIT = """
[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
Environment=PYTHONPATH={checkout}
ExecStart={command}
Restart=on-failure
WatchdogSec=1
"""
SOCKET = """
[Socket]
ListenStream={address}
Service=virtproxyd.service
TriggerLimitIntervalSec=0
"""
ADDRESSES = {
    Service.FULL: "/run/libvirt/libvirt-sock",
    Service.READONLY: "/run/libvirt/libvirt-sock-ro",
    Service.ADMIN: "/run/libvirt/libvirt-admin-sock",
    Service.TCP: "127.0.0.1:16509",
    Service.TLS: "127.0.0.1:16514",
}
CLIENT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30) as client:
    print(client.recv(100).decode())
"""
VISITORS = 3
CLIENTS = 15
SPREAD_S = 0.0002


@pytest.fixture
def machine():
    """Booted for each test: it takes less than a second, and no test sees what another left."""
    with short_directory() as directory, Machine(directory) as booted:
        yield booted


@pytest.fixture
def install(machine):
    """install("wait", "/run/fifo", sockets=[…]): units for the program above, sockets started."""

    def install(*arguments, sockets=(Service.FULL,)):
        command = in_unit(PYTHON, "/opt/program.py", *arguments)
        machine.write("/opt/program.py", PROGRAM)
        unit = UNIT.format(checkout=CHECKOUT, command=command)
        machine.write("/etc/systemd/system/virtproxyd.service", unit)
        for each in sockets:
            text = SOCKET.format(address=ADDRESSES[each])
            machine.write(f"/etc/systemd/system/{each}", text)
        machine.systemctl("daemon-reload")
        if sockets:
            machine.systemctl("start", *sockets)

    return install


@pytest.fixture
def connect(machine):
    """Connect to one of the local sockets; the client is closed with the test."""
    with ExitStack() as stack:

        def connect(service=Service.FULL):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(DEADLINE_S)
            client.connect(str(machine.root / ADDRESSES[service].removeprefix("/")))
            return client

        yield connect


def greeting(client):
    """The pid of who answers, and the service that it takes the socket for."""
    pid, service = client.recv(100).decode().split()
    return int(pid), service


def wait_for_state(machine, state):
    wait_until(
        lambda: machine.show("virtproxyd.service", "ActiveState") == state,
        DEADLINE_S,
        f"the service is {state}",
    )


def test_the_machine_runs_nothing_of_the_host(machine):
    assert machine.run("systemctl", "is-system-running").stdout == "running\n"
    units = machine.systemctl("list-units", "--type=service", "--state=running", "--plain", "-q")
    assert [line.split()[0] for line in units.splitlines()] == ["systemd-journald.service"]
    assert machine.run("ip", "-brief", "link").succeeded().split()[0] == "lo"


def test_the_checkout_is_there_and_cannot_be_written(machine):
    refused = machine.run("touch", str(CHECKOUT / "README.md"))
    assert "Read-only file system" in refused.stderr


def test_the_service_is_started_when_it_says_that_it_is_ready(machine, install):
    machine.run("mkfifo", "/run/go").succeeded()
    install("wait", "/run/go", sockets=())
    machine.systemctl("start", "--no-block", "virtproxyd.service")
    wait_for_state(machine, "activating")
    with (machine.root / "run/go").open("w"):  # waits until it reads
        wait_for_state(machine, "active")
    assert machine.show("virtproxyd.service", "StatusText") == "serves 0 sockets"


def test_each_local_socket_arrives_as_what_its_unit_is_called(install, connect):
    local = [each for each in Service if not each.over_network]
    install("stay", sockets=Service)
    assert [greeting(connect(each))[1] for each in local] == local


@pytest.mark.parametrize("service", [Service.TCP, Service.TLS])
def test_each_port_arrives_as_what_its_unit_is_called(machine, install, service):
    install("stay", sockets=[service])
    _, _, port = ADDRESSES[service].rpartition(":")
    answer = machine.run(str(PYTHON), "-c", CLIENT, port).succeeded()
    assert answer.split()[1] == service


def test_what_systemd_told_is_not_passed_on_to_children(install, connect):
    install("stay")
    client = connect()
    greeting(client)
    client.sendall(b"environ")
    names = set(client.recv(4096).decode().split())
    assert "PYTHONPATH" in names
    assert not {name for name in names if name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))}


def test_a_daemon_that_feeds_the_watchdog_goes_on(machine, install, connect):
    install("stay")
    pid, _ = greeting(connect())
    fed = "WatchdogTimestampMonotonic"
    first = int(machine.show("virtproxyd.service", fed))
    wait_until(  # 1 s is its interval
        lambda: int(machine.show("virtproxyd.service", fed)) - first > 3_000_000,
        DEADLINE_S,
        "the watchdog was fed for three seconds",
    )
    assert greeting(connect())[0] == pid


def test_a_daemon_whose_relay_is_stuck_is_killed_and_started_again(machine, install, connect):
    install("stay")
    client = connect()
    first, _ = greeting(client)
    client.sendall(b"be stuck")
    assert client.recv(100) == b""  # it was killed
    assert greeting(connect())[0] != first
    assert machine.show("virtproxyd.service", "NRestarts") == "1"
    journal = machine.journal("virtproxyd.service")
    assert any("Watchdog timeout" in line for line in journal)
    assert "the relay thread has not answered for 0.5 s" in journal


def test_after_an_idle_exit_the_next_client_is_met_by_a_new_daemon(machine, install, connect):
    install("idle")
    with connect() as client:
        first, _ = greeting(client)
    wait_for_state(machine, "inactive")
    assert machine.show("virtproxyd.socket", "ActiveState") == "active"
    assert greeting(connect())[0] != first


def test_who_connects_to_a_daemon_that_is_about_to_end_is_met_by_the_next(
    machine, install, connect
):
    machine.run("mkfifo", "/run/go").succeeded()
    install("linger", "/run/go")
    with connect() as client:
        first, _ = greeting(client)
    wait_for_state(machine, "deactivating")
    late = connect()
    assert machine.show("virtproxyd.service", "MainPID") == str(first)
    with (machine.root / "run/go").open("w"):  # waits until it reads
        assert greeting(late)[0] != first


def test_nobody_is_lost_who_connects_while_the_daemon_exits(install, connect):
    install("idle")
    pids = []

    def visit():
        for number in range(CLIENTS):
            # Each time a bit later into the end of a daemon that exits as soon as it is alone.
            threading.Event().wait(number * SPREAD_S)
            with connect() as client:
                pids.append(greeting(client)[0])

    visitors = [threading.Thread(target=visit) for _ in range(VISITORS)]
    for each in visitors:
        each.start()
    for each in visitors:
        each.join()
    assert len(pids) == VISITORS * CLIENTS
    assert len(set(pids)) > 5


def test_real_daemons_answer_in_the_machine(machine):
    start_libvirtd(machine, "virtqemud")
    sock = Path("/run/libvirt/virtqemud-sock")
    said = machine.run("virsh", "-c", unix_uri("test:///default", sock), "list", "--name")
    assert said.succeeded().split() == ["test"]
