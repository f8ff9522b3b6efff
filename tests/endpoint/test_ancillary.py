"""Descriptors at a UNIX endpoint: refused, or seen before their byte is read; none is ever ours."""

import os
import select
import socket
import struct
import time

import pytest

from proxyd.endpoint import ancillary
from proxyd.endpoint.ancillary import (
    bytes_without,
    cut_off,
    has_never_taken_any,
    refuse_descriptors,
)
from proxyd.endpoint.contract import DESCRIPTOR, NOTHING
from proxyd.endpoint.couriers import COURIERS
from proxyd.endpoint.plain import PlainEndpoint, UnixEndpoint
from proxyd.endpoint.sasl import SaslEndpoint
from tests.fakes.layer import FakeLayer
from tests.fakes.lingering import lingering

AT_ONCE_S = 1.0
NO_SUCH_OPTION = 9999


@pytest.fixture
def older_kernel(monkeypatch):
    monkeypatch.setattr(ancillary, "SO_PASSRIGHTS", NO_SUCH_OPTION)


@pytest.fixture
def null():
    with open(os.devnull) as file:
        yield file.fileno()


class Pair:
    """`endpoint` takes descriptors; `other` sends to it."""

    def __init__(self, *, taking=True):
        self.other, near = socket.socketpair()
        self.endpoint = UnixEndpoint(near)
        if taking:
            self.endpoint.take_descriptors()
        self.scratch = memoryview(bytearray(65536))

    def read(self, size=65536):
        got = self.endpoint.read_into(self.scratch[:size])
        return bytes(self.scratch[:got]) if got >= 0 else got

    def close(self):
        self.other.close()
        self.endpoint.close()


@pytest.fixture
def pair():
    with_descriptors = Pair()
    yield with_descriptors
    with_descriptors.close()


def pass_on(sock, content, *descriptors):
    assert socket.send_fds(sock, [content], descriptors) == len(content)


def test_till_they_are_taken_their_sender_is_refused(null):
    pair = Pair(taking=False)
    with pytest.raises(PermissionError):
        pass_on(pair.other, b"\0", null)
    pair.other.sendall(b"bytes")
    assert pair.read() == b"bytes"
    pair.endpoint.take_descriptors()
    pass_on(pair.other, b"\0", null)
    assert pair.read() == DESCRIPTOR
    pair.close()


def test_who_connects_is_refused_from_the_first_moment_on(tmp_path, null):
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as early:
        assert refuse_descriptors(listener)
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        early.connect(str(tmp_path / "sock"))
        with pytest.raises(PermissionError):
            pass_on(early, b"\0", null)
        accepted, _ = listener.accept()
        assert has_never_taken_any(accepted)
        accepted.close()


