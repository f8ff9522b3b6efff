"""TLS peers that say nothing, say nonsense or stop half-way, and certificates that change."""

import os
import socket
import ssl
import threading
import time
from contextlib import ExitStack

import pytest

from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.pairs import TIMEOUT_S, closes
from tests.bed.pki import Pki, write_certificates
from tests.bed.proxyd_log import log_line, reload
from tests.bed.virsh import tls_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.tls_client import client_context, connected, opened_over_tls

pytestmark = pytest.mark.system

SILENT = 40
GARBAGE = 20
CLIENTS = 10
RELOADS = 5


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def joe(pki):
    return pki.client()


@pytest.fixture
def start(make_proxyd, pki):
    def start(**config):
        settings = {
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tls_port": "0",
            "proxyd_handshake_timeout": TIMEOUT_S,
            **pki.settings(pki.server()),
        }
        return make_proxyd({**settings, **config})

    return start


def client_hello(pkipath):
    """The first flight of a handshake that is never finished."""
    outgoing = ssl.MemoryBIO()
    unfinished = client_context(pkipath).wrap_bio(ssl.MemoryBIO(), outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        unfinished.do_handshake()
    return outgoing.read()


def test_silent_and_babbling_peers_are_dropped_at_the_deadline_and_delay_nobody(start, pki, joe):
    front = start()
    address = front.tls_address()
    hello = client_hello(joe)
    # The bed's own client, which waited for the socket, counts for nothing.
    wait_until(lambda: "client 1 ended" in front.log_text(), 10, "the bed's client is gone")
    descriptors = len(front.descriptors())
    with ExitStack() as stack, opened_over_tls(address, joe) as living:
        silent = [stack.enter_context(connected(address)) for _ in range(SILENT)]
        for number, each in enumerate(silent):
            if number % 2:  # half of them stop in the middle of the handshake
                each.sendall(hello if number % 4 == 1 else hello[:100])
        began = time.monotonic()
        for _ in range(GARBAGE):
            each = stack.enter_context(connected(address))
            each.sendall(os.urandom(3000))
            # It never was TLS, so nothing is waited for.
            assert closes(each) < TIMEOUT_S
        slowest = 0.0
        while time.monotonic() - began < TIMEOUT_S / 2:
            called = time.monotonic()
            assert living.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
            slowest = max(slowest, time.monotonic() - called)
        with opened_over_tls(address, joe) as another:  # a new client is served beside them
            assert another.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
        assert time.monotonic() - began < TIMEOUT_S, "the new client waited for the silent ones"
        assert slowest < 0.5

        for each in silent:
            closes(each)
        assert time.monotonic() - began < 2 * TIMEOUT_S
        assert living.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
    late, silent_ones = (f"{what} {TIMEOUT_S} s" for what in ("took longer than", "nothing within"))
    # A line may be written after its client has seen that it is closed.
    wait_until(
        lambda: front.log_text().count(late) + front.log_text().count(silent_ones) >= SILENT,
        10,
        "the lines about all of them",
    )
    log = front.log_text()
    assert log.count(f"the TLS handshake {late}") == SILENT / 2
    assert log.count(f"sent {silent_ones}") == SILENT / 2
    assert log.count("no TLS: ") == GARBAGE
    assert "Traceback" not in log
    wait_until(
        lambda: len(front.descriptors()) <= descriptors, 10, "every descriptor is given back"
    )
    virsh(tls_uri("test:///default", address, joe), "list").succeeded()


def test_a_client_without_tls_is_told_apart_in_the_log(start):
    front = start()
    with connected(front.tls_address()) as plain:
        plain.sendall(b"\0\0\0\x1c\x20\0\x80\x86" + bytes(20))
        closes(plain)
    assert "its URI has to say +tls" in log_line(front, "no TLS: ")


def test_a_client_that_is_let_in_and_says_nothing_is_dropped_at_the_deadline(start, joe):
    front = start()
    with client_context(joe).wrap_socket(connected(front.tls_address())) as idle:
        assert idle.recv(1) == b"\x01"
        assert closes(idle) < 2 * TIMEOUT_S
    assert "no connection was opened within" in log_line(front, "x509 'CN=joe'")


def test_a_client_that_resets_at_any_moment_leaves_nothing_behind(start, joe):
    front = start()
    address = front.tls_address()
    virsh(tls_uri("test:///default", address, joe), "list").succeeded()
    wait_until(lambda: "session 2 ended" in front.log_text(), 10, "virsh is gone")
    descriptors = len(front.descriptors())
    hello = client_hello(joe)
    for length in (0, 1, 50, len(hello)):
        with connected(address) as sock:
            sock.sendall(hello[:length])
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: len(front.descriptors()) == descriptors, 10, "every descriptor is back")
    virsh(tls_uri("test:///default", address, joe), "list").succeeded()
    assert "Traceback" not in front.log_text()


def test_a_message_in_many_small_records_is_a_message(start, joe):
    front = start()
    with opened_over_tls(front.tls_address(), joe) as client:
        for byte in client.frame(Remote.CONNECT_GET_LIB_VERSION):
            client.send(bytes([byte]))
        assert client.receive().header.status == Status.OK


def test_many_calls_in_one_record_are_answered_each(start, joe):
    front = start()
    with opened_over_tls(front.tls_address(), joe) as client:
        client.send(b"".join(client.frame(Remote.CONNECT_GET_LIB_VERSION) for _ in range(100)))
        serials = {client.receive().header.serial for _ in range(100)}
        assert len(serials) == 100


def test_certificates_change_under_ten_clients_and_no_call_fails(start, tmp_path):
    pki = Pki(tmp_path / "pki")
    server, joe = pki.server(), pki.client()
    front = start(**pki.settings(server))
    address = front.tls_address()
    stop, failures, counts = threading.Event(), [], [0] * CLIENTS

    def ping_pong(number):
        try:
            while not stop.is_set():
                # Half stay connected, half come anew again and again.
                with opened_over_tls(address, joe) as client:
                    while not stop.is_set():
                        reply = client.call(Remote.CONNECT_GET_LIB_VERSION)
                        assert reply.header.status == Status.OK
                        counts[number] += 1
                        if number % 2 and counts[number] % 20 == 0:
                            break
        except Exception as failure:  # noqa: BLE001 (reported by the test's own thread)
            failures.append(failure)

    threads = [threading.Thread(target=ping_pong, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(RELOADS):
            before = list(counts)
            wait_until(
                lambda before=before: (
                    failures or all(now > then for now, then in zip(counts, before, strict=True))
                ),
                30,
                "every client goes on",
            )
            renewed = pki.server(key=server.key)
            write_certificates(server.cert_file, renewed.certificate)
            reload(front)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not failures
    assert min(counts) > RELOADS
    with client_context(joe).wrap_socket(connected(address)) as sock:
        serial = int(sock.getpeercert()["serialNumber"], 16)
    assert serial == renewed.certificate.serial_number
    assert front.log_text().count("configuration reloaded") == RELOADS
