"""Descriptors whose close waits: they hold up nobody who reads."""

import os
import socket
import struct
import threading
import time

import pytest

from proxyd.endpoint import disposal
from proxyd.endpoint.disposal import all_closed, close_delivered, close_refused
from proxyd.endpoint.plain import UnixEndpoint
from tests.endpoint.test_contract import tcp_pair
from tests.fakes.lingering import lingering

AT_ONCE_S = 1.0


@pytest.mark.parametrize("count", [1, 3])
def test_sockets_that_linger_are_cut_off(count):
    near, far = socket.socketpair()
    endpoint = UnixEndpoint(far)
    pairs = [lingering() for _ in range(count)]
    socket.send_fds(near, [b"\0"], [sock.fileno() for _, sock in pairs])
    for _, sock in pairs:
        sock.close()  # ours is the last one then
    began = time.monotonic()
    assert endpoint.read_into(memoryview(bytearray(100))) == 1
    endpoint.drop_descriptors()
    assert all_closed(10)
    assert time.monotonic() - began < AT_ONCE_S
    for reader, _ in pairs:
        reader.close()
    endpoint.close()
    near.close()


@pytest.mark.parametrize("close", [close_refused, close_delivered])
def test_a_close_that_waits_holds_up_neither_the_caller_nor_the_next_one(monkeypatch, close):
    stuck, go_on = threading.Event(), threading.Event()
    held, free = os.dup(0), os.dup(0)

    def slow(descriptor, close=os.close):
        if descriptor == held:
            stuck.set()
            assert go_on.wait(10)
        close(descriptor)

    monkeypatch.setattr(disposal.os, "close", slow)
    close(held)
    assert stuck.wait(10)
    close(free)
    assert not all_closed(0.2)
    assert not os.path.exists(f"/proc/self/fd/{free}")
    go_on.set()
    assert all_closed(10)
    assert not os.path.exists(f"/proc/self/fd/{held}")


def test_a_socket_that_was_delivered_is_not_cut_off():
    reader, sock = tcp_pair()
    close_delivered(os.dup(sock.fileno()))
    assert all_closed(10)
    assert struct.unpack("@ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (0, 0)
    sock.close()
    reader.close()
