"""What a security layer adds to an endpoint: tokens in any cut, bounds, and tokens in order."""

import os
import select
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.endpoint.contract import NOTHING, HungUp
from tests.bed.pairs import tcp_pair
from tests.fakes.layer import LONGEST_TOKEN, OVERHEAD, framed, layered, seal

SCRATCH = 65536


class Ends:
    def __init__(self, **more):
        self.peer, self.endpoint = layered(*tcp_pair(), **more)
        self.scratch = memoryview(bytearray(SCRATCH))

    def comes(self, wire):
        """These bytes lie in the endpoint's socket."""
        self.peer.sock.sendall(wire)
        assert select.select([self.endpoint.fileno()], [], [], 5)[0]

    def read(self, size=SCRATCH):
        got = self.endpoint.read_into(self.scratch[:size])
        return got if got <= 0 else bytes(self.scratch[:got])

    def read_all(self):
        """What is there, as a relay reads: again while something is pending."""
        parts = []
        while isinstance(part := self.read(), bytes):
            parts.append(part)
            if not self.endpoint.pending:
                break
        return b"".join(parts)

    def close(self):
        self.peer.close()
        self.endpoint.close()


@pytest.fixture
def ends(no_descriptor_leaks):
    ends = Ends()
    yield ends
    ends.close()


def test_nothing_of_what_is_written_is_on_the_wire(ends):
    ends.endpoint.write(memoryview(b"a domain's name"))
    wire = ends.peer.sock.recv(1000)
    assert int.from_bytes(wire[:4], "big") == len(wire) - 4
    assert b"domain" not in wire


def test_a_token_in_bytes_of_one_is_nothing_until_it_is_whole(ends):
    wire = ends.peer.token(b"abc")
    for at in range(len(wire) - 1):
        ends.comes(wire[at : at + 1])
        assert ends.read() == NOTHING
        assert not ends.endpoint.pending
    ends.comes(wire[-1:])
    assert ends.read() == b"abc"


def test_tokens_that_came_together_are_pending_until_the_last(ends):
    ends.comes(ends.peer.token(b"abc") + ends.peer.token(b"def") + ends.peer.token(b"g")[:-1])
    assert (ends.read(), ends.endpoint.pending) == (b"abc", True)
    assert (ends.read(), ends.endpoint.pending) == (b"def", False)
    assert ends.read() == NOTHING


def test_what_of_a_token_is_more_than_was_asked_for_is_pending(ends):
    ends.comes(ends.peer.token(b"abcdef"))
    assert (ends.read(4), ends.endpoint.pending) == (b"abcd", True)
    assert (ends.read(4), ends.endpoint.pending) == (b"ef", False)


def test_the_longest_token_is_read(ends):
    plain = os.urandom(LONGEST_TOKEN - OVERHEAD)
    ends.peer.sendall(plain)
    received = b""
    while len(received) < len(plain):
        select.select([ends.endpoint.fileno()], [], [], 5)
        received += ends.read_all()
    assert received == plain


@pytest.mark.parametrize("length", [0, LONGEST_TOKEN + 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_length_that_cannot_be_ends_it_before_the_token_comes(ends, length):
    ends.comes(length.to_bytes(4, "big"))
    with pytest.raises(HungUp, match=f"SASL: a token of {length} bytes"):
        ends.read()


def test_a_token_that_is_not_the_next_one_ends_it(ends):
    first, second = ends.peer.token(b"first"), ends.peer.token(b"second")
    ends.comes(second + first)
    with pytest.raises(HungUp, match="SASL: a token that is not the next one"):
        ends.read()


def test_a_token_that_comes_again_ends_it(ends):
    wire = ends.peer.token(b"once")
    ends.comes(wire + wire)
    assert ends.read() == b"once"
    with pytest.raises(HungUp):
        ends.read()


@pytest.mark.parametrize("bit", [0, 63, 64, 100])
def test_one_bit_that_is_wrong_ends_it_and_what_came_before_is_read(ends, bit):
    good, bad = ends.peer.token(b"before"), bytearray(ends.peer.token(b"behind it"))
    bad[4 + bit // 8] ^= 1 << bit % 8
    ends.comes(good + bad)
    assert (ends.read(), ends.endpoint.pending) == (b"before", True)
    with pytest.raises(HungUp):
        ends.read()


def test_a_token_with_nothing_in_it_ends_it(ends):
    ends.comes(framed(seal(1, b"")))
    with pytest.raises(HungUp, match="nothing in it"):
        ends.read()


def test_the_end_in_the_middle_of_a_token_is_the_end(ends):
    ends.comes(ends.peer.token(b"abc") + ends.peer.token(b"def")[:5])
    ends.peer.shutdown(socket.SHUT_WR)
    assert ends.read() == b"abc"
    assert ends.read() == 0


def test_a_long_write_is_cut_into_tokens_that_the_peer_takes():
    ends = Ends(longest_token=100)
    plain = os.urandom(1000)
    assert ends.endpoint.write(memoryview(plain)) == len(plain)
    received = b""
    while len(received) < len(plain):
        received += ends.peer.recv(1000)
    assert received == plain
    assert ends.peer.layer.unwrapped == -(-1000 // (100 - OVERHEAD))
    ends.close()


def test_a_token_that_did_not_go_out_whole_is_not_wrapped_again(ends):
    """What was offered before comes first in the next offer, elsewhere in memory and longer."""
    content = os.urandom(1 << 24)
    taken = full = 0
    while full < 3:  # what was sent is moved on a little later, which makes some more room
        written = ends.endpoint.write(memoryview(content)[taken : taken + 50_000])
        taken += written
        full = 0 if written else full + 1
        select.select([], [ends.endpoint], [], 0.05)
    wrapped = ends.endpoint._layer.wrapped
    assert ends.endpoint.write(memoryview(bytearray(content))[taken : taken + 60_000]) == 0
    assert ends.endpoint._layer.wrapped == wrapped

    ends.peer.settimeout(5)
    received = bytearray()
    while len(received) < taken:
        received += ends.peer.recv(1 << 20)
    taken += ends.endpoint.write(memoryview(content)[taken : taken + 60_000])
    while len(received) < taken:
        received += ends.peer.recv(1 << 20)
    assert received == content[:taken]


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=12),
    st.lists(st.integers(1, 700), min_size=1, max_size=12),
    st.sampled_from([1, 3, 28, 4096]),
)
def test_any_tokens_in_any_cut_read_in_any_size_are_the_same_bytes(plains, cuts, size):
    ends = Ends()
    try:
        wire = b"".join(ends.peer.token(plain) for plain in plains)
        received = b""
        while wire:
            cut = cuts[len(wire) % len(cuts)]
            ends.comes(wire[:cut])
            wire = wire[cut:]
            while isinstance(part := ends.read(size), bytes):
                received += part
        assert received == b"".join(plains)
    finally:
        ends.close()


@given(st.binary(max_size=300), st.sampled_from([1, 28, 4096]))
def test_any_bytes_are_an_end_or_wait_for_more(wire, size):
    ends = Ends()
    try:
        if wire:
            ends.comes(wire)
        assert outcome(ends, size) in {NOTHING, "SASL"}
    finally:
        ends.close()


def outcome(ends, size):
    try:
        return ends.read(size)
    except HungUp as hung_up:
        return hung_up.reason.partition(":")[0]
