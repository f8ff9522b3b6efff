"""The handshake's records: whole, counted, and not one byte behind the last of them."""

import contextlib
import select
import socket

import pytest
from OpenSSL import SSL

from proxyd.endpoint.contract import HungUp
from proxyd.endpoint.handshake import (
    LONGEST_HANDSHAKE,
    MOST_RECORDS,
    Handshake,
    RecordReader,
    TooMuch,
)
from proxyd.endpoint.tls import HandshakeFailed, TlsEndpoint
from tests.bed.hellos import HANDSHAKE, Hello, records, sized
from tests.bed.pairs import tcp_pair
from tests.fakes.tls import TLS_1_2, TLS_1_3, TlsPeer, secured, server_context

CHANGE_CIPHER, ALERT, APPLICATION = 20, 21, 23
SIZES = (1, 5, 63, 64, 1000)


@pytest.fixture(params=[TLS_1_2, TLS_1_3], ids=["TLS 1.2", "TLS 1.3"])
def version(request):
    return request.param


@pytest.fixture
def pair(no_descriptor_leaks):
    ends = socket.socketpair()
    ends[1].setblocking(False)
    yield ends
    for each in ends:
        each.close()


def record(kind, content=b"x"):
    return bytes([kind, 3, 3]) + sized(2, content)


def taken(*sent, pair):
    """What one look takes of these records, and what it leaves."""
    other, sock = pair
    other.sendall(b"".join(sent))
    got = RecordReader(sock).take()
    with contextlib.suppress(BlockingIOError):
        return got, sock.recv(65536)
    return got, b""


def test_records_of_the_handshake_are_taken_together(pair):
    first, second = record(HANDSHAKE, b"one"), record(HANDSHAKE, b"two")
    assert taken(first, second, pair=pair) == (first + second, b"")


@pytest.mark.parametrize("kind", [APPLICATION, ALERT, CHANGE_CIPHER])
def test_nothing_is_taken_behind_a_record_that_may_be_the_last(pair, kind):
    first, last = record(HANDSHAKE), record(kind)
    assert taken(first, last, b"behind", pair=pair) == (first + last, b"behind")


def test_behind_a_change_of_cipher_each_may_be_the_last(pair):
    other, sock = pair
    reader = RecordReader(sock)
    change, finished = record(CHANGE_CIPHER), record(HANDSHAKE)
    other.sendall(change + finished + record(APPLICATION))
    assert [reader.take(), reader.take()] == [change, finished]
    assert sock.recv(65536) == record(APPLICATION)


def test_a_part_of_a_record_waits_for_the_rest(pair):
    other, sock = pair
    reader, whole = RecordReader(sock), record(HANDSHAKE, b"content")
    for byte in whole[:-1]:
        other.sendall(bytes([byte]))
        assert reader.take() == b""
    other.sendall(whole[-1:])
    assert reader.take() == whole


@pytest.mark.parametrize("begun", [b"", b"\x16", record(HANDSHAKE)[:-1]])
def test_an_end_is_an_end_wherever_it_comes(pair, begun):
    other, sock = pair
    other.sendall(record(HANDSHAKE) + begun)
    other.shutdown(socket.SHUT_WR)
    reader = RecordReader(sock)
    assert reader.take() == record(HANDSHAKE)
    with pytest.raises(HungUp, match="closed"):
        reader.take()


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n", b"\0\0\0\x1c\x20", b"\x16\3\3\xff\xff"])
def test_what_is_no_record_goes_to_openssl_as_far_as_it_takes_to_see_that(pair, garbage):
    assert taken(garbage, pair=pair)[0] == garbage[:5]


