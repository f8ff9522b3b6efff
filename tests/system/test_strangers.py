"""Thousands of strangers of the network, and those who are served beside them."""

import socket
import statistics
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest

from proxyd.admission.capacity import Capacity
from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.command import held_open
from tests.bed.daemon import short_directory
from tests.bed.kdc import Kdc
from tests.bed.network import SERVER, two_hosts
from tests.bed.pki import Pki
from tests.bed.sasl import SERVICE
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, opened
from tests.system.tls_client import connected, host_and_port, opened_over_tls

pytestmark = pytest.mark.system

STRANGERS = 5000
ADDRESSES = 50
ROUNDS = 5
CRUMBLING = 300  # more than there may be in their handshake at one time
CRUMB_EVERY_S = 0.08  # before proxyd listens to such a one again
LOCAL_S = 0.1
TLS_S = 5.0
BURST = 64
DEADLINE_S = 30


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def joe(pki):
    return pki.client()


@pytest.fixture
def start(make_proxyd, pki):
    def start(*, environment=None, **config):
        network = {"listen_tls": 1, "listen_addr": "127.0.0.1", "tls_port": "0"}
        settings = {**network, **pki.settings(pki.server()), **config}
        return make_proxyd(settings, environment=environment)

    return start


@contextmanager
def half_open(address, count, addresses, *, where=()):
    """So many connections, renewed whenever they are closed."""
    host, port = host_and_port(address)
    command = [*where, sys.executable, "-m", "tests.fakes.half_open", host, port, count, *addresses]
    with held_open(list(map(str, command))) as strangers:
        assert strangers.stdout.readline() == "begun\n"
        yield


def works(client):
    return client.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK


def timed(block, *arguments):
    """How long it takes until a session is open and a call is answered, in seconds."""
    began = time.monotonic()
    with block(*arguments) as client:
        assert works(client)
    return time.monotonic() - began


def addresses_in(network):
    return [f"{network}.0.{number + 1}" for number in range(ADDRESSES)]


def beside_thousands(front, strangers, visit):
    """How long a local client and one by TLS, which `visit` is, take beside so many strangers."""
    with strangers:
        held = Capacity.of(5000).callers
        wait_until(lambda: len(front.descriptors()) > held, DEADLINE_S, "the doorstep is full")
        local, remote = [], []
        for _ in range(ROUNDS):
            remote.append(visit())
            local.append(timed(opened, front.sock))
    log = front.log_text()
    assert log.count("more callers from the network than there is room for") == 1
    assert "it kept us waiting" in log
    assert "Traceback" not in log
    wait_until(lambda: len(front.descriptors()) < 100, DEADLINE_S, "every descriptor is given back")
    return local, remote


def test_thousands_of_half_open_connections_keep_nobody_waiting_for_long(start, joe):
    front = start()
    address = front.tls_address()
    strangers = half_open(address, STRANGERS, addresses_in("127.77"))

    local, remote = beside_thousands(front, strangers, lambda: timed(opened_over_tls, address, joe))

    assert statistics.median(local) < LOCAL_S
    assert max(remote) < TLS_S


def test_thousands_from_another_host_keep_nobody_waiting_for_long(start, joe, monkeypatch, capsys):
    addresses = addresses_in("10.78")
    with two_hosts(addresses) as (server, others):
        monkeypatch.setattr("tests.bed.proxyd.WRAPPER", server.command)
        front = start(listen_addr=SERVER)
        address = front.tls_address(SERVER)
        strangers = half_open(address, STRANGERS, addresses, where=others.command)

        local, remote = beside_thousands(
            front,
            strangers,
            lambda: others.run(lambda: timed(opened_over_tls, address, joe)),
        )
        front.stop()

    with capsys.disabled():
        print(f"\nbeside {STRANGERS} strangers: local {local}, by TLS {remote} s")
    assert statistics.median(local) < LOCAL_S
    assert max(remote) < TLS_S


def test_a_burst_from_one_address_waits_its_turn_and_is_served(start, joe):
    front = start(max_clients=BURST, max_anonymous_clients=20)
    address = front.tls_address()
    served = []

    def visit():
        served.append(timed(opened_over_tls, address, joe))

    visitors = [threading.Thread(target=visit) for _ in range(BURST)]
    for each in visitors:
        each.start()
    for each in visitors:
        each.join(DEADLINE_S)

    assert len(served) == BURST


def test_strangers_who_say_nothing_by_tcp_make_way_for_who_has_something_to_say(start):
    front = start(listen_tcp=1, tcp_port="0", auth_tcp="none", max_clients=20)
    address = front.tcp_address()
    with ExitStack() as stack:
        for _ in range(3 * Capacity.of(20).callers):
            stack.enter_context(connected(address))

        with connected(address) as sock:
            client = RpcClient(sock)
            assert client.open("test:///default").header.status == Status.OK
            assert works(client)
    assert "Traceback" not in front.log_text()


@contextmanager
def crumbling(address):
    """One address whose handshakes go on and on: whenever proxyd would wait, a byte is there."""
    hello = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03" + bytes(16384)
    stop = threading.Event()
    with ExitStack() as stack:
        socks = [
            stack.enter_context(connected_from(address, "127.88.0.1")) for _ in range(CRUMBLING)
        ]

        def crumble():
            for byte in hello:
                for sock in socks:
                    with suppress(OSError):  # its place was needed
                        sock.send(bytes([byte]))
                if stop.wait(CRUMB_EVERY_S):
                    return

        thread = threading.Thread(target=crumble)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def connected_from(address, source):
    return socket.create_connection(host_and_port(address), DEADLINE_S, (source, 0))


def test_a_hello_that_comes_byte_by_byte_for_ever_is_no_reason_for_others_to_wait(start, joe):
    front = start()
    address = front.tls_address()
    with crumbling(address):
        crowd = Capacity.of(5000).handshakes
        wait_until(lambda: len(front.descriptors()) > crowd, DEADLINE_S, "the crowd is full")
        for _ in range(3):
            assert timed(opened_over_tls, address, joe) < TLS_S
    assert "its place was needed" in front.log_text()


@pytest.mark.parametrize("way", ["tcp", "tls"])
def test_one_address_that_fills_places_and_doorstep_is_seen_past(start, joe, way):
    tcp = {"listen_tcp": 1, "tcp_port": "0", "auth_tcp": "sasl"}
    with short_directory() as directory, Kdc(directory) as kdc:
        kdc.add(SERVICE)
        front = start(
            environment=kdc.environment,
            **tcp,
            max_clients=5,
            max_anonymous_clients=5,
            proxyd_keytab=str(kdc.keytab(SERVICE)),
        )
        address = front.tls_address()
        attacked = front.tcp_address() if way == "tcp" else address
        stop = threading.Event()

        def attack():
            with ExitStack() as stack:
                while not stop.is_set():
                    with suppress(OSError):
                        sock = stack.enter_context(connected_from(attacked, "127.88.0.1"))
                        sock.send(b"\x16" if way == "tls" else b"\0")
                    stop.wait(0.02)

        attackers = threading.Thread(target=attack)
        attackers.start()
        try:
            wait_until(
                lambda: f"no room for more clients by {way.upper()}" in front.log_text(),
                DEADLINE_S,
                "places and doorstep are full",
            )
            for _ in range(3):
                assert timed(opened_over_tls, address, joe) < TLS_S
        finally:
            stop.set()
            attackers.join()
