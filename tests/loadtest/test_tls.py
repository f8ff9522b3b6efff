"""The TLS channel against a server's end that is turned by hand, a few bytes at a time."""

import select
import socket
import ssl
from contextlib import suppress

import pytest

from loadtest.client import SCRATCH_SIZE
from loadtest.failures import NotAgreed
from loadtest.tls import LARGE_ENOUGH, TlsChannel
from tests.loadtest.fake_tls import server_context

RECORD = 16384
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class ServerEnd:
    """OpenSSL's server on one end of a socket pair; what it has to say is sent when told."""

    def __init__(self, sock, context):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def shake(self):
        """As far as it gets with what has come."""
        with suppress(BlockingIOError):
            self.incoming.write(self.sock.recv(65536))
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()

    def say(self, data=b""):
        """Sends what it has to say, and this behind it."""
        if data:
            self.tls.write(data)
        self.sock.sendall(self.outgoing.read())

    def heard(self):
        self.incoming.write(self.sock.recv(65536))
        return self.tls.read(65536)


class Ends:
    def __init__(self, channel, server, sock):
        self.channel, self.server, self._sock = channel, server, sock

    def readable(self):
        """Whether epoll would announce anything."""
        return bool(select.select([self._sock], [], [], 0)[0])

    def taken(self, scratch):
        """How much comes as long as epoll announces something."""
        got = 0
        while self.readable():
            with suppress(BlockingIOError):
                got += self.channel.recv_into(scratch)
        return got


def shake_hands(channel, server, version):
    with suppress(BlockingIOError):
        channel.handshake()
    server.shake()
    server.say()
    with suppress(BlockingIOError):
        channel.handshake()
    server.shake()
    if version == ssl.TLSVersion.TLSv1_2:
        server.say()
        channel.handshake()


@pytest.fixture
def make_ends(pki, credentials):
    """Both ends after their handshake, the client's not blocking; tickets are not sent yet."""
    socks = []

    def make(version=ssl.TLSVersion.TLSv1_3):
        ours, theirs = socket.socketpair()
        socks.extend((ours, theirs))
        for sock in (ours, theirs):
            sock.setblocking(False)
        channel = TlsChannel(ours, "localhost", credentials)
        server = ServerEnd(theirs, server_context(pki, version=version))
        shake_hands(channel, server, version)
        return Ends(channel, server, ours)

    yield make
    for sock in socks:
        sock.close()


@pytest.fixture
def ends(make_ends):
    return make_ends()


@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_go_both_ways(make_ends, version):
    ends, scratch = make_ends(version), bytearray(SCRATCH_SIZE)
    ends.channel.sendall(b"question")
    assert ends.server.heard() == b"question"
    ends.server.say(b"answer")
    assert scratch[: ends.channel.recv_into(scratch)] == b"answer"
    assert ends.channel.cipher.startswith("TLSv1.")


def test_a_record_without_data_is_nothing_yet(ends):
    scratch = bytearray(SCRATCH_SIZE)
    ends.server.say()  # the tickets
    assert ends.readable()
    with pytest.raises(BlockingIOError):
        ends.channel.recv_into(scratch)
    ends.server.say(b"answer")
    assert ends.channel.recv_into(scratch) == 6


def test_a_record_may_come_byte_by_byte(ends):
    scratch = bytearray(SCRATCH_SIZE)
    ends.server.tls.write(b"answer")
    for byte in ends.server.outgoing.read():
        with pytest.raises(BlockingIOError):
            ends.channel.recv_into(scratch)
        ends.server.sock.sendall(bytes([byte]))
    assert scratch[: ends.channel.recv_into(scratch)] == b"answer"


def test_records_that_came_together_are_given_together(ends):
    scratch = bytearray(SCRATCH_SIZE)
    for part in (b"one", b"two", b"three"):
        ends.server.tls.write(part)
    ends.server.say()
    assert scratch[: ends.channel.recv_into(scratch)] == b"onetwothree"


def test_what_a_small_buffer_has_no_room_for_comes_next(ends):
    small = bytearray(4)
    ends.server.say(b"answer")
    assert (ends.channel.recv_into(small), bytes(small)) == (4, b"answ")
    assert not ends.readable()
    assert (ends.channel.recv_into(small), small[:2]) == (2, b"er")
    with pytest.raises(BlockingIOError):
        ends.channel.recv_into(small)


@pytest.mark.parametrize("size", [100, 1000, RECORD])
def test_nothing_is_held_that_epoll_does_not_announce(ends, size):
    scratch, sent, got = bytearray(LARGE_ENOUGH), 0, 0
    while sent < 10 * LARGE_ENOUGH:
        ahead = sent + 2 * LARGE_ENOUGH  # so that a record is cut where a receive ends
        while sent < ahead:
            sent += ends.server.tls.write(bytes(size))
        ends.server.say()
        got += ends.taken(scratch)
    assert got == sent


def test_a_goodbye_and_a_bare_end_are_the_same(make_ends):
    polite, rude, scratch = make_ends(), make_ends(), bytearray(16)
    with suppress(ssl.SSLWantReadError):
        polite.server.tls.unwrap()
    polite.server.say()
    rude.server.sock.close()
    assert polite.channel.recv_into(scratch) == rude.channel.recv_into(scratch) == 0


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"\0", "other bytes than 0x01"),
        (b"\1\1", "other bytes than 0x01"),
        (None, "hung up instead of confirming; does it know the CA of --cert"),
    ],
)
def test_only_the_byte_that_confirms_confirms(ends, said, complaint):
    if said is None:
        ends.server.sock.close()
    else:
        ends.server.say(said)
    with pytest.raises(NotAgreed, match=complaint):
        ends.channel.confirm()


def test_the_confirmation_may_be_waited_for(ends):
    ends.server.say()
    with pytest.raises(BlockingIOError):
        ends.channel.confirm()
    ends.server.say(b"\1")
    assert ends.channel.confirm() is None


def test_broken_records_are_one_line(ends):
    ends.server.say()
    ends.server.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(NotAgreed) as failed:
        ends.channel.recv_into(bytearray(SCRATCH_SIZE))
    assert "bad record mac" in str(failed.value)


def test_the_scratch_buffer_of_a_session_is_large_enough():
    assert SCRATCH_SIZE >= LARGE_ENOUGH
