"""proxyd as a service of a real systemd, in a machine of its own for each test."""

import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxyd.daemon.activation import Service
from tests.bed.daemon import conf_text, short_directory
from tests.bed.machine import (
    CHECKOUT,
    HOST_CHECKOUT,
    PYTHON,
    Machine,
    in_unit,
    start_libvirtd,
)
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
from proxyd.daemon.activation import recognise, take_passed
from proxyd.daemon.notify import Notifier, feed_watchdog

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
RUN_PROXYD = f"""#!/bin/sh
PYTHONPATH={CHECKOUT} exec {PYTHON} -m proxyd "$@"
"""
SETTINGS = {
    "auth_unix_rw": "none",
    "auth_unix_ro": "none",
    "log_level": 2,
    "proxyd_routes": ["test=/run/libvirt/virtqemud-sock"],
}
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
def proxyd(machine):
    """proxyd and its units, and real daemons behind it; nothing is enabled or started."""
    start_libvirtd(machine, "virtqemud")
    machine.write("/usr/sbin/proxyd", RUN_PROXYD, 0o755)
    machine.write("/etc/libvirt/virtproxyd.conf", conf_text(SETTINGS))
    for each in (HOST_CHECKOUT / "units").glob("virtproxyd*.*"):
        if each.suffix in {".service", ".socket"}:
            machine.write(f"/usr/lib/systemd/system/{each.name}", each.read_text())
    machine.systemctl("daemon-reload")
    return machine


def configure_service(machine, unit, directives):
    """A drop-in, as an administrator would write one."""
    machine.write(f"/etc/systemd/system/{unit}.d/test.conf", directives)
    machine.systemctl("daemon-reload")


def virsh(machine, *arguments):
    uri = unix_uri("test:///default", Path(ADDRESSES[Service.FULL]), mode="legacy")
    return machine.run("virsh", "-c", uri, *arguments)


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


ENABLE = ("enable", "--now", "virtproxyd.socket", "virtproxyd-ro.socket", "virtproxyd-admin.socket")
SERVICE = "virtproxyd.service"
AT_ONCE = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nEnvironment=VIRTPROXYD_ARGS='--timeout 1'\n"


def test_the_first_virsh_starts_the_service(proxyd):
    proxyd.systemctl(*ENABLE)
    assert proxyd.show(SERVICE, "ActiveState") == "inactive"
    assert virsh(proxyd, "list", "--name").succeeded().split() == ["test"]
    assert proxyd.show(SERVICE, "ActiveState") == "active"


def test_fifty_clients_across_idle_exits_all_succeed(proxyd):
    configure_service(proxyd, SERVICE, AT_ONCE)
    proxyd.systemctl(*ENABLE)
    exits = 0
    for number in range(50):
        assert virsh(proxyd, "list", "--name").succeeded().split() == ["test"]
        if number % 9 == 8:
            wait_for_state(proxyd, "inactive")
            exits += 1
    assert exits == 5
    assert sum("exiting" in line for line in proxyd.journal(SERVICE)) >= 5


def test_a_reload_is_told_and_the_same_process_goes_on(proxyd):
    proxyd.systemctl(*ENABLE)
    virsh(proxyd, "uri").succeeded()
    first = proxyd.show(SERVICE, "MainPID")
    proxyd.systemctl("reload", SERVICE)
    wait_until(
        lambda: any("configuration reloaded" in line for line in proxyd.journal(SERVICE)),
        DEADLINE_S,
        "proxyd has reloaded",
    )
    wait_for_state(proxyd, "active")
    assert proxyd.show(SERVICE, "MainPID") == first


def test_a_proxyd_that_stands_still_is_killed_and_started_again(proxyd):
    configure_service(proxyd, SERVICE, "[Service]\nWatchdogSec=1\n")
    proxyd.systemctl(*ENABLE)
    virsh(proxyd, "uri").succeeded()
    proxyd.systemctl("kill", "--signal=STOP", SERVICE)
    wait_until(lambda: proxyd.show(SERVICE, "NRestarts") == "1", DEADLINE_S, "it was started again")
    assert virsh(proxyd, "list", "--name").succeeded().split() == ["test"]


def test_a_stop_leaves_the_socket_and_a_stopped_socket_no_file(proxyd):
    proxyd.systemctl(*ENABLE)
    virsh(proxyd, "uri").succeeded()
    path = proxyd.root / ADDRESSES[Service.FULL].removeprefix("/")
    proxyd.systemctl("stop", SERVICE)
    assert proxyd.show(SERVICE, "Result") == "success"
    assert path.is_socket()
    proxyd.systemctl("stop", *ENABLE[2:])
    assert not path.exists()


def test_the_status_tells_who_is_there(proxyd):
    proxyd.systemctl(*ENABLE)
    uri = unix_uri("test:///default", Path(ADDRESSES[Service.FULL]), mode="legacy")
    with proxyd.held("virsh", "-c", uri, "event", "--all", "--loop"):
        said = "1 session, 0 being opened, backends: virtqemud 1"
        wait_until(
            lambda: proxyd.show(SERVICE, "StatusText") == said, DEADLINE_S, "the status says so"
        )
