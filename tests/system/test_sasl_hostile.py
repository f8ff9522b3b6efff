"""Clients that stop, repeat, or lie in the middle of SASL, and tokens that were tampered with."""

import os
import time
from contextlib import ExitStack

import pytest

from proxyd.wire import remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.pairs import closes
from tests.bed.proxyd_log import log_line
from tests.bed.sasl import SERVICE, tcp_uri, with_tickets
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, opened
from tests.system.sasl_client import CONFIDENTIALITY, authenticate, by_gssapi, login, start, step
from tests.system.tls_client import connected

pytestmark = pytest.mark.system

TIMEOUT_S = 3
LONG_TIMEOUT_S = 10  # for five virsh, on a busy machine
STUCK = 30


@pytest.fixture(scope="module")
def tickets(kdc):
    return kdc.tickets("joe")


@pytest.fixture(scope="module")
def keytab(kdc):
    return kdc.keytab(SERVICE)


@pytest.fixture
def listening(make_proxyd, kdc, keytab, monkeypatch):
    """Starts a proxyd with a TCP listener; libkrb5 of this process knows the same realm."""
    monkeypatch.setenv("KRB5_CONFIG", str(kdc.config))

    def listening(**config):
        settings = {
            "listen_tcp": 1,
            "listen_addr": "127.0.0.1",
            "tcp_port": "0",
            "proxyd_keytab": str(keytab),
            "proxyd_handshake_timeout": TIMEOUT_S,
            **config,
        }
        return make_proxyd(settings, environment=kdc.environment)

    return listening


def fails(reply):
    """Whether a reply is the one that SASL gives for every reason."""
    said = Failure.unpack(reply.payload)
    return reply.header.status == Status.ERROR and (said.code, said.domain) == (45, 7)


def test_clients_that_stop_in_the_middle_make_way_for_others_or_are_cut_off_at_the_deadline(
    listening, kdc, tickets
):
    front = listening(max_anonymous_clients=20, proxyd_handshake_timeout=LONG_TIMEOUT_S)
    began = time.monotonic()
    with ExitStack() as stack:
        for _ in range(STUCK):
            stuck = RpcClient(stack.enter_context(connected(front.tcp_address())))
            # The first ones are served, the rest waits for one of them to be silent for too long.
            stuck.send(stuck.frame(Remote.AUTH_LIST) + stuck.frame(Remote.AUTH_SASL_INIT))
            begun = remote.SaslStart("GSSAPI", login(tickets, encrypts=True).step())
            stuck.send(stuck.frame(Remote.AUTH_SASL_START, begun.pack()))
        assert "20 of 20 unauthenticated" in log_line(front, "no room for more clients by TCP")

        # Nobody of this host waits for them.
        for _ in range(5):
            virsh(unix_uri("test:///default", front.sock), "list").succeeded()
        assert time.monotonic() - began < LONG_TIMEOUT_S

        # And a client with a ticket gets in before their time is over.
        uri = tcp_uri("test:///default", front.tcp_address())
        virsh(uri, "list", environment=with_tickets(kdc, tickets)).succeeded()
        assert time.monotonic() - began < LONG_TIMEOUT_S
    assert "it kept us waiting for 1." in front.log_text()
    assert "Traceback" not in front.log_text()


def test_nothing_is_answered_before_the_exchange_is_over(listening, tickets):
    front = listening()
    with connected(front.tcp_address()) as sock:
        client, context = RpcClient(sock), login(tickets, encrypts=True)
        context.step(start(client, context).data)
        opening = remote.OpenArguments("test:///default", 0).pack()
        for payload in (opening, b""):
            refused = client.call(Remote.CONNECT_OPEN, payload)
            assert Failure.unpack(refused.payload).message == "authentication required"
        # The attempt goes on as if nothing had been asked.
        assert step(client, None).data


def test_a_second_start_ends_the_attempt_and_a_third_one_works(listening, tickets):
    front = listening()
    with connected(front.tcp_address()) as sock:
        client, context = RpcClient(sock), login(tickets, encrypts=True)
        context.step(start(client, context).data)
        again = remote.SaslStart("GSSAPI", login(tickets, encrypts=True).step()).pack()
        assert fails(client.call(Remote.AUTH_SASL_START, again))
        assert fails(client.call(Remote.AUTH_SASL_STEP, remote.pack_sasl_step(None)))
        authenticate(client, login(tickets, encrypts=True), layer=CONFIDENTIALITY)