def test_the_longest_handshake_is_taken_and_no_more(pair):
    other, sock = pair
    reader = RecordReader(sock)
    half = record(HANDSHAKE, bytes(LONGEST_HANDSHAKE // 3 - 5))
    for _ in range(3):
        other.sendall(half)
        assert reader.take() == half
    other.sendall(record(HANDSHAKE))
    with pytest.raises(TooMuch, match=f"where at most {LONGEST_HANDSHAKE}"):
        reader.take()


def test_the_most_records_are_taken_and_no_more(pair):
    other, sock = pair
    reader = RecordReader(sock)
    other.sendall(record(HANDSHAKE) * MOST_RECORDS)
    assert len(reader.take()) == MOST_RECORDS * len(record(HANDSHAKE))
    other.sendall(record(HANDSHAKE, b""))
    with pytest.raises(TooMuch, match=f"{MOST_RECORDS + 1} records"):
        reader.take()


class Narrow:
    """A socket that takes a few bytes at a time, and between them none."""

    def __init__(self, sock):
        self._sock = sock
        self._room = True
        self.recv = sock.recv

    def send(self, content):
        self._room = not self._room
        if not self._room:
            return self._sock.send(bytes(content[:100]))
        raise BlockingIOError


def test_a_flight_that_the_socket_does_not_take_goes_out_bit_by_bit(version, no_descriptor_leaks):
    other, sock = tcp_pair()
    sock.setblocking(False)
    peer, server = TlsPeer(other, version), SSL.Connection(server_context(), None)
    server.set_accept_state()
    handshake = Handshake(server, Narrow(sock))
    waited = client_done = done = False
    while not (done and client_done):
        with contextlib.suppress(SSL.WantReadError):
            peer.connection.do_handshake()
            client_done = True
        done = handshake.advance()
        waited = waited or handshake.wants_room
    assert waited
    peer.close()
    sock.close()


def test_what_a_client_says_together_with_its_last_word_of_the_handshake_is_not_lost(
    no_descriptor_leaks,
):
    other, sock = tcp_pair()
    endpoint, peer = TlsEndpoint(sock, server_context(), None), TlsPeer(other, TLS_1_3)
    with pytest.raises(SSL.WantReadError):
        peer.connection.do_handshake()
    while not select.select([other], [], [], 0)[0]:
        assert not endpoint.handshake()
    peer.connection.do_handshake()
    peer.sendall(b"first call")
    peer.sendall(b"second call")
    while not endpoint.handshake():
        assert select.select([sock], [], [], 5)[0]
    scratch = memoryview(bytearray(100))
    got = b""
    while len(got) < 21:
        assert endpoint.pending or select.select([sock], [], [], 5)[0]
        got += bytes(scratch[: endpoint.read_into(scratch)])
    assert got == b"first callsecond call"
    peer.close()
    endpoint.close()


@pytest.mark.parametrize("size", SIZES)
def test_a_hello_in_small_records_is_a_hello_or_too_much(size, no_descriptor_leaks):
    other, sock = tcp_pair()
    endpoint = TlsEndpoint(sock, server_context(), None)
    hello = Hello(extensions=[(21, bytes(300))]).pack()
    other.sendall(records(hello, size=size))
    if -(-len(hello) // size) > MOST_RECORDS:
        with pytest.raises(HandshakeFailed, match="records before it was let in"):
            endpoint.handshake()
    else:
        assert not endpoint.handshake()
        assert other.recv(1) == bytes([HANDSHAKE])  # it is answered
    other.close()
    endpoint.close()


@pytest.mark.parametrize("length", [16384 + 257, 20_000, 36_000, 0xFFFF])
def test_a_hello_in_what_is_too_long_for_a_record_is_told_so_at_once(length, no_descriptor_leaks):
    other, sock = tcp_pair()
    endpoint = TlsEndpoint(sock, server_context(), None)
    other.sendall(b"\x16\x03\x01" + length.to_bytes(2))
    with pytest.raises(HandshakeFailed, match="length too long"):
        endpoint.handshake()
    other.close()
    endpoint.close()


def test_what_begins_as_a_hello_and_is_none_is_told_so_at_once(no_descriptor_leaks):
    other, sock = tcp_pair()
    endpoint = TlsEndpoint(sock, server_context(), None)
    other.sendall(b"\x16\x16\x01\x10\x00" + bytes(1000))
    with pytest.raises(HandshakeFailed, match="wrong version number"):
        endpoint.handshake()
    other.close()
    endpoint.close()


def test_the_socket_is_openssl_s_own_when_the_handshake_is_over(version, no_descriptor_leaks):
    peer, endpoint = secured(*tcp_pair(), version=version)
    assert endpoint.connection.fileno() == endpoint.fileno()
    with pytest.raises(TypeError, match="Connection sock was not None"):
        endpoint.connection.bio_read(1)  # which it has only without a socket
    peer.close()
    endpoint.close()
