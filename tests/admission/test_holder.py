import os
import socket

import pytest

from proxyd.admission.holder import UNKNOWN_USERS, Rank, holder_of, site
from proxyd.config.transports import Transport
from tests.bed.command import effective
from tests.bed.pairs import tcp_pair


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_an_address_is_what_one_host_cannot_change_at_will(host, expected):
    assert site(host) == expected


def test_addresses_of_one_ipv6_network_are_one_holder():
    assert site("2001:db8::1") == site("2001:db8::ffff:1")


@pytest.mark.parametrize(("uid", "rank"), [(0, Rank.OWN), (65534, Rank.LOCAL)])
def test_a_user_of_this_host_is_known_by_the_kernels_word(uid, rank):
    with effective(uid, uid):
        near, far = socket.socketpair()
    with near, far:
        holder = holder_of(far, Transport.UNIX)
    assert (holder.name, holder.uid, holder.rank) == (f"uid {uid}", uid, rank)
    assert rank is not Rank.OWN or uid == os.geteuid()


def test_whom_the_kernel_does_not_name_is_one_of_the_unknown():
    near, far = tcp_pair()
    with near, far:
        far.shutdown(socket.SHUT_RDWR)
    assert holder_of(far, Transport.UNIX) == UNKNOWN_USERS


def test_a_client_of_the_network_is_its_address():
    near, far = tcp_pair()
    with near, far:
        holder = holder_of(far, Transport.TLS)
    assert (holder.name, holder.rank) == ("127.0.0.1", Rank.NETWORK)
