"""Floods of connections, and of wrong passwords, and those who are served beside them."""

import re
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from contextlib import ExitStack, contextmanager

import pytest

from proxyd.cli.admin_client import Connection
from proxyd.sasl.passwords import PasswordFile
from proxyd.wire import remote
from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.command import held_open
from tests.bed.network import two_hosts
from tests.bed.pki import Pki
from tests.bed.proxyd_log import log_line, reload
from tests.bed.sasl import SERVICE, auth_file, tcp_uri, with_tickets
from tests.bed.virsh import tls_uri, unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, opened, rpc_client
from tests.system.test_metrics import scraped
from tests.system.tls_client import LET_IN, tls_connected

pytestmark = pytest.mark.system

NOBODY = 65534
KNOCKS = 500
RATE, BURST = 5, 10
FLOOD = {"proxyd_connection_rate": RATE, "proxyd_connection_burst": BURST}
OPEN = {"unix_sock_rw_perms": "0777"}
TCP = {"listen_tcp": 1, "listen_addr": "127.0.0.1", "tcp_port": "0", "auth_tcp": "none"}
PASSWORD = "correct horse, battery"
LIMIT = 6
GUESSES = 200


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def joe(pki):
    return pki.client()


@pytest.fixture(scope="module")
def passwords(tmp_path_factory):
    path = tmp_path_factory.mktemp("passwords") / "proxyd-passwords"
    for name in ("ann", "bob"):
        PasswordFile(str(path)).set_password(name, PASSWORD)
    return path


@contextmanager
def knocking(*where, count=KNOCKS, before=(), **options):
    """Somebody who is ready to."""
    command = [*before, sys.executable, "-m", "tests.fakes.knocker", str(count), *map(str, where)]
    with held_open(command, **options) as knocker:
        assert knocker.stdout.readline() == "ready\n"

        def knock():
            knocker.stdin.write("\n")
            knocker.stdin.flush()
            answered, told, closed, seconds = map(float, knocker.stdout.readline().split())
            assert answered + told + closed == count
            return answered, told, closed, seconds

        yield knock


def most(seconds):
    """How many may come in within this time."""
    return BURST + RATE * seconds + 1


def at(address):
    host, _, port = address.rpartition(":")
    return host.strip("[]"), port


def works(client):
    return client.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK


# ---- connections


def test_a_flood_of_a_user_is_refused_and_nobody_else_is(make_proxyd):
    front = make_proxyd({**FLOOD, **OPEN, "proxyd_metrics_listen": "127.0.0.1:0"}, mode=0o711)
    with knocking(front.sock, user=NOBODY) as knock, opened(front.sock) as roots:
        answered, told, closed, seconds = knock()
        assert BURST <= answered <= most(seconds)
        assert told >= 1
        assert closed > KNOCKS / 2
        assert works(roots)
        virsh(unix_uri("test:///default", front.sock), "list").succeeded()
    assert "from uid 65534: turned away: Too many connections" in log_line(front, "turned away")
    assert front.log_text().count("turned away") <= 1 + told
    assert front.log_text().count("warning : ") < 5
    figures = scraped(front)
    assert figures["proxyd_refusals_total", "rate"] == told + closed
    with Connection.open(str(front.admin_sock)) as connection:
        assert connection.status(ask_daemons=False)["limits"]["over_rate"] == ["uid 65534"]
    assert "Traceback" not in front.log_text()


def test_virsh_says_what_is_wrong_and_is_served_a_moment_later(make_proxyd):
    front = make_proxyd({**TCP, "proxyd_connection_rate": 1, "proxyd_connection_burst": 1})
    uri = f"test+tcp://{front.tcp_address()}/default"
    virsh(uri, "list").succeeded()
    refused = virsh(uri, "list")
    while refused.status == 0:  # a slow machine, where a second had passed
        refused = virsh(uri, "list")
    assert "Too many connections: 127.0.0.1 begins more than 1 a second" in refused.stderr
    wait_until(lambda: virsh(uri, "list").status == 0, 10, "it is served")


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_flood_from_an_address_is_refused_before_anything_is_done_for_it(
    make_proxyd, pki, transport
):
    settings, says = {**FLOOD, **TCP}, {}
    if transport == "tls":
        settings |= {"listen_tls": 1, "tls_port": "0", **pki.settings(pki.server())}
        says = {"PROXYD_TEST_HELLO": "1"}
    front = make_proxyd(settings)
    address = front.tls_address() if transport == "tls" else front.tcp_address()
    with knocking(*at(address), environment=says) as knock, opened(front.sock) as client:
        answered, told, closed, seconds = knock()
        assert works(client)
    assert 0 < answered <= most(seconds)
    assert (told > 0) == (transport == "tcp")
    assert closed > KNOCKS / 2
    assert front.log_text().count(f"{transport}") < 3 * BURST + RATE * seconds + 20
    wait_until(lambda: len(front.descriptors()) < 60, 10, "every descriptor is given back")


