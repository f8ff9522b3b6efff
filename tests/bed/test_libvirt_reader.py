"""The bed's own TLS readers: they take what libvirt takes, and see what libvirt would not."""

import fcntl
import itertools
import socket
import ssl
import struct
import termios
import threading
from contextlib import contextmanager

import pytest
from OpenSSL import SSL

from tests.bed.libvirt_reader import LibvirtReader, NoFrame, SharedRecord
from tests.bed.tls_records import RecordClient, check_records, frames_in
from tests.fakes.tls import TLS_1_2, TLS_1_3, secured, server_context
from tests.relay.frames import call, packet, reply
from tests.relay.session import tcp_pair

DEADLINE_S = 5
RECORD = 16384


@pytest.fixture(params=[TLS_1_2, TLS_1_3], ids=["TLS 1.2", "TLS 1.3"])
def version(request):
    return request.param


@pytest.fixture
def ends(version):
    """What writes records, one a write, and what reads them."""
    peer, endpoint = secured(*tcp_pair(), version=version)
    yield endpoint.connection, LibvirtReader(peer.connection)
    peer.close()
    endpoint.close()


def test_frames_in_records_of_their_own_come_one_by_one(ends):
    writes, reader = ends
    sent = [reply(serial, bytes(100 * serial)) for serial in range(50)]
    for wire in sent:
        writes.sendall(wire)
    assert [reader.take(DEADLINE_S).pack() for _ in sent] == sent
    assert reader.take() is None
    assert (reader.frames, reader.ended) == (50, False)


def test_a_frame_of_many_records_is_a_frame(ends):
    writes, reader = ends
    wire = packet(3 * RECORD + 5)
    for at, end in itertools.pairwise([0, 1, 3, 4, 5, 27, 28, 29, 1000, 2 * RECORD, len(wire)]):
        assert reader.take() is None
        writes.sendall(wire[at:end])
    assert reader.take(DEADLINE_S).pack() == wire


@pytest.mark.parametrize(
    ("left", "named"),
    [
        (1, "a header's first 1 bytes (00)"),
        (27, "a header's first 27"),
        (28, "serial 8"),
        (60, "8"),
    ],
)
def test_a_record_that_holds_bytes_of_two_frames_is_named(ends, left, named):
    writes, reader = ends
    writes.sendall(reply(6))
    assert reader.take(DEADLINE_S).header.serial == 6
    writes.sendall(reply(7, bytes(100)) + packet(100, 8)[:left])
    with pytest.raises(SharedRecord, match=r"frame 1, a REPLY of 128 bytes .* serial 7") as shared:
        reader.take(DEADLINE_S)
    assert f"also holds {left} bytes" in str(shared.value)
    assert named in str(shared.value)


def test_the_last_of_many_records_of_a_frame_is_looked_at_too(ends):
    writes, reader = ends
    wire, behind = packet(RECORD + 1000, 3), reply(4)
    writes.sendall(wire[:RECORD])
    writes.sendall(wire[RECORD:] + behind)
    with pytest.raises(SharedRecord, match=r"a STREAM of 17384 bytes.* 28 bytes.* serial 4"):
        reader.take(DEADLINE_S)


def test_the_next_record_stays_in_the_socket(ends):
    """Where poll sees it; that is what "nothing is pending inside TLS" means."""
    writes, reader = ends
    writes.sendall(reply(1))
    one = waiting_in(reader)
    for serial in (2, 3):
        writes.sendall(reply(serial))
    assert waiting_in(reader) == 3 * one
    assert reader.take(DEADLINE_S).header.serial == 1
    assert waiting_in(reader) == 2 * one


def waiting_in(reader):
    room = bytearray(4)
    fcntl.ioctl(reader.connection.fileno(), termios.FIONREAD, room)
    return struct.unpack("i", room)[0]


def test_what_is_no_frame_is_said(ends):
    writes, reader = ends
    writes.sendall(b"\0\0\0\x1b" + bytes(24))
    with pytest.raises(NoFrame, match="length of 27"):
        reader.take(DEADLINE_S)


@pytest.mark.parametrize("goodbye", [True, False])
def test_the_end_is_told_from_silence(ends, goodbye):
    writes, reader = ends
    writes.sendall(reply(1))
    if goodbye:
        writes.shutdown()
    writes.sock_shutdown(socket.SHUT_WR)
    assert reader.take(DEADLINE_S).header.serial == 1
    assert not reader.ended
    assert reader.take(DEADLINE_S) is None
    assert reader.ended
    assert not reader.reset


def test_a_reset_is_told_from_an_end(ends):
    writes, reader = ends
    reader.connection.send(b"unread")
    writes._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writes._socket.close()
    assert reader.take(DEADLINE_S) is None
    assert (reader.ended, reader.reset) == (True, True)


@contextmanager
def served(version, wires):
    """A client's context and socket, for which the other side writes these, one a write."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion(version)
    near, far = tcp_pair()
    near.settimeout(DEADLINE_S)

    def serve():
        server = SSL.Connection(server_context(), far)
        server.set_accept_state()
        for wire in wires:
            server.sendall(wire)
        server.shutdown()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield context, near
    finally:
        thread.join(DEADLINE_S)
        near.close()
        far.close()


def test_a_connection_of_the_standard_library_is_read_alike(version):
    wires = [reply(1), packet(100_000, 2), reply(3) + reply(4)]
    with served(version, wires) as (context, sock), context.wrap_socket(sock) as secure:
        reader = LibvirtReader(secure)
        assert [reader.take(DEADLINE_S).header.serial for _ in range(2)] == [1, 2]
        with pytest.raises(SharedRecord, match=r"serial 3.* serial 4"):
            reader.take(DEADLINE_S)


def test_records_are_counted_from_outside(version):
    wires = [reply(1), packet(2 * RECORD + 1, 2), reply(3)]
    with served(version, wires) as (context, sock):
        client = RecordClient(sock, context)
        client.shake_hands()
        received = client.receive(3)
    assert [frame.pack() for frame in received] == wires
    assert [len(record) for record in client.records] == [28, RECORD, RECORD, 1, 28]
    assert frames_in(client.records) == [range(1), *[range(1, 2)] * 3, range(2, 3)]
    check_records(client.records, 3)


def test_a_record_of_two_frames_is_seen_from_outside(version):
    with served(version, [reply(1) + reply(2)[:1], reply(2)[1:]]) as (context, sock):
        client = RecordClient(sock, context)
        client.shake_hands()
        assert len(client.receive(3)) == 2
    assert client.ended
    assert frames_in(client.records) == [range(2), range(1, 2)]
    with pytest.raises(AssertionError, match=r"several frames: \{0: \[0, 1\]\}"):
        check_records(client.records, 2)


def test_a_frame_in_pieces_is_no_frame_too_many():
    wire = call(1)
    check_records([wire[:1], wire[1:3], wire[3:5], wire[5:]], 1)
