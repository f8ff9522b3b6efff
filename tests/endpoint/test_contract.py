"""What every endpoint keeps to, whatever socket it wraps; and what only a UNIX one does."""

import array
import os
import select
import socket
import struct
import tempfile

import pytest

from proxyd.endpoint.contract import NOTHING, HungUp
from proxyd.endpoint.plain import PlainEndpoint, UnixEndpoint
from tests.bed.pairs import take_all, tcp_pair
from tests.fakes.layer import layered
from tests.fakes.tls import TLS_1_2, TLS_1_3, secured

SCRATCH = 65536
PLENTY = 1 << 24  # more than two sockets hold


def plain_on_tcp():
    other, sock = tcp_pair()
    return other, PlainEndpoint(sock)


def plain_on_unix():
    other, sock = socket.socketpair()
    return other, PlainEndpoint(sock)


def unix_on_unix():
    other, sock = socket.socketpair()
    return other, UnixEndpoint(sock)


BARE = {"plain on TCP": plain_on_tcp, "plain on UNIX": plain_on_unix, "UNIX": unix_on_unix}
KINDS = {
    **BARE,
    "TLS 1.3": lambda: secured(*tcp_pair(), version=TLS_1_3),
    "TLS 1.2": lambda: secured(*tcp_pair(), version=TLS_1_2),
    "SASL": lambda: layered(*tcp_pair()),
}


class Ends:
    """The endpoint under test and the socket at its other side."""

    def __init__(self, make):
        self.other, self.endpoint = make()
        self.scratch = memoryview(bytearray(SCRATCH))

    def read(self):
        got = self.endpoint.read_into(self.scratch)
        return got if got <= 0 else bytes(self.scratch[:got])

    def wait_for_input(self):
        assert select.select([self.endpoint.fileno()], [], [], 5)[0]

    def reset(self):
        """Ends the connection so that the endpoint's read fails."""
        if self.other.family == socket.AF_UNIX:
            self.endpoint.write(memoryview(b"unread"))  # closed with this in it: a reset
        else:
            self.other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.other.close()
        self.wait_for_input()

    def close(self):
        self.other.close()
        self.endpoint.close()


def ends_of(kind):
    ends = Ends(KINDS[kind])
    yield ends
    ends.close()


@pytest.fixture(params=KINDS)
def ends(request, no_descriptor_leaks):
    yield from ends_of(request.param)


@pytest.fixture(params=BARE)
def bare(request, no_descriptor_leaks):
    yield from ends_of(request.param)


@pytest.fixture
def unix(no_descriptor_leaks):
    yield from ends_of("UNIX")


@pytest.fixture
def pipe(no_descriptor_leaks):
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield read, write
    os.close(read)
    os.close(write)


@pytest.fixture
def file():
    with tempfile.TemporaryFile() as opened:
        yield opened


def test_the_socket_is_made_non_blocking(ends):
    assert not os.get_blocking(ends.endpoint.fileno())


def test_bytes_arrive_as_they_were_sent(ends):
    ends.other.sendall(b"abc")
    ends.wait_for_input()
    assert ends.read() == b"abc"
    assert ends.endpoint.write(memoryview(b"defg")) == 4
    assert ends.other.recv(100) == b"defg"


def test_reading_when_there_is_nothing_says_so_and_is_no_end(ends):
    assert ends.read() == NOTHING
    ends.other.sendall(b"later")
    ends.wait_for_input()
    assert ends.read() == b"later"


def test_a_read_fills_no_more_than_the_view(ends):
    ends.other.sendall(b"abcdef")
    ends.wait_for_input()
    assert ends.endpoint.read_into(ends.scratch[:4]) == 4
    assert ends.read() == b"ef"


def test_the_end_is_zero_after_the_last_byte_and_stays(ends):
    ends.other.sendall(b"last")
    ends.other.shutdown(socket.SHUT_WR)
    ends.wait_for_input()
    assert ends.read() == b"last"
    ends.wait_for_input()
    assert [ends.read(), ends.read()] == [0, 0]


def test_a_write_takes_what_fits_then_nothing_and_loses_nothing(ends):
    content = memoryview(os.urandom(PLENTY))
    taken = 0
    while written := ends.endpoint.write(content[taken:]):
        taken += written
    assert 0 < taken < PLENTY
    assert ends.endpoint.write(content[taken:]) == 0
    assert take_all(ends.other, taken) == content[:taken]
    more = ends.endpoint.write(content[taken:])
    assert more > 0
    assert take_all(ends.other, more) == content[taken : taken + more]


