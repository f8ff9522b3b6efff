"""Long streams: everything arrives, nothing piles up in the proxy."""

from pathlib import Path

import pytest

from tests.bed.side_by_side import Way
from tests.bed.virsh import unix_uri, virsh
from tests.bed.volumes import (
    DEADLINE_S,
    GROWTH_LIMIT_KIB,
    SIZE,
    digest,
    pool,
    received,
    start_download,
    takes_no_longer,
)
from tests.bed.waiting import wait_until
from tests.system.rpc import opened

__all__ = ["pool"]

pytestmark = pytest.mark.system

STILL = 15  # equal looks in a row, 20 ms apart


def test_a_volume_comes_down_unchanged_and_memory_stays_flat(proxyd, pool, tmp_path):
    uri = unix_uri("qemu:///system", proxyd.sock)
    virsh(uri, "version").succeeded()
    before = proxyd.rss_kib()

    virsh(
        uri, f"vol-download source.img {tmp_path}/got --pool bulk", deadline_s=DEADLINE_S
    ).succeeded()

    assert digest(tmp_path / "got") == digest(pool / "source.img")
    assert proxyd.rss_kib() - before < GROWTH_LIMIT_KIB


def test_a_volume_goes_up_unchanged_and_memory_stays_flat(proxyd, pool):
    uri = unix_uri("qemu:///system", proxyd.sock)
    virsh(uri, f"vol-create-as bulk put.img {SIZE}").succeeded()
    before = proxyd.rss_kib()

    virsh(
        uri, f"vol-upload put.img {pool}/source.img --pool bulk", deadline_s=DEADLINE_S
    ).succeeded()

    assert digest(pool / "put.img") == digest(pool / "source.img")
    assert proxyd.rss_kib() - before < GROWTH_LIMIT_KIB


def test_it_takes_no_longer_than_directly(proxyd, pool, qemu_backend, side_by_side):
    through = Way(unix_uri("qemu:///system", proxyd.sock))

    takes_no_longer(side_by_side, qemu_backend.unix_way("qemu:///system"), through, pool)


def test_a_reader_that_stops_stops_the_sender(make_proxyd, pool, qemu_backend):
    front = make_proxyd()
    with opened(front.sock, "qemu:///system") as client:
        memory, read = front.rss_kib(), bytes_read_by(qemu_backend.pid)
        start_download(client)

        stopped_at = wait_until_still(qemu_backend.pid)

        assert stopped_at - read < SIZE // 8
        assert front.rss_kib() - memory < GROWTH_LIMIT_KIB
        busy = cpu_ticks(front.pid)
        assert wait_until_still(qemu_backend.pid) == stopped_at
        assert cpu_ticks(front.pid) - busy <= 1, "proxyd turns while nobody reads"
        # And what was held back is all there, in order.
        assert received(client) == digest(pool / "source.img")


def wait_until_still(pid):
    """Waits until a process has read nothing for a while; returns what it has read by then."""
    seen = []

    def unchanged():
        seen.append(bytes_read_by(pid))
        return len(seen) > STILL and len(set(seen[-STILL:])) == 1

    wait_until(unchanged, 30, "the daemon stops reading its volume")
    return seen[-1]


def bytes_read_by(pid):
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def cpu_ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
