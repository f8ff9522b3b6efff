"""The Kerberos layer's channel against a server's end that is turned by hand."""

import select
import socket
from contextlib import suppress

import pytest

from loadtest.client import SCRATCH_SIZE
from loadtest.entrance import way_in
from loadtest.failures import NotAgreed
from loadtest.sasl import LARGE_ENOUGH, MAX_TOKEN
from loadtest.targets import parse_target
from loadtest.tickets import Tickets
from tests.loadtest.acceptor import Acceptor, entered

pytestmark = pytest.mark.system

TARGET = parse_target("fake=gssapi:localhost:16509")


def with_length(token):
    return len(token).to_bytes(4, "big") + token


class Ends:
    """A channel, and the server's end of what is below it."""

    def __init__(self, channel, sock, theirs, context):
        self.channel, self.context = channel, context
        self._sock, self.theirs = sock, theirs

    def token(self, plain, *, encrypted=True):
        return with_length(self.context.wrap(plain, encrypted).message)

    def say(self, *plains):
        self.theirs.sendall(b"".join(self.token(plain) for plain in plains))

    def heard(self):
        """The tokens that came, opened."""
        received, plains = self.theirs.recv(1 << 20), []
        while received:
            size = 4 + int.from_bytes(received[:4], "big")
            plains.append(self.context.unwrap(received[4:size]).message)
            received = received[size:]
        return plains

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


@pytest.fixture
def make_ends(realm, keytab, ticket):
    """Both ends when the exchange is over, neither blocking."""
    socks = []

    def make(offer=b"\x04\x01\x00\x00"):
        ours, theirs = socket.socketpair()
        socks.extend((ours, theirs))
        for sock in (ours, theirs):
            sock.setblocking(False)
        acceptor = Acceptor(keytab, offer)
        channel = entered(way_in(TARGET, Tickets(ticket), ours), acceptor)
        return Ends(channel, ours, theirs, acceptor.context)

    yield make
    for sock in socks:
        sock.close()


@pytest.fixture
def ends(make_ends):
    return make_ends()


def test_bytes_go_both_ways(ends):
    scratch = bytearray(SCRATCH_SIZE)
    ends.channel.sendall(b"question")
    assert ends.channel.send(b"more") == 4
    assert ends.heard() == [b"question", b"more"]
    ends.say(b"answer")
    assert scratch[: ends.channel.recv_into(scratch)] == b"answer"


def test_what_is_too_long_for_one_token_is_cut(make_ends):
    ends, data = make_ends(b"\x04\x00\x04\x00"), bytes(range(256)) * 12
    ends.channel.sendall(data)
    came = ends.heard()
    assert b"".join(came) == data
    assert len(came) == 4
    assert max(len(ends.context.wrap(part, True).message) for part in came) <= 1024


def test_a_token_may_come_byte_by_byte(ends):
    scratch = bytearray(SCRATCH_SIZE)
    for byte in ends.token(b"answer"):
        with pytest.raises(BlockingIOError):
            ends.channel.recv_into(scratch)
        ends.theirs.sendall(bytes([byte]))
    assert scratch[: ends.channel.recv_into(scratch)] == b"answer"


def test_tokens_that_came_together_are_given_together(ends):
    scratch = bytearray(SCRATCH_SIZE)
    ends.say(b"one", b"two", b"", b"three")
    assert scratch[: ends.channel.recv_into(scratch)] == b"onetwothree"


def test_what_a_small_buffer_has_no_room_for_comes_next(ends):
    small = bytearray(4)
    ends.say(b"answer")
    assert (ends.channel.recv_into(small), bytes(small)) == (4, b"answ")
    assert not ends.readable()
    assert (ends.channel.recv_into(small), small[:2]) == (2, b"er")
    with pytest.raises(BlockingIOError):
        ends.channel.recv_into(small)


@pytest.mark.parametrize("size", [100, 30000, 65000])
def test_nothing_is_held_that_epoll_does_not_announce(ends, size):
    scratch, sent, got = bytearray(LARGE_ENOUGH), 0, 0
    # 1 MiB of small ones would be 10,000 tokens.
    for _ in range(12):
        many = max(1, 140_000 // size) if size > 1000 else 50
        ends.say(*[bytes(size)] * many)
        sent += many * size
        got += ends.taken(scratch)
    assert got == sent


def test_the_longest_token_fits(make_ends):
    ends, scratch = make_ends(), bytearray(SCRATCH_SIZE)
    longest = ends.context.get_wrap_size_limit(MAX_TOKEN, True)
    ends.say(bytes(longest))
    assert ends.channel.recv_into(scratch) == longest


def test_the_end_is_nothing_more_even_in_the_middle_of_a_token(ends):
    ends.theirs.sendall(ends.token(b"answer")[:-1])
    ends.theirs.close()
    assert ends.channel.recv_into(bytearray(16)) == 0


def complaint(ends, received):
    ends.theirs.sendall(received)
    with pytest.raises(NotAgreed) as failed:
        ends.channel.recv_into(bytearray(SCRATCH_SIZE))
    assert "\n" not in str(failed.value)
    return str(failed.value)


@pytest.mark.parametrize("size", [0, 65537, 0xFFFFFFFF])
def test_a_token_of_a_length_that_cannot_be_is_refused_before_it_has_come(ends, size):
    told = complaint(ends, size.to_bytes(4, "big"))
    assert told == f"the server sent a token of {size} bytes; is a layer in force?"


def test_a_token_that_is_not_the_next_one_is_refused(ends):
    ends.token(b"lost on the way")
    assert "An expected per-message token was not received" in complaint(
        ends, ends.token(b"second")
    )


def test_a_token_that_came_before_is_refused(ends):
    token = ends.token(b"pay once")
    ends.theirs.sendall(token)
    ends.channel.recv_into(bytearray(16))
    assert "already been processed" in complaint(ends, token)


def test_a_token_that_was_tampered_with_is_refused(ends):
    token = bytearray(ends.token(b"answer"))
    token[-1] ^= 1
    assert complaint(ends, token).startswith("a token from the server: ")


def test_a_token_that_is_not_encrypted_is_refused(ends):
    told = complaint(ends, ends.token(b"answer", encrypted=False))
    assert told == "the server sent a token that is not encrypted"


def test_the_scratch_buffer_of_a_session_is_large_enough():
    assert SCRATCH_SIZE >= LARGE_ENOUGH