def test_all_addresses_of_a_network_of_ipv6_are_one_and_the_next_network_is_not(
    make_proxyd, monkeypatch
):
    flood = [f"fd77::1:0:0:0:{number:x}" for number in range(1, 51)]
    with two_hosts([]) as (server, others):
        for host, addresses in ((server, ["fd77::1"]), (others, [*flood, "fd77::2:0:0:0:1"])):
            for each in addresses:
                command = ("address", "add", f"{each}/16", "dev", "cable", "nodad")
                subprocess.run(["ip", "-n", host.name, "-6", *command], check=True)
        monkeypatch.setattr("tests.bed.proxyd.WRAPPER", server.command)
        front = make_proxyd({**FLOOD, **TCP, "listen_addr": "fd77::1"})
        port = front.tcp_address("fd77::1").rpartition(":")[2]
        with (
            knocking("fd77::1", port, *flood, before=others.command) as knock,
            knocking("fd77::1", port, "fd77::2:0:0:0:1", count=5, before=others.command) as other,
        ):
            answered, _, _, seconds = knock()
            assert answered <= most(seconds)
            answered, told, closed, _ = other()
            assert (answered, told, closed) == (5, 0, 0)
        assert "from fd77:0:0:1::/64: turned away" in log_line(front, "turned away")
        front.stop()


def test_a_reload_changes_the_rate_in_the_midst_of_a_flood(make_proxyd):
    front = make_proxyd({**FLOOD, **OPEN}, mode=0o711)
    config = {"unix_sock_rw_perms": "0777", "proxyd_routes": []}
    with knocking(front.sock, count=100, user=NOBODY) as knock:
        assert knock()[0] < 100
        front.configure({**config, "proxyd_connection_rate": 0})
        reload(front)
        assert knock()[0] == 100
        front.configure({**config, **FLOOD})
        reload(front)
        answered, _, _, seconds = knock()
        assert answered <= most(seconds)


# ---- logins


@pytest.fixture
def guarded(make_proxyd, pki, passwords):
    """Starts a proxyd that asks for passwords by TLS and UNIX."""

    def guarded(**config):
        settings = {
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tls_port": "0",
            "auth_tls": "sasl",
            "auth_unix_rw": "sasl",
            "proxyd_passwords": str(passwords),
            "proxyd_sasl_mechanisms": ["SCRAM-SHA-256"],
            "proxyd_login_failures": LIMIT,
            "proxyd_metrics_listen": "127.0.0.1:0",
            **OPEN,
            **pki.settings(pki.server()),
            **config,
        }
        return make_proxyd(settings, mode=0o711)

    return guarded


@pytest.fixture
def login(tmp_path, joe):
    """virsh with a name and a password, by TLS; how it went and how long it took."""

    def login(front, name, password=PASSWORD):
        file = auth_file(tmp_path / f"{name}-{len(password)}", name, password)
        address = f"localhost:{front.tls_address().rpartition(':')[2]}"
        uri = tls_uri("test:///default", address, joe, authfile=str(file))
        began = time.monotonic()
        return virsh(uri, "list"), time.monotonic() - began

    return login


def guess(client, name="ann"):
    """A wrong proof, which costs the one who guesses nothing; what was said to it."""
    client.call(Remote.AUTH_SASL_INIT)
    first = f"n,,n={name},r=abcdefghijklmnop".encode()
    said = client.call(Remote.AUTH_SASL_START, remote.SaslStart("SCRAM-SHA-256", first).pack())
    if said is None or said.header.status != Status.OK:
        return said
    data = remote.SaslReply.unpack(said.payload).data.decode()
    nonce = re.match("r=([^,]+),", data)[1]
    proof = b64encode(bytes(32)).decode()
    final = f"c=biws,r={nonce},p={proof}".encode()
    return client.call(Remote.AUTH_SASL_STEP, remote.pack_sasl_step(final))


def guessed(front, name="ann"):
    """One more on a connection of its own, by a user of this host; seconds that it took."""
    began = time.monotonic()
    with rpc_client(front.sock, user=NOBODY) as client:
        said = guess(client, name)
    assert said is None or said.header.status == Status.ERROR
    return time.monotonic() - began


@contextmanager
def many_guesses(front, count, name="ann"):
    """So many at one time, of the same user."""
    with ExitStack() as stack:
        # Here, for who connects is the whole process.
        clients = [stack.enter_context(rpc_client(front.sock, user=NOBODY)) for _ in range(count)]
        threads = [threading.Thread(target=guess, args=(each, name)) for each in clients]
        for each in threads:
            each.start()
        yield
        for each in threads:
            each.join(60)


def test_each_wrong_password_takes_longer_and_the_right_one_comes_in(guarded, login):
    front = guarded()
    login(front, "bob")[0].succeeded()
    took = []
    for _ in range(3):
        refused, seconds = login(front, "ann", "wrong")
        assert "authentication failed" in refused.stderr
        took.append(seconds)
    assert took[0] >= 0.25
    assert took[1] >= 0.5
    assert took[2] >= 1
    came_in, _ = login(front, "ann")
    came_in.succeeded()
    assert login(front, "ann")[1] < 2
    assert scraped(front)["proxyd_login_delay_seconds_total",] >= 1.75
    assert log_line(front, '"ann": wrong password')