def test_nobody_becomes_somebody_else_afterwards(listening, tickets):
    front = listening()
    with by_gssapi(front.tcp_address(), tickets, uri=None) as client:
        for procedure, payload in (
            (Remote.AUTH_SASL_INIT, b""),
            (Remote.AUTH_SASL_START, remote.SaslStart("GSSAPI", b"").pack()),
            (Remote.AUTH_SASL_STEP, remote.pack_sasl_step(b"")),
        ):
            assert fails(client.call(procedure, payload))
        reply = client.call(Remote.CONNECT_OPEN, remote.OpenArguments("test:///default", 0).pack())
        assert reply.header.status == Status.OK
        # Nor by the daemon's own call: the relay takes it out.
        renamed = client.call(Remote.CONNECT_SET_IDENTITY, remote.pack_identity([]))
        assert renamed.header.status == Status.ERROR
    assert log_line(front, "1 attempts to replace its identity or connection refused")


@pytest.mark.parametrize("data", [None, b"", b"\x60", os.urandom(1000), bytes(65536)])
def test_garbage_for_a_token_fails_and_the_next_attempt_works(listening, tickets, data):
    front = listening()
    with connected(front.tcp_address()) as sock:
        client = RpcClient(sock)
        client.call(Remote.AUTH_SASL_INIT)
        said = client.call(Remote.AUTH_SASL_START, remote.SaslStart("GSSAPI", data).pack())
        if data is None:  # the token comes with the first step
            assert remote.SaslReply.unpack(said.payload) == remote.SaslReply(False, b"")
            said = client.call(Remote.AUTH_SASL_STEP, remote.pack_sasl_step(b"garbage"))
        assert fails(said)
        authenticate(client, login(tickets, encrypts=True), layer=CONFIDENTIALITY)
    assert log_line(front, "GSSAPI: ")
    assert "Traceback" not in front.log_text()


def test_bytes_in_the_clear_after_the_exchange_end_it(listening, tickets):
    front = listening()
    with connected(front.tcp_address()) as sock:
        client = RpcClient(sock)
        authenticate(client, login(tickets, encrypts=True), layer=CONFIDENTIALITY)
        opening = remote.OpenArguments("test:///default", 0).pack()
        # The first frame's length is short of a token's by its own four bytes.
        client.send(client.frame(Remote.CONNECT_OPEN, opening) + bytes(4))
        closes(sock)
    assert "SASL: " in log_line(front, "ended before a session was open: tcp")


def test_one_flipped_bit_ends_that_session_and_no_other(listening, tickets):
    front = listening()
    address = front.tcp_address()
    with by_gssapi(address, tickets) as other, by_gssapi(address, tickets) as client:
        layer = client.sock
        assert client.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
        token = bytearray(layer.token(client.frame(Remote.CONNECT_GET_LIB_VERSION)))
        token[-20] ^= 4
        layer.sock.sendall(token)
        closes(layer.sock)
        assert "the client is gone: SASL: " in log_line(front, "ended: tcp")
        assert other.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK


def test_a_token_that_comes_twice_ends_the_session(listening, tickets):
    front = listening()
    with by_gssapi(front.tcp_address(), tickets) as client:
        token = client.sock.token(client.frame(Remote.CONNECT_GET_LIB_VERSION))
        client.sock.sock.sendall(token)
        assert client.receive().header.status == Status.OK
        client.sock.sock.sendall(token)
        closes(client.sock.sock)
    assert "SASL: " in log_line(front, "ended: tcp")


def test_calls_in_any_cut_are_answered_each(listening, tickets):
    """Many calls in one token, one call in many, tokens in bytes of one."""
    front = listening()
    with by_gssapi(front.tcp_address(), tickets) as client:
        call = Remote.CONNECT_GET_LIB_VERSION
        client.send(b"".join(client.frame(call) for _ in range(100)))
        for byte in client.frame(call):
            client.send(bytes([byte]))
        for byte in client.sock.token(client.frame(call)):
            client.sock.sock.sendall(bytes([byte]))
        serials = {client.receive().header.serial for _ in range(102)}
        assert len(serials) == 102


def test_a_layer_that_was_negotiated_in_a_read_only_session_holds_as_well(listening, tickets):
    front = listening()
    with by_gssapi(front.tcp_address(), tickets, uri=None) as client:
        opening = remote.OpenArguments("test:///default", remote.OPEN_READONLY).pack()
        assert client.call(Remote.CONNECT_OPEN, opening).header.status == Status.OK
        assert client.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK


def test_everything_is_given_back(listening, tickets):
    front = listening()
    with opened(front.sock):
        pass
    wait_until(lambda: "session 2 ended" in front.log_text(), 10, "it is gone")
    with by_gssapi(front.tcp_address(), tickets):
        pass
    descriptors = wait_until(lambda: settled(front), 10, "descriptors are settled")
    for _ in range(20):
        with by_gssapi(front.tcp_address(), tickets) as client:
            client.call(Remote.CONNECT_GET_LIB_VERSION)
    wait_until(lambda: len(front.descriptors()) <= descriptors, 10, "every descriptor is back")


def settled(front):
    sessions = sum(" opened: " in line for line in front.log_text().splitlines())
    ends = sum(" ended: " in line for line in front.log_text().splitlines())
    return len(front.descriptors()) if sessions == ends else 0
