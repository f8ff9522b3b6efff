"""A pool with a large volume, and its way through a session."""

import hashlib
import os

import pytest

from proxyd.wire.frame import FrameType, Status
from proxyd.wire.xdr import Writer
from tests.bed.virsh import unix_uri, virsh

SIZE = 256 * 1024 * 1024
PART = SIZE // 4  # enough to see that somebody waits
GROWTH_LIMIT_KIB = 4096
DEADLINE_S = 120
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
    begin = f"pool-define-as bulk dir --target {directory}; pool-start bulk"
    virsh(uri, f"{begin}; vol-create-as bulk target.img {PART}").succeeded()
    yield directory
    virsh(uri, "pool-destroy bulk; pool-undefine bulk").succeeded()


def digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def takes_no_longer(side_by_side, direct, through, pool, size=PART):
    """The volume's beginning, down and up."""
    beginning = pool / "beginning"
    with (pool / "source.img").open("rb") as source:
        beginning.write_bytes(source.read(size))
    for command in (
        f"vol-download source.img /dev/null --pool bulk --length {size}",
        f"vol-upload target.img {beginning} --pool bulk",
    ):
        side_by_side.virsh(direct, [through], command).succeeded()


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
