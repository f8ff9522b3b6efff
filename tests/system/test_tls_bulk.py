"""Long streams over TLS: everything arrives, nothing piles up in the proxy."""

import hashlib
import socket

import pytest

from proxyd.wire import remote
from proxyd.wire.frame import FrameType, Header, Status
from proxyd.wire.programs import VERSION, Program
from proxyd.wire.xdr import Writer
from tests.bed.pki import Pki
from tests.bed.side_by_side import Way
from tests.bed.virsh import tls_uri, virsh
from tests.bed.volumes import (
    DEADLINE_S,
    GROWTH_LIMIT_KIB,
    POOL_LOOKUP_BY_NAME,
    SIZE,
    VOL_LOOKUP_BY_NAME,
    digest,
    pool,
    received,
    start_download,
    takes_no_longer,
)
from tests.system.tls_client import opened_over_tls

__all__ = ["pool"]

pytestmark = pytest.mark.system

VOL_UPLOAD = 208
PIECE = 262_120  # libvirt's own packets carry so much


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def joe(pki):
    return pki.client()


@pytest.fixture
def front(make_proxyd, pki):
    settings = {"listen_tls": 1, "listen_addr": "127.0.0.1", "tls_port": "0"}
    return make_proxyd({**settings, **pki.settings(pki.server())})


def test_a_volume_comes_down_unchanged_and_memory_stays_flat(front, joe, pool, tmp_path):
    uri = tls_uri("qemu:///system", front.tls_address(), joe)
    virsh(uri, "version").succeeded()
    before = front.rss_kib()

    virsh(
        uri, f"vol-download source.img {tmp_path}/got --pool bulk", deadline_s=DEADLINE_S
    ).succeeded()

    assert digest(tmp_path / "got") == digest(pool / "source.img")
    assert front.rss_kib() - before < GROWTH_LIMIT_KIB


def test_a_volume_goes_up_unchanged_and_memory_stays_flat(front, joe, pool):
    uri = tls_uri("qemu:///system", front.tls_address(), joe)
    virsh(uri, f"vol-create-as bulk over-tls.img {SIZE}").succeeded()
    before = front.rss_kib()

    virsh(
        uri, f"vol-upload over-tls.img {pool}/source.img --pool bulk", deadline_s=DEADLINE_S
    ).succeeded()

    assert digest(pool / "over-tls.img") == digest(pool / "source.img")
    assert front.rss_kib() - before < GROWTH_LIMIT_KIB


@pytest.mark.parametrize("query", [{}, {"tls_priority": "NORMAL:-VERS-TLS1.3"}])
def test_it_takes_no_longer_than_directly(query, front, joe, pool, direct_tls, side_by_side):
    through = Way(tls_uri("qemu:///system", front.tls_address(), joe, **query))

    takes_no_longer(side_by_side, direct_tls("qemu:///system", **query), through, pool)


def test_a_client_that_stops_talking_still_gets_its_download(front, joe, pool):
    """Half-close right behind the last byte of the call: the answer comes all the same."""
    with opened_over_tls(front.tls_address(), joe, "qemu:///system") as client:
        start_download(client)
        # The stdlib's own shutdown would also forget the keys.
        socket.socket.shutdown(client.sock, socket.SHUT_WR)
        assert received(client)


def test_a_client_that_closes_right_behind_its_last_byte_has_sent_it(front, joe, pool):
    virsh(
        tls_uri("qemu:///system", front.tls_address(), joe), "vol-create-as bulk closed.img 64M"
    ).succeeded()
    size = 64 * 1024 * 1024
    sent = hashlib.sha256()
    with opened_over_tls(front.tls_address(), joe, "qemu:///system") as client:
        volume = look_up(client, "closed.img")
        reply = client.call(VOL_UPLOAD, volume + Writer().u64(0).u64(size).u32(0).take())
        assert reply.header.status == Status.OK
        with (pool / "source.img").open("rb") as source:
            for at in range(0, size, PIECE):
                piece = source.read(min(PIECE, size - at))
                sent.update(piece)
                client.send(stream_frame(client.serial, piece))
        client.send(stream_frame(client.serial, b"", Status.OK))
        socket.socket.shutdown(client.sock, socket.SHUT_WR)
        # libvirtd may close before it has sent the answer to one who has ended, but not before
        # it has written what came.
        while client.receive() is not None:
            pass
    assert digest(pool / "closed.img") == sent.hexdigest()


def look_up(client, name):
    found = client.call(POOL_LOOKUP_BY_NAME, Writer().string("bulk").take())
    volume = client.call(VOL_LOOKUP_BY_NAME, found.payload + Writer().string(name).take())
    assert volume.header.status == Status.OK
    return volume.payload


def stream_frame(serial, payload, status=Status.CONTINUE):
    header = Header(Program.REMOTE, VERSION, VOL_UPLOAD, FrameType.STREAM, serial, status)
    return remote.Frame(header, payload).pack()