def test_two_hundred_wrong_logins_at_once_and_those_who_are_served_beside_them(guarded, login, joe):
    front = guarded()
    login(front, "ann")[0].succeeded()
    login(front, "bob")[0].succeeded()
    said = []

    def attack():
        with tls_connected(front.tls_address(), joe) as sock:
            assert sock.recv(1) == LET_IN
            said.append(guess(RpcClient(sock), "ann"))

    threads = [threading.Thread(target=attack) for _ in range(GUESSES)]
    for each in threads:
        each.start()
    wait_until(lambda: "proxyd_login_failures" in front.log_text(), 20, "some are refused")
    # Who comes in by another name of the same address, and who comes from elsewhere.
    good, seconds = login(front, "bob")
    good.succeeded()
    assert seconds < 10
    with rpc_client(front.sock) as roots:
        assert roots.call(Remote.AUTH_LIST).header.status == Status.OK
    for each in threads:
        each.join(60)
    assert all(each is None or each.header.status == Status.ERROR for each in said)
    seen = front.log_text().count('"ann": wrong password')
    figures = scraped(front)
    assert figures["proxyd_refusals_total", "sasl"] <= LIMIT + 5
    assert seen <= LIMIT + 5
    assert figures["proxyd_refusals_total", "logins"] >= GUESSES - LIMIT - 40
    assert front.log_text().count(" warning : ") < 3 * LIMIT + 30
    assert "Traceback" not in front.log_text()


def test_a_user_who_guesses_is_slowed_and_refused_and_nobody_else_is(guarded, login):
    front = guarded()
    took = [guessed(front) for _ in range(4)]
    assert [round(each * 4) / 4 for each in took] == pytest.approx([0.25, 0.5, 1, 2], abs=0.3)
    with many_guesses(front, 19, "bob"):
        wait_until(lambda: "of uid 65534)" in front.log_text(), 20, "some are refused")
        for name in ("ann", "bob"):  # who are tried there, and come from elsewhere
            came_in, seconds = login(front, name)
            came_in.succeeded()
            assert seconds < 3


def test_a_name_that_does_not_exist_is_answered_like_one_that_does(guarded):
    front = guarded(proxyd_login_failures=0)
    answers, seconds = {}, {"ann": [], "nobody-here": []}
    for _ in range(40):
        for name, took in seconds.items():
            with rpc_client(front.sock, user=NOBODY) as client:
                began = time.monotonic()
                said = guess(client, name)
                took.append(time.monotonic() - began)
            answers[name] = said.payload
    assert answers["ann"] == answers["nobody-here"]
    quickest = {name: sorted(took)[len(took) // 4] for name, took in seconds.items()}
    assert quickest["ann"] == pytest.approx(quickest["nobody-here"], rel=0.5)


def test_a_reload_lifts_the_limit_and_sets_it_again(guarded):
    front = guarded()
    config = front.conf.read_text()
    with many_guesses(front, 2 * LIMIT):
        log_line(front, "proxyd_login_failures, of uid 65534)")
        assert guessed(front) < 0.25  # refused, unseen
        front.configure(config.replace(f"failures = {LIMIT}", "failures = 0"))
        reload(front)
        before = front.log_text().count("wrong password")
        assert guessed(front) < 0.25
        assert front.log_text().count("wrong password") == before + 1
        front.configure(config)
        reload(front)
    assert guessed(front) >= 0.2


# ---- Kerberos


def test_who_sends_garbage_for_tickets_is_refused_and_a_ticket_comes_in(make_proxyd, kdc):
    front = make_proxyd(
        {
            **TCP,
            "listen_addr": "127.0.0.1",
            "auth_tcp": "sasl",
            "proxyd_keytab": str(kdc.keytab(SERVICE)),
            "proxyd_login_failures": LIMIT,
        },
        environment=kdc.environment,
    )
    environment = with_tickets(kdc, kdc.tickets("joe"))
    uri = tcp_uri("test:///default", front.tcp_address())
    host, port = at(front.tcp_address())
    garbage = remote.SaslStart("GSSAPI", b"garbage").pack()
    before = time.monotonic()

    def attack():
        with socket.create_connection((host, port), 60, ("127.0.0.9", 0)) as sock:
            client = RpcClient(sock)
            client.call(Remote.AUTH_SASL_INIT)
            client.call(Remote.AUTH_SASL_START, garbage)

    threads = [threading.Thread(target=attack) for _ in range(40)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    took = time.monotonic() - before
    assert front.log_text().count("GSSAPI: ") <= LIMIT + took * LIMIT / 60 + 1
    log_line(front, "proxyd_login_failures, of 127.0.0.9)")
    virsh(uri, "list", environment=environment).succeeded()
