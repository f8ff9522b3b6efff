"""Long streams through GSSAPI: everything arrives, nothing piles up in the proxy."""

import pytest

from tests.bed.sasl import SERVICE, tcp_uri, with_tickets
from tests.bed.side_by_side import Way
from tests.bed.virsh import virsh
from tests.bed.volumes import (
    DEADLINE_S,
    GROWTH_LIMIT_KIB,
    PART,
    SIZE,
    digest,
    pool,
    takes_no_longer,
)

__all__ = ["pool"]

pytestmark = pytest.mark.system


@pytest.fixture
def joe(kdc):
    return with_tickets(kdc, kdc.tickets("joe"))


@pytest.fixture
def front(make_proxyd, kdc):
    settings = {
        "listen_tcp": 1,
        "listen_addr": "127.0.0.1",
        "tcp_port": "0",
        "proxyd_keytab": str(kdc.keytab(SERVICE)),
    }
    return make_proxyd(settings, environment=kdc.environment)


def test_a_volume_comes_down_unchanged_and_memory_stays_flat(front, joe, pool, tmp_path):
    uri = tcp_uri("qemu:///system", front.tcp_address())
    virsh(uri, "version", environment=joe).succeeded()
    before = front.rss_kib()

    command = f"vol-download source.img {tmp_path}/got --pool bulk"
    virsh(uri, command, environment=joe, deadline_s=DEADLINE_S).succeeded()

    assert digest(tmp_path / "got") == digest(pool / "source.img")
    assert front.rss_kib() - before < GROWTH_LIMIT_KIB


def test_a_volume_goes_up_unchanged_and_memory_stays_flat(front, joe, pool):
    uri = tcp_uri("qemu:///system", front.tcp_address())
    virsh(uri, f"vol-create-as bulk by-gssapi.img {SIZE}", environment=joe).succeeded()
    before = front.rss_kib()

    command = f"vol-upload by-gssapi.img {pool}/source.img --pool bulk"
    virsh(uri, command, environment=joe, deadline_s=DEADLINE_S).succeeded()

    assert digest(pool / "by-gssapi.img") == digest(pool / "source.img")
    assert front.rss_kib() - before < GROWTH_LIMIT_KIB


def test_it_takes_no_longer_than_without_encryption(front, joe, pool, qemu_backend, side_by_side):
    """libvirtd's own clients cannot download this way. Little of it, because it is work."""
    through = Way(tcp_uri("qemu:///system", front.tcp_address()), joe)

    direct = qemu_backend.unix_way("qemu:///system")
    takes_no_longer(side_by_side, direct, through, pool, size=PART // 16)