def test_a_reset_is_a_hang_up_while_reading(ends):
    ends.reset()
    with pytest.raises(HungUp) as hung_up:
        ends.read()
    assert not hung_up.value.while_writing
    assert hung_up.value.reason == "Connection reset by peer"
    assert hung_up.value.__cause__ is not None


def test_what_came_before_a_reset_is_read_first(ends):
    ends.other.sendall(b"before")
    ends.wait_for_input()
    ends.reset()
    assert ends.read() == b"before"
    with pytest.raises(HungUp):
        ends.read()


def test_a_broken_pipe_is_a_hang_up_while_writing(ends):
    ends.reset()
    with pytest.raises(HungUp):
        ends.read()
    with pytest.raises(HungUp) as hung_up:
        ends.endpoint.write(memoryview(b"x"))
    assert hung_up.value.while_writing
    assert hung_up.value.reason in {"Broken pipe", "Connection reset by peer"}


def test_a_splice_moves_received_bytes_into_a_pipe_and_no_more_than_asked(bare, pipe):
    bare.other.sendall(b"abcdef")
    bare.wait_for_input()
    assert bare.endpoint.splice_to(pipe[1], 4) == 4
    assert os.read(pipe[0], 100) == b"abcd"
    assert bare.read() == b"ef"


def test_a_splice_tells_nothing_from_the_end(bare, pipe):
    assert bare.endpoint.splice_to(pipe[1], 100) == NOTHING
    bare.other.shutdown(socket.SHUT_WR)
    bare.wait_for_input()
    assert bare.endpoint.splice_to(pipe[1], 100) == 0


def test_a_splice_from_a_reset_connection_is_a_hang_up_while_reading(bare, pipe):
    bare.reset()
    with pytest.raises(HungUp) as hung_up:
        bare.endpoint.splice_to(pipe[1], 100)
    assert not hung_up.value.while_writing


def test_a_splice_out_of_a_pipe_is_a_write(bare, pipe):
    os.write(pipe[1], b"abcdef")
    assert bare.endpoint.splice_from(pipe[0], 6) == 6
    assert take_all(bare.other, 6) == b"abcdef"


def test_a_splice_into_a_full_socket_takes_nothing_and_loses_nothing(bare, pipe):
    taken = 0
    while written := bare.endpoint.write(bare.scratch):
        taken += written
    os.write(pipe[1], b"behind")
    assert bare.endpoint.splice_from(pipe[0], 6) == 0
    take_all(bare.other, taken)
    assert bare.endpoint.splice_from(pipe[0], 6) == 6
    assert take_all(bare.other, 6) == b"behind"


def test_a_splice_into_a_closed_connection_is_a_hang_up_while_writing(bare, pipe):
    bare.reset()
    with pytest.raises(HungUp):
        bare.read()
    os.write(pipe[1], b"x")
    with pytest.raises(HungUp) as hung_up:
        bare.endpoint.splice_from(pipe[0], 1)
    assert hung_up.value.while_writing


def test_ending_the_writing_is_seen_by_the_other_side_which_may_still_send(ends):
    ends.endpoint.write(memoryview(b"last"))
    ends.endpoint.end_write()
    assert take_all(ends.other, 4) == b"last"
    assert ends.other.recv(1) == b""
    ends.other.sendall(b"answer")
    ends.wait_for_input()
    assert ends.read() == b"answer"


def test_ending_the_writing_twice_is_once(ends):
    ends.endpoint.end_write()
    ends.endpoint.end_write()
    assert ends.other.recv(1) == b""


def test_ending_the_writing_to_nobody_is_silent(ends):
    ends.reset()
    ends.endpoint.end_write()


def test_ending_the_writing_after_closing_is_silent(ends):
    ends.endpoint.close()
    ends.endpoint.end_write()


def test_closing_twice_is_once(ends):
    ends.endpoint.close()
    ends.endpoint.close()
    assert ends.other.recv(1) == b""


def test_what_cannot_splice_says_so_and_refuses(ends, pipe):
    if not ends.endpoint.may_splice:
        with pytest.raises(NotImplementedError):
            ends.endpoint.splice_to(pipe[1], 1)
        with pytest.raises(NotImplementedError):
            ends.endpoint.splice_from(pipe[0], 1)


def test_descriptors_are_refused_where_they_cannot_be_carried(ends):
    if not ends.endpoint.carries_descriptors:
        with pytest.raises(NotImplementedError):
            ends.endpoint.take_descriptors()


def test_a_plain_endpoint_loses_descriptors_but_leaks_none(file, open_descriptors):
    ends = Ends(plain_on_unix)
    before = open_descriptors()
    ends.other.sendmsg(
        [b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))]
    )
    assert ends.read() == b"x"
    assert open_descriptors() == before
    ends.close()
