"""Upgrade after upgrade under load: no client of any kind notices more than a moment."""

import json
import time

import pytest

from tests.bed.daemon import short_directory
from tests.bed.libvirtd import Libvirtd
from tests.bed.open_domain import domain
from tests.bed.pki import Pki
from tests.bed.sasl import SERVICE, with_tickets
from tests.bed.traffic import Traffic
from tests.bed.upgrading import descriptors_of, rss_kib, upgrading
from tests.bed.virsh import unix_uri, virsh
from tests.bed.volumes import pool
from tests.bed.waiting import wait_until
from tests.system.conftest import BEHIND_QEMU

__all__ = ["domain", "pool"]

pytestmark = pytest.mark.system

SLOWEST_MS = 1000
LONGEST_VISIT_MS = 3000  # a handshake and four calls, amid all the others
MIB = 1 << 20
GROWTH_KIB = 8192
SETTLES_S = 30


@pytest.fixture(scope="module")
def qemu_backend():
    """One that asks its clients all the time whether they live."""
    config = {"keepalive_interval": 1, "keepalive_count": 5}
    with short_directory() as directory, Libvirtd(directory, config=config) as backend:
        yield backend


@pytest.fixture
def front(make_proxyd, qemu_backend, kdc, tmp_path):
    pki = Pki(tmp_path / "pki")
    with short_directory() as directory:
        qemu_backend.serve_as(directory, *BEHIND_QEMU)
        made = make_proxyd(
            {
                "proxyd_routes": [f"test={qemu_backend.sock}"],
                "listen_tls": 1,
                "listen_tcp": 1,
                "listen_addr": "127.0.0.1",
                "tls_port": "0",
                "tcp_port": "0",
                "proxyd_keytab": str(kdc.keytab(SERVICE)),
                **pki.settings(pki.server()),
            },
            backend_dir=directory,
            environment=kdc.environment,
            service=True,
        )
        with upgrading(made) as front:
            front.pki = pki
            yield front


@pytest.fixture(scope="module")
def volumes(qemu_backend, pool):
    """The pool, with a volume for each who writes."""
    uri = unix_uri("qemu:///system", qemu_backend.sock)
    virsh(
        uri, "; ".join(f"vol-create-as bulk up{at}.img {4 * MIB}" for at in range(1, 20, 2))
    ).succeeded()
    return pool


def all_kinds(traffic, front, kdc, pool, share):
    """So many of what the whole is."""
    sock, tickets = str(front.proxyd.sock), kdc.tickets("joe")
    few = max(2, 20 // share)
    tls = {"address": front.proxyd.tls_address(), "pkipath": str(front.pki.client())}
    traffic.start("pingpong", sock=sock, sessions=200 // share)
    traffic.start("events", sock=sock, sessions=few)
    traffic.start(
        "bulk",
        sock=sock,
        sessions=few,
        pool=str(pool),
        size=4 * MIB,
        bytes_a_second=MIB,
    )
    traffic.start(
        "gssapi",
        with_tickets(kdc, tickets),
        address=front.proxyd.tcp_address(),
        tickets=str(tickets),
        sessions=few,
    )
    traffic.start("tls", sessions=few, **tls)
    traffic.start("newcomers", sock=sock, sessions=4, by_tls=2, pause_s=0.02, **tls)
    traffic.start(
        "descriptors",
        uri=unix_uri("qemu:///system", front.proxyd.sock),
        domain="carrier",
        running=share == 1,
        sessions=4,
    )


@pytest.mark.parametrize(
    ("upgrades", "share"),
    [pytest.param(5, 4, id="few"), pytest.param(20, 1, id="many", marks=pytest.mark.long)],
)
def test_nobody_notices(upgrades, share, front, qemu_backend, kdc, volumes, domain, capsys):
    if share == 1:
        virsh(unix_uri("qemu:///system", qemu_backend.sock), f"start {domain}").succeeded()
    virsh(unix_uri("qemu:///system", front.proxyd.sock), "version").succeeded()
    before, held = wait_until_still(front.pid), rss_kib(front.pid)
    most, rows = 0, []
    with Traffic() as traffic:
        all_kinds(traffic, front, kdc, volumes, share)
        traffic.opened()
        under_load = rss_kib(front.pid)
        for _ in range(upgrades):
            began = time.monotonic()
            done = front.upgrade()
            rows.append((done["seconds"], time.monotonic() - began, done["moved"], done["staying"]))
            most = max(most, len(front.processes))
            # Who came by TLS for a moment leaves the process that it came to; who stays stays with
            # the first one.
            for pid in front.pids[1:-1]:
                front.gone(pid)
        loaded = rss_kib(front.pid)
        accounts = traffic.stop()
    for pid in front.pids[:-1]:
        front.gone(pid)
    after, rss = settled(front.pid, before), rss_kib(front.pid)
    with capsys.disabled():
        print(f"\n{upgrades} upgrades: seconds, with the command, moved, staying: {rows}")
        print(f"processes at most {most}; descriptors {before} then {after}")
        print(f"KiB: {held} alone, {under_load} loaded; last process {loaded}, left {rss}")
        for account in accounts.values():
            print(json.dumps(account))
    for kind, account in accounts.items():
        assert not account["faults"], kind
        assert account["calls"] > upgrades, kind
        assert account["slowest_ms"] < SLOWEST_MS, kind
    assert accounts["newcomers"]["longest_ms"] < LONGEST_VISIT_MS
    assert accounts["events"]["events"] > 0
    assert most <= 3
    assert after <= before
    assert rss - under_load < GROWTH_KIB
    assert all(row[2] for row in rows)


def wait_until_still(pid):
    seen = []

    def unchanged():
        seen.append(descriptors_of(pid))
        return len(seen) >= 10 and len(set(seen[-10:])) == 1

    wait_until(unchanged, SETTLES_S, "no session ends any more")
    return seen[-1]


def settled(pid, most):
    """Descriptors when the last sessions have ended."""
    wait_until(lambda: descriptors_of(pid) <= most, SETTLES_S, f"at most {most} are left")
    return descriptors_of(pid)
