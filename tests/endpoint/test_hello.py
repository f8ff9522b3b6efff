"""A ClientHello: real ones of OpenSSL and GnuTLS, cut, damaged and hostile ones."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from proxyd.endpoint.handshake import LONGEST_HANDSHAKE
from proxyd.endpoint.hello import offered_signatures
from proxyd.tls.terms import NUMBERS
from tests.bed.pairs import tcp_pair
from tests.fakes.handshake import Client
from tests.fakes.tls import TLS_1_2, TLS_1_3, secured

OFFER = ("ed25519", "rsa_pss_rsae_sha384", "mldsa65", "ecdsa_secp256r1_sha256")


def hello_of(client):
    connection = SSL.Connection(client.context, None)
    connection.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(1 << 16)


HELLO = hello_of(Client(signatures=":".join(OFFER)))


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_an_endpoint_knows_what_its_client_has_offered(version):
    other, sock = tcp_pair()
    with other, sock:
        _, endpoint = secured(other, sock, version=version)
        assert NUMBERS["ecdsa_secp256r1_sha256"] in endpoint.offered


def test_where_openssl_reads_the_socket_itself_nobody_sees_the_offer(monkeypatch):
    monkeypatch.setattr("proxyd.endpoint.openssl.asks_kernel", lambda _: True)
    other, sock = tcp_pair()
    with other, sock:
        _, endpoint = secured(other, sock)
        assert endpoint.offered is None


def records(message, size=1 << 14, kind=22):
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(struct.pack(">BHH", kind, 0x0301, len(part)) + part for part in parts)


def made_up(extensions):
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += struct.pack(">H", len(extensions)) + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def extension(kind, content):
    return struct.pack(">HH", kind, len(content)) + content


def algorithms(count):
    return extension(13, struct.pack(">H", 2 * count) + b"\x08\x04" * count)


def test_the_offer_of_a_client_is_read_in_its_order():
    assert offered_signatures(HELLO) == tuple(NUMBERS[name] for name in OFFER)


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION, None])
def test_what_openssl_offers_by_itself_has_all_that_proxyd_can_make(version):
    offered = offered_signatures(hello_of(Client(version=version)))
    assert set(NUMBERS.values()) - set(offered) <= {0x0904, 0x0905, 0x0906}


@pytest.mark.parametrize("size", [1, 7, 100, 512])
def test_a_hello_may_come_in_many_records(size):
    assert offered_signatures(records(HELLO[5:], size)) == offered_signatures(HELLO)


def test_what_follows_the_hello_is_left_alone():
    more = HELLO + records(b"\x01", kind=20) + records(b"xyz", kind=23)
    assert offered_signatures(more) == offered_signatures(HELLO)


@given(st.integers(0, len(HELLO) - 1))
def test_a_hello_that_is_cut_off_is_unknown_or_read_as_far_as_it_goes(size):
    assert offered_signatures(HELLO[:size]) in (None, offered_signatures(HELLO))


@given(st.binary(max_size=400))
def test_any_bytes_are_no_error(data):
    for text in (data, records(data), records(b"\x01" + data), records(made_up(data))):
        found = offered_signatures(text)
        assert found is None or all(0 <= each < 1 << 16 for each in found)


@given(st.integers(5, len(HELLO) - 1), st.integers(0, 255))
def test_any_damage_is_no_error(at, value):
    damaged = HELLO[:at] + bytes([value]) + HELLO[at + 1 :]
    found = offered_signatures(damaged)
    assert found is None or len(found) <= 128


@pytest.mark.parametrize(
    ("extensions", "count"),
    [
        (algorithms(128), 128),
        (algorithms(129), None),
        (algorithms(16000), None),
        (extension(99, b"") * 63 + algorithms(3), 3),
        (extension(99, b"") * 64 + algorithms(3), None),
        (extension(99, b"") * 8000, None),
        (b"", None),
    ],
)
def test_no_loop_is_longer_than_it_needs_to_be(extensions, count):
    text = records(made_up(extensions))
    assert len(text) < LONGEST_HANDSHAKE
    found = offered_signatures(text)
    assert (None if found is None else len(found)) == count