def test_what_was_sent_before_the_listener_refused_is_not_read(tmp_path, null):
    """A service manager made the listener, and somebody was there before us."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as early:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        early.connect(str(tmp_path / "sock"))
        pass_on(early, b"\0", null)
        refuse_descriptors(listener)
        accepted, _ = listener.accept()
        endpoint = UnixEndpoint(accepted)
        assert endpoint.read_into(memoryview(bytearray(100))) == DESCRIPTOR
        with pytest.raises(PermissionError):
            pass_on(early, b"\0", null)
        endpoint.close()


@pytest.mark.parametrize("many", [1, 2, 253])
@pytest.mark.parametrize("front", [1, 2, 28, 1000, 40_000, 65_535, 65_536, 100_000])
@pytest.mark.parametrize("behind", [0, 1, 1000, 100_000])
@pytest.mark.parametrize("riding", [1, 2, 5000, 36_000])
def test_reads_end_in_front_of_them_wherever_they_are(pair, null, many, front, behind, riding):
    pair.other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
    content = os.urandom(front)
    pair.other.sendall(content)
    pass_on(pair.other, bytes(riding), *[null] * many)
    pair.other.sendall(bytes(behind))
    before = len(os.listdir("/proc/self/fd"))
    came = b""
    while isinstance(part := pair.read(), bytes):
        came += part
    assert part == DESCRIPTOR
    assert came == content
    assert pair.read() == DESCRIPTOR
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("behind", [0, 3, 1000])
def test_those_on_an_urgent_byte_are_seen_as_well(pair, behind):
    reader, sock = lingering()
    pair.other.sendall(b"a frame")
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("@i", sock.fileno()))
    assert pair.other.sendmsg([b"!"], [rights], socket.MSG_OOB) == 1
    sock.close()
    pair.other.sendall(bytes(behind))
    began = time.monotonic()
    assert pair.read() == b"a frame"
    assert pair.read() == pair.read() == DESCRIPTOR
    assert time.monotonic() - began < AT_ONCE_S
    reader.close()


@pytest.mark.parametrize("size", [1, 7, 28, 65536])
def test_reads_of_any_size_end_there(pair, null, size):
    pair.other.sendall(b"a frame")
    pair.other.sendall(b" and another")
    pass_on(pair.other, b"\0", null)
    came = b""
    while isinstance(part := pair.read(size), bytes):
        assert len(part) <= size
        came += part
    assert (came, part) == (b"a frame and another", DESCRIPTOR)


def send_urgently(sock, content):
    assert sock.send(content, socket.MSG_OOB) == len(content)


def test_urgent_bytes_are_like_any_others(pair):
    """One that is passed over stays, and the socket is readable for ever."""
    send_urgently(pair.other, b"1")
    pair.other.sendall(b"2")
    send_urgently(pair.other, b"3")
    came = b""
    while isinstance(part := pair.read(), bytes):
        came += part
    assert (came, part) == (b"123", NOTHING)
    assert select.select([pair.endpoint], [], [], 0) == ([], [], [])


def test_a_splice_takes_urgent_bytes_in_their_turn(pair, pipe):
    pair.other.sendall(b"1")
    send_urgently(pair.other, b"2")
    pair.other.sendall(b"3")
    while pair.endpoint.splice_to(pipe[1], 100) > 0:
        pass
    assert os.read(pipe[0], 100) == b"123"


def test_without_any_a_read_is_a_read(pair):
    assert pair.read() == NOTHING
    pair.other.sendall(bytes(100_000))
    assert len(pair.read()) == 65536
    assert len(pair.read()) == 100_000 - 65536
    assert pair.read() == NOTHING
    pair.other.shutdown(socket.SHUT_WR)
    assert pair.read() == b""


def test_a_splice_takes_nothing_while_there_are_some(pair, null, pipe):
    pair.other.sendall(bytes(1000))
    assert bytes_without(pair.endpoint._sock) == 1000
    assert pair.endpoint.splice_to(pipe[1], 100) == 100
    pass_on(pair.other, b"\0", null)
    assert bytes_without(pair.endpoint._sock) == 0
    assert pair.endpoint.splice_to(pipe[1], 100) == NOTHING
    assert len(pair.read()) == 900


@pytest.fixture
def pipe():
    ends = os.pipe2(os.O_NONBLOCK)
    yield ends
    for each in ends:
        os.close(each)


@pytest.mark.usefixtures("older_kernel")
def test_a_kernel_that_cannot_refuse_them_is_looked_at_from_the_beginning(null):
    pair = Pair(taking=False)
    pair.other.sendall(b"hello")
    pass_on(pair.other, b"\0", null)
    assert pair.read() == b"hello"
    assert pair.read() == DESCRIPTOR
    pair.close()


@pytest.mark.usefixtures("older_kernel")
def test_below_a_security_layer_they_are_seen_as_well(null):
    other, near = socket.socketpair()
    endpoint = SaslEndpoint(UnixEndpoint(near), FakeLayer(1000))
    view = memoryview(bytearray(1000))
    assert endpoint.read_into(view) == NOTHING
    pass_on(other, b"\0", null)
    assert endpoint.read_into(view) == DESCRIPTOR
    endpoint.close()
    other.close()


def test_a_socket_says_whether_any_are_left_in_it(null):
    for left, sent in ((False, ()), (True, (null,)), (True, (null,) * 200)):
        pair = Pair()
        pair.other.sendall(bytes(1000))
        if sent:
            pass_on(pair.other, b"\0", *sent)
        assert cut_off(pair.endpoint._sock) is left
        with pytest.raises(BrokenPipeError):
            pair.other.send(b"more")
        pair.close()


@pytest.mark.parametrize("many", [1, 20])
def test_what_is_left_in_a_queue_lingers_somewhere_else(many):
    """Each of these would wait for its peer for a minute, and more of them than that."""
    pairs = [lingering() for _ in range(many)]
    ends = Pair()
    for _, sock in pairs:
        pass_on(ends.other, b"\0", sock.fileno())
        sock.close()
    began = time.monotonic()
    ends.endpoint.close()
    assert time.monotonic() - began < AT_ONCE_S
    assert COURIERS.dismiss(10)
    assert not COURIERS.hangs("uid 0")
    ends.other.close()
    for reader, _ in pairs:
        reader.close()


def test_closing_twice_is_harmless(pair):
    pair.endpoint.close()
    pair.endpoint.close()


def test_a_plain_endpoint_has_nothing_to_look_for():
    other, near = socket.socketpair()
    endpoint = PlainEndpoint(near)
    assert endpoint.plain_bytes(memoryview(bytearray(10))) == 10
    endpoint.close()
    other.close()
