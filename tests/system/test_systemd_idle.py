"""Clients that come at the very moment at which proxyd exits since nobody is there.

Each round leaves it alone for the second after which it exits, and then sends clients in: the first
about when it decides, the others while it ends, while it is gone, and while the next one starts.
"""

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.daemon import short_directory
from tests.bed.installed import LOCAL, install_proxyd, shell
from tests.bed.machine import Machine, start_libvirtd
from tests.bed.service import SERVICE, configure
from tests.system.rpc import opened

pytestmark = pytest.mark.system

# As long as it takes to be at it several hundred times, when asked for.
ROUNDS = int(os.environ.get("PROXYD_TEST_IDLE_ROUNDS", "12"))
CLIENTS = 12
IDLE_S = 1
SPREAD_S = 0.3  # an end and a start
EARLY_S, LATE_S = 0.02, 0.08  # around the moment at which it decides
SOCKETS = ("libvirt-sock", "libvirt-sock-ro")


@pytest.fixture
def machine():
    with short_directory() as directory, Machine(directory) as booted:
        start_libvirtd(booted, "virtqemud")
        install_proxyd(booted)
        booted.write("/etc/default/virtproxyd", f'VIRTPROXYD_ARGS="--timeout {IDLE_S}"\n')
        configure(booted, SERVICE, "[Unit]\nStartLimitIntervalSec=0\n")
        for unit in SOCKETS:
            name = unit.replace("libvirt-sock", "virtproxyd")
            configure(booted, f"{name}.socket", "[Socket]\nTriggerLimitIntervalSec=0\n")
        shell(booted, f"systemctl enable --now {LOCAL}")
        yield booted


def visit(machine, number, at):
    """One client, which opens and calls; what went wrong, if anything did."""
    threading.Event().wait(max(0, at - time.monotonic()))
    path = machine.root / "run/libvirt" / SOCKETS[number % len(SOCKETS)]
    try:
        with opened(path, "qemu:///system") as client:
            reply = client.call(Remote.CONNECT_GET_LIB_VERSION)
            if reply is None or reply.header.status != Status.OK:
                return f"client {number}: {reply}"
    except (OSError, AssertionError) as error:
        return f"client {number}: {error!r}"
    return ""


def test_nobody_is_lost_who_comes_when_it_exits(machine):
    chance = random.Random(4242)
    wrong, pids = [], set()
    with ThreadPoolExecutor(CLIENTS) as clients:
        assert visit(machine, 1, 0) == ""
        for _ in range(ROUNDS):
            first = time.monotonic() + IDLE_S + chance.uniform(-EARLY_S, LATE_S)
            times = [first, *(first + chance.uniform(0, SPREAD_S) for _ in range(CLIENTS - 1))]
            wrong += clients.map(visit, [machine] * CLIENTS, range(CLIENTS), times)
            pids.add(machine.show(SERVICE, "MainPID"))
    assert [each for each in wrong if each] == []
    print(f"{ROUNDS * CLIENTS} clients, {len(pids)} daemons")
    assert len(pids) > ROUNDS // 3
    assert machine.show(SERVICE, "NRestarts") == "0"
