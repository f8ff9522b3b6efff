"""`systemctl restart`: sessions that can go on live on, in the process that is started next."""

import json
import os
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from proxyd.endpoint.ancillary import refuse_descriptors
from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.daemon import short_directory
from tests.bed.installed import LEGACY, LOCAL, UNITS, install_proxyd, reset, shell
from tests.bed.kdc import Kdc
from tests.bed.machine import Machine, start_libvirtd
from tests.bed.pki import Pki
from tests.bed.sasl import SERVICE as PRINCIPAL
from tests.bed.service import SERVICE, configure, install_certificates
from tests.bed.tls import enter_network
from tests.bed.waiting import wait_until
from tests.system.rpc import opened

pytestmark = pytest.mark.system

DEADLINE_S = 30
SOCK = "run/libvirt/libvirt-sock"
RESTARTS = 3
PAIRS = 40
SIZE = 128 << 20
PIECE, PACE_S = 1 << 18, 0.02  # until there were restarts enough
POOL = "/opt/pool"
TLS = "qemu+tls://localhost/system?pkipath=/root/client"
EVENTS = ["event", "--all", "--loop"]


@pytest.fixture(scope="module")
def booted():
    with short_directory() as directory, Machine(directory) as booted:
        start_libvirtd(booted, "virtqemud", "virtstoraged")
        install_proxyd(booted)
        configure(booted, SERVICE, "[Unit]\nStartLimitIntervalSec=0\n")
        yield booted


@pytest.fixture
def machine(booted):
    shell(booted, f"systemctl enable --now {LOCAL}")
    yield booted
    assert not [line for line in booted.journal(SERVICE) if "timed out" in line]
    reset(booted, *UNITS)
    configure(booted, SERVICE, "[Unit]\nStartLimitIntervalSec=0\n")


def virsh(machine, *arguments, uri=LEGACY):
    return machine.run("virsh", "--quiet", "-c", uri, *arguments)


def restart(machine):
    """To another process."""
    before = machine.show(SERVICE, "MainPID")
    machine.systemctl("restart", SERVICE)
    assert machine.show(SERVICE, "MainPID") not in {before, "0"}


def clients(machine):
    return json.loads(machine.run("proxyd", "clients", "--json").succeeded())


def libvirts(client):
    reply = client.call(Remote.CONNECT_GET_LIB_VERSION)
    assert reply is not None, "the connection has ended"
    assert reply.header.status == Status.OK
    return reply.payload


@contextmanager
def in_ping_pong(client):
    """Calls all the time; lists of how many, of what went wrong, and of the longest time."""
    over, calls, wrong, longest_s = threading.Event(), [0], [], [0.0]

    def play():
        first = libvirts(client)
        while not over.is_set():
            began = time.monotonic()
            try:
                if libvirts(client) != first:
                    wrong.append("another answer")
            except (OSError, AssertionError) as error:
                wrong.append(error)
                return
            calls[0] += 1
            longest_s[0] = max(longest_s[0], time.monotonic() - began)

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield calls, wrong, longest_s
    finally:
        over.set()
        thread.join()


def test_sessions_that_call_all_the_time_see_nothing(machine):
    with ExitStack() as stack:
        players = [
            stack.enter_context(
                in_ping_pong(stack.enter_context(opened(machine.root / SOCK, "qemu:///system")))
            )
            for _ in range(PAIRS)
        ]
        numbers = {each["id"] for each in clients(machine)}
        for _ in range(RESTARTS):
            restart(machine)
            counts = [calls[0] for calls, _, _ in players]
            wait_until(
                lambda counts=counts: all(
                    calls[0] > count + 5
                    for (calls, _, _), count in zip(players, counts, strict=True)
                ),
                DEADLINE_S,
                "all of them go on",
            )
        assert {each["id"] for each in clients(machine)} == numbers
        assert [wrong for _, wrong, _ in players] == [[]] * PAIRS
    print(f"the longest call took {max(longest[0] for _, _, longest in players):.3f} s")
    wait_until(lambda: clients(machine) == [], DEADLINE_S, "all of them are gone")
    assert machine.show(SERVICE, "NFileDescriptorStore") == "0"
    assert machine.show(SERVICE, "NRestarts") == "0"


