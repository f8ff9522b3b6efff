"""What an accepted TCP connection is set to."""

import socket

import pytest

from proxyd.endpoint.tcp import tune

TCP = socket.IPPROTO_TCP


@pytest.fixture
def sock(no_descriptor_leaks):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        yield made


def test_small_frames_go_out_at_once_and_silence_is_probed(sock):
    tune(sock, interval_s=7, count=3)
    assert sock.getsockopt(TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    assert [sock.getsockopt(TCP, option) for option in options] == [7, 7, 3]


def test_little_waits_in_the_socket_in_front_of_the_next_frame(sock):
    tune(sock, interval_s=7, count=3)
    assert 0 < sock.getsockopt(TCP, socket.TCP_NOTSENT_LOWAT) <= 256 * 1024


def test_a_peer_that_is_alive_and_does_not_read_is_not_timed_out(sock):
    tune(sock, interval_s=7, count=3)
    assert sock.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 0


@pytest.mark.parametrize("interval_s", [0, -1])
def test_without_an_interval_nothing_is_probed(sock, interval_s):
    tune(sock, interval_s=interval_s, count=5)
    assert sock.getsockopt(TCP, socket.TCP_NODELAY)
    assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize(("interval_s", "count"), [(2**31 - 1, 2**32 - 1), (1, 0)])
def test_more_than_the_kernel_takes_is_the_most_that_it_takes(sock, interval_s, count):
    tune(sock, interval_s=interval_s, count=count)
    assert sock.getsockopt(TCP, socket.TCP_KEEPIDLE) == min(interval_s, 32767)
    assert sock.getsockopt(TCP, socket.TCP_KEEPCNT) == (127 if count else 1)
