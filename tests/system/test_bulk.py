"""Long streams: everything arrives, nothing piles up in the proxy."""

import hashlib
import os
from pathlib import Path

import pytest

from proxyd.wire.frame import FrameType, Status
from proxyd.wire.xdr import Writer
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import opened

pytestmark = pytest.mark.system

SIZE = 256 * 1024 * 1024
GROWTH_LIMIT_KIB = 4096
DEADLINE_S = 120
STILL = 15  # equal looks in a row, 20 ms apart

POOL_LOOKUP_BY_NAME = 84
VOL_LOOKUP_BY_NAME = 95
VOL_DOWNLOAD = 209


@pytest.fixture(scope="module")
def pool(qemu_backend, tmp_path_factory):
    """A directory pool of the daemon, with a volume of random bytes in it."""
    directory = tmp_path_factory.mktemp("pool")
    source = directory / "source.img"
    block = os.urandom(1024 * 1024)
    with source.open("wb") as file:
        for number in range(SIZE // len(block)):
            file.write(number.to_bytes(8, "big") + block[8:])
    uri = unix_uri("qemu:///system", qemu_backend.sock)
    virsh(uri, f"pool-define-as bulk dir --target {directory}; pool-start bulk").succeeded()
    yield directory
    virsh(uri, "pool-destroy bulk; pool-undefine bulk").succeeded()


def digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def start_download(client):
    pool = client.call(POOL_LOOKUP_BY_NAME, Writer().string("bulk").take())
    volume = client.call(VOL_LOOKUP_BY_NAME, pool.payload + Writer().string("source.img").take())
    assert volume.header.status == Status.OK
    reply = client.call(VOL_DOWNLOAD, volume.payload + Writer().u64(0).u64(0).u32(0).take())
    assert reply.header.status == Status.OK


def received(client):
    """The hash of the stream's data up to its end."""
    seen = hashlib.sha256()
    while (frame := client.receive()) is not None and frame.payload:
        assert (frame.header.procedure, frame.header.type) == (VOL_DOWNLOAD, FrameType.STREAM)
        seen.update(frame.payload)
    return seen.hexdigest()


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