def test_what_is_idle_and_readonly_goes_on_too(machine):
    with opened(machine.root / f"{SOCK}-ro", "qemu:///system") as client:
        (before,) = clients(machine)
        restart(machine)
        libvirts(client)
        (after,) = clients(machine)
    assert after["calls"] == before["calls"] + 1
    assert after["connected_at"] == pytest.approx(before["connected_at"], abs=0.01)
    same = ("id", "listener", "uri", "backend", "readonly", "state")
    assert {key: after.get(key) for key in same} == {key: before.get(key) for key in same}


def test_virsh_hears_events_over_restarts(machine):
    with machine.held("virsh", "--quiet", "-c", LEGACY, *EVENTS) as events:
        wait_until(lambda: len(clients(machine)) == 1, DEADLINE_S, "it is connected")
        define(machine, "before")
        assert "before" in line_with(events, "Defined")
        for number in range(RESTARTS):
            restart(machine)
            define(machine, f"after-{number}")
            assert f"after-{number}" in line_with(events, "Defined")
        assert events.poll() is None


def define(machine, name):
    machine.write(
        f"/root/{name}.xml",
        f"<domain type='qemu'><name>{name}</name><memory>1024</memory>"
        "<os><type arch='x86_64'>hvm</type></os></domain>",
    )
    virsh(machine, "define", f"/root/{name}.xml").succeeded()


def line_with(process, word):
    while line := process.stdout.readline():
        if word in line:
            return line
    raise AssertionError(f"virsh has ended without a line that says {word}")


@pytest.fixture
def volume(machine):
    """An empty one, in a pool of its own."""
    shell(machine, f"mkdir -p {POOL}; mkfifo /root/fifo")
    virsh(machine, "pool-create-as", "pool", "dir", "--target", POOL).succeeded()
    virsh(machine, "vol-create-as", "pool", "volume", str(SIZE)).succeeded()
    yield machine.root / POOL[1:] / "volume"
    virsh(machine, "pool-destroy", "pool").succeeded()
    shell(machine, f"rm -rf {POOL} /root/fifo")


def test_an_upload_in_the_midst_of_restarts_is_whole(machine, volume):
    content = os.urandom(SIZE)
    arguments = ["vol-upload", "volume", "/root/fifo", "--pool", "pool"]
    with machine.held("virsh", "--quiet", "-c", LEGACY, *arguments) as process:
        with (machine.root / "root/fifo").open("wb") as fifo, restarting(machine) as over:
            for at in range(0, SIZE, PIECE):
                fifo.write(content[at : at + PIECE])
                over.wait(PACE_S)
        assert process.wait(DEADLINE_S) == 0
    assert volume.read_bytes() == content


def test_a_download_in_the_midst_of_restarts_is_whole(machine, volume):
    content = os.urandom(SIZE)
    volume.write_bytes(content)
    arguments = ["vol-download", "volume", "/root/fifo", "--pool", "pool"]
    received = []
    with machine.held("virsh", "--quiet", "-c", LEGACY, *arguments) as process:
        with (machine.root / "root/fifo").open("rb") as fifo, restarting(machine) as over:
            while piece := fifo.read(PIECE):
                received.append(piece)
                over.wait(PACE_S)
        assert process.wait(DEADLINE_S) == 0
    assert b"".join(received) == content


@contextmanager
def restarting(machine):
    """Restarts while the block goes on, which takes its time until what it gets is set."""
    over, done = threading.Event(), []

    def play():
        try:
            for _ in range(RESTARTS):
                restart(machine)
                done.append(not left.is_set())
        finally:
            over.set()

    left = threading.Event()
    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield over
        left.set()
    finally:
        thread.join()
    assert done == [True] * RESTARTS


def test_who_cannot_move_ends_in_order_and_the_others_go_on(machine, tmp_path):
    install_certificates(machine, Pki(tmp_path / "pki"))
    machine.systemctl("stop", SERVICE)
    machine.systemctl("start", "virtproxyd-tls.socket")
    with (
        opened(machine.root / SOCK, "qemu:///system") as client,
        machine.held("virsh", "-c", TLS, *EVENTS),
    ):
        wait_until(lambda: len(clients(machine)) == 2, DEADLINE_S, "both are connected")
        restart(machine)
        libvirts(client)
        assert len(clients(machine)) == 1


@pytest.fixture
def kdc(machine):
    """A KDC on the machine's loopback, which its /etc/krb5.conf names."""
    with short_directory() as directory, ExitStack() as stack:
        kdc = Kdc(directory)

        def start():
            enter_network(machine.pid)
            stack.enter_context(kdc)

        with ThreadPoolExecutor(1) as other_thread:  # this one stays in our network
            other_thread.submit(start).result()
        usual = kdc.variant(default_rcache_name="dfl:", default_ccache_name="FILE:/root/tickets")
        machine.write("/etc/krb5.conf", usual.read_text())
        yield kdc


def test_a_session_with_kerberos_goes_on(machine, kdc):
    kdc.add("joe", PRINCIPAL)
    for path, principal in (("/etc/libvirt/krb5.tab", PRINCIPAL), ("/root/joe.tab", "joe")):
        (machine.root / path[1:]).write_bytes(kdc.keytab(principal).read_bytes())
    shell(machine, "kinit -k -t /root/joe.tab joe")
    machine.systemctl("stop", SERVICE)
    machine.systemctl("start", "virtproxyd-tcp.socket")
    uri = "qemu+tcp://localhost/system"
    with machine.held("virsh", "--quiet", "-c", uri, *EVENTS) as events:
        wait_until(lambda: len(clients(machine)) == 1, DEADLINE_S, "it is connected")
        (before,) = clients(machine)
        for number in range(RESTARTS):
            restart(machine)
            define(machine, f"encrypted-{number}")
            assert f"encrypted-{number}" in line_with(events, "Defined")
        (after,) = clients(machine)
        assert after["id"] == before["id"]


def test_a_process_that_dies_behind_an_upgrade_is_started_again(machine, tmp_path):
    """Its parent is the one before, which serves who could not move: systemd sees nothing."""
    install_certificates(machine, Pki(tmp_path / "pki"))
    machine.systemctl("stop", SERVICE)
    machine.systemctl("start", "virtproxyd-tls.socket")
    with machine.held("virsh", "-c", TLS, *EVENTS):
        wait_until(lambda: len(clients(machine)) == 1, DEADLINE_S, "it is connected")
        machine.run("proxyd", "upgrade").succeeded()
        dies = machine.show(SERVICE, "MainPID")
        machine.run("kill", "-KILL", dies).succeeded()
        wait_until(
            lambda: machine.show(SERVICE, "MainPID") not in {dies, "0"},
            DEADLINE_S / 2,  # well before the watchdog would see it
            "another one is started",
        )
        assert virsh(machine, "uri").succeeded().startswith("qemu")


def test_a_stop_ends_all_of_them(machine):
    with opened(machine.root / SOCK, "qemu:///system") as client:
        machine.systemctl("stop", SERVICE)
        assert client.ended()


def test_where_systemd_keeps_nothing_it_says_what_to_do(machine):
    configure(machine, SERVICE, "[Service]\nFileDescriptorStoreMax=0\n")
    with opened(machine.root / SOCK, "qemu:///system") as client:
        restart(machine)
        assert client.ended()
    (line,) = [each for each in machine.journal(SERVICE) if "systemd keeps no sessions" in each]
    assert "FileDescriptorStoreMax= of the unit be 16" in line


def test_a_stranger_keeps_his_session_too(machine):
    """Where nobody can do harm by what he sends: on kernels that refuse descriptors."""
    virsh(machine, "uri").succeeded()  # whoever makes systemd start it came before it could refuse
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with machine.held(*nobody, "virsh", "--readonly", "--quiet", "-c", LEGACY, *EVENTS) as events:
        wait_until(lambda: len(clients(machine)) == 1, DEADLINE_S, "it is connected")
        (before,) = clients(machine)
        restart(machine)
        define(machine, "strangers")
        if refuses_descriptors() or systemds_version(machine) >= 257:
            assert "strangers" in line_with(events, "Defined")
            assert [each["id"] for each in clients(machine)] == [before["id"]]
        else:
            assert clients(machine) == []


def systemds_version(machine):
    return int(re.search(r"\d+", machine.systemctl("--version"))[0])


def refuses_descriptors():
    with socket.socket(socket.AF_UNIX) as sock:
        return refuse_descriptors(sock)
