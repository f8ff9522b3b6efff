"""Clients over TLS: real virsh, with every kind of certificate."""

import datetime as dt
import json
import signal
import socket
import sys

import pytest

from proxyd.wire.frame import FrameBuffer, Status
from proxyd.wire.params import Param, ParamType
from proxyd.wire.programs import Remote
from proxyd.wire.remote import pack_identity
from tests.bed.command import run_to_end
from tests.bed.daemon import short_directory
from tests.bed.pki import DAY, Pki, write_certificates
from tests.bed.proxyd_log import log_line, reload
from tests.bed.side_by_side import Way
from tests.bed.tap import tapped
from tests.bed.virsh import tls_uri, virsh
from tests.bed.virsh_commands import QEMU_COMMANDS, TEST_COMMANDS, files
from tests.system.tls_client import LET_IN, opened_over_tls, tls_connected

__all__ = ["files"]

pytestmark = pytest.mark.system

HOSTS = ["127.0.0.1", "::1"]


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def joe(pki):
    return pki.client(("O", "Example"), ("CN", "joe"))


@pytest.fixture
def listening(make_proxyd, pki):
    """Starts a proxyd with a TLS listener on 127.0.0.1; settings add to that."""

    def listening(config=None, **options):
        settings = {
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tls_port": "0",
            **pki.settings(pki.server()),
            **(config or {}),
        }
        return make_proxyd(settings, **options)

    return listening


@pytest.fixture(scope="module")
def fronts(backend_dir, qemu_backend, pki):
    """One proxyd for each host."""
    from contextlib import ExitStack  # noqa: PLC0415

    from tests.bed.proxyd import Proxyd  # noqa: PLC0415

    with ExitStack() as stack:
        fronts = {}
        for host in HOSTS:
            fronts[host] = stack.enter_context(
                Proxyd(
                    stack.enter_context(short_directory()),
                    backend_dir=backend_dir,
                    config={
                        "proxyd_routes": [f"test={qemu_backend.sock}"],
                        "listen_tls": 1,
                        "listen_addr": host,
                        "tls_port": "0",
                        **pki.settings(pki.server()),
                    },
                )
            )
        yield fronts


@pytest.mark.parametrize("command", TEST_COMMANDS)
def test_virsh_says_the_same_of_the_test_driver(
    command, direct_tls, fronts, joe, files, side_by_side
):
    through = [
        Way(tls_uri("test:///default", fronts[host].tls_address(host), joe)) for host in HOSTS
    ]

    side_by_side.virsh(direct_tls("test:///default"), through, command.format(dir=files))


@pytest.mark.parametrize("command", QEMU_COMMANDS)
def test_virsh_says_the_same_of_qemu(command, direct_tls, fronts, joe, files, side_by_side):
    through = Way(tls_uri("qemu:///system", fronts["127.0.0.1"].tls_address(), joe))

    side_by_side.virsh(direct_tls("qemu:///system"), [through], command.format(dir=files))


def try_virsh(front, pkipath, **query):
    uri = tls_uri("test:///default", front.tls_address(), pkipath, **query)
    return virsh(uri, "list")


def test_without_a_certificate_nobody_gets_in(listening, pki):
    front = listening()
    assert try_virsh(front, pki.stranger()).turned_away
    line = log_line(front, "peer did not return a certificate")
    assert "give the client one" in line
    assert " warning : " in line
    assert "from 127.0.0.1:" in line


def test_a_certificate_of_another_ca_is_refused(listening, pki, tmp_path):
    front = listening()
    other = Pki(tmp_path / "other", name="somebody else")
    mallory = other.client(("CN", "mallory"))
    write_certificates(mallory / "cacert.pem", pki.certificate)
    # no_sanity: the client's own check would not even try.
    refused = try_virsh(front, mallory, no_sanity="1")
    assert refused.turned_away
    line = log_line(front, "was not issued by a CA of ours")
    assert 'subject "CN=mallory", serial ' in line
    assert "from 127.0.0.1:" in line


def test_an_expired_certificate_is_refused_and_the_log_says_expired(listening, pki):
    front = listening()
    refused = try_virsh(front, pki.client(begins=-9 * DAY, ends=-DAY), no_sanity="1")
    assert refused.turned_away
    line = log_line(front, "its certificate has expired")
    ended = dt.datetime.now(dt.UTC) - DAY
    assert f"to {ended:%Y-%m-%d}" in line
    assert 'subject "CN=joe"' in line


def test_a_certificate_of_the_future_is_refused(listening, pki):
    front = listening()
    assert try_virsh(front, pki.client(begins=DAY), no_sanity="1").turned_away
    assert "clock" in log_line(front, "is not valid yet")


def test_a_revoked_certificate_is_refused_and_another_one_is_not(listening, tmp_path):
    pki = Pki(tmp_path / "pki")
    joe, revoked = pki.client(), pki.client(("CN", "mallory"))
    front = listening(
        {**pki.settings(pki.server()), "crl_file": str(pki.revoke(revoked))},
    )
    assert try_virsh(front, revoked).turned_away
    assert 'subject "CN=mallory"' in log_line(front, "its certificate has been revoked")
    try_virsh(front, joe).succeeded()


@pytest.mark.parametrize(
    ("allowed", "works"),
    [
        (["O=Example,CN=joe"], True),
        (["O=Example,CN=*"], True),
        (["CN=fred", "O=Ex?mple,CN=j*"], True),
        (["*"], True),
        (["CN=joe"], False),
        (["O=example,CN=joe"], False),
        (["CN=joe,O=Example"], False),
        ([], False),
    ],
)
def test_the_list_of_names_decides(listening, joe, allowed, works):
    front = listening({"tls_allowed_dn_list": allowed})
    tried = try_virsh(front, joe)
    assert (tried.status == 0) is works
    if not works:
        assert 'subject "O=Example,CN=joe"' in log_line(front, "is not in tls_allowed_dn_list")
        assert "server verification (of our certificate or IP address) failed" in tried.stderr


def test_without_verification_anybody_gets_in_and_nobody_has_a_name(listening, pki, tmp_path):
    front = listening({"tls_no_verify_certificate": 1, "tls_allowed_dn_list": []})
    mallory = Pki(tmp_path / "other", name="somebody else").client(("CN", "mallory"))
    write_certificates(mallory / "cacert.pem", pki.certificate)
    try_virsh(front, mallory, no_sanity="1").succeeded()
    try_virsh(front, pki.stranger()).succeeded()
    assert log_line(front, "is not verified: its certificate was not issued by a CA of ours")
    assert log_line(front, "is not verified: it sent no certificate")
    assert "anonymous" in log_line(front, " opened: tls 127.0.0.1:")


def test_the_daemon_behind_is_told_the_name_and_nothing_else(listening, joe, qemu_backend):
    with short_directory() as directory, tapped(directory / "tap", qemu_backend.sock) as tap:
        front = listening({"proxyd_routes": [f"test={tap.path}"]})
        with opened_over_tls(front.tls_address(), joe):
            assert "x509 'O=Example,CN=joe'" in log_line(front, " opened: tls 127.0.0.1:")
    buffer = FrameBuffer()
    buffer.feed(tap.seen[0])
    calls = iter(buffer.next_frame, None)
    (told,) = (each for each in calls if each.header.procedure == Remote.CONNECT_SET_IDENTITY)
    expected = [Param("x509-distinguished-name", ParamType.STRING, "O=Example,CN=joe")]
    assert told.payload == pack_identity(expected)


def test_an_old_client_gets_in_by_tls_1_2(listening, joe):
    front = listening()
    # The GnuTLS client of this system, told to be an old one.
    try_virsh(front, joe, tls_priority="NORMAL:-VERS-TLS1.3").succeeded()


def test_the_administrator_decides_on_the_version(listening, joe):
    front = listening({"tls_priority": "NORMAL:-VERS-TLS1.3"})
    with tls_connected(front.tls_address(), joe) as sock:
        assert sock.version() == "TLSv1.2"
        assert sock.recv(1) == LET_IN
    front = listening({"tls_priority": "SECURE256:-VERS-TLS1.2"})
    with tls_connected(front.tls_address(), joe) as sock:
        assert sock.version() == "TLSv1.3"
        assert sock.recv(1) == LET_IN
    assert try_virsh(front, joe, tls_priority="NORMAL:-VERS-TLS1.3").turned_away
    assert "tls_priority" in log_line(front, "no TLS: ")


def test_nothing_but_the_byte_comes_after_the_handshake(listening, joe):
    """No session tickets: with them no libvirt client gets in by TLS 1.3."""
    front = listening()
    with tls_connected(front.tls_address(), joe) as sock:
        assert sock.version() == "TLSv1.3"
        assert sock.recv(100) == LET_IN
        assert sock.session.ticket_lifetime_hint == 0
        assert not sock.session.has_ticket
    # What this host's administrator has set is left alone; then it is noticed and said.
    assert "OPENSSL_CONF" not in front.log_text()


def test_tickets_that_cannot_be_switched_off_switch_off_tls_1_3(make_proxyd, pki, joe, tmp_path):
    (tmp_path / "openssl.cnf").write_text("")
    front = make_proxyd(
        {
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tls_port": "0",
            **pki.settings(pki.server()),
        },
        environment={"OPENSSL_CONF": str(tmp_path / "openssl.cnf")},
    )
    assert "unset OPENSSL_CONF" in log_line(front, "TLS 1.3 is switched off")
    try_virsh(front, joe).succeeded()


def test_two_certificates_are_served_to_whom_they_suit(listening, pki, joe):
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    second = pki.server(key=rsa.generate_private_key(65537, 2048))
    front = listening({"proxyd_more_certificates": [f"{second.cert_file}:{second.key_file}"]})
    for only in ("RSA", "ECDSA"):
        excluded = {"RSA": "-ECDHE-ECDSA", "ECDSA": "-ECDHE-RSA"}[only]
        priority = f"NORMAL:-VERS-TLS1.3:{excluded}"
        try_virsh(front, joe, tls_priority=priority).succeeded()


def test_a_second_daemon_on_the_port_is_told_who_holds_it(listening, pki, make_proxyd):
    front = listening()
    address = front.tls_address()
    port = address.rpartition(":")[2]
    with pytest.raises(ChildProcessError) as failed:
        listening({"tls_port": port, "proxyd_strict_start": 1})
    told = "".join(getattr(failed.value, "__notes__", ()))
    assert f"{address} is in use by pid {front.pid} (" in told
    assert "ended with 6" in str(failed.value)


def test_a_certificate_that_does_not_fit_is_status_6_with_the_file_and_the_remedy(listening, pki):
    server = pki.server(ends=-dt.timedelta(hours=1), begins=-DAY)
    with pytest.raises(ChildProcessError, match="ended with 6") as failed:
        listening({**pki.settings(server), "proxyd_strict_start": 1})
    told = "".join(getattr(failed.value, "__notes__", ()))
    assert str(server.cert_file) in told
    assert "expired" in told


def test_who_comes_by_a_name_that_is_not_in_our_certificate_leaves_a_hint(listening, pki, joe):
    front = listening(pki.settings(pki.server(("elsewhere.example",))))
    assert virsh(tls_uri("test:///default", front.tls_address(), joe), "list").status == 1
    line = log_line(front, "right after our certificate")
    assert "is the name or address by which it comes in there (subjectAltName)" in line
    assert " warning : " in line


def test_reloading_brings_new_files_and_keeps_open_sessions(listening, tmp_path):
    pki = Pki(tmp_path / "pki")
    server, joe, fred = pki.server(), pki.client(), pki.client(("CN", "fred"))
    crl = pki.revoke()
    front = listening(
        {**pki.settings(server), "crl_file": str(crl), "tls_allowed_dn_list": ["CN=*"]}
    )
    with opened_over_tls(front.tls_address(), joe) as living:
        pki.revoke(joe)
        reload(front)
        assert try_virsh(front, joe).turned_away
        try_virsh(front, fred).succeeded()
        assert living.call(157).header.status == 0

        renewed = pki.server()
        write_certificates(server.cert_file, renewed.certificate)
        front.daemon.send(signal.SIGHUP)
        line = log_line(front, "reload failed, everything stays as it was")
        assert str(server.key_file) in line
        try_virsh(front, fred).succeeded()
        assert living.call(157).header.status == 0

        server.key_file.write_bytes(renewed.key_file.read_bytes())
        reload(front)
        with tls_connected(front.tls_address(), fred) as sock:
            shown = sock.getpeercert()
            assert int(shown["serialNumber"], 16) == renewed.certificate.serial_number


def test_the_listener_is_gone_with_the_daemon(listening):
    front = listening()
    address = front.tls_address()
    assert front.stop() == 0
    host, _, port = address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_clients_come_in_where_the_kernel_cannot_encrypt(listening, joe):
    """The setting is a wish: status says what came of it."""
    front = listening({"proxyd_kernel_tls": 1})
    with opened_over_tls(front.tls_address(), joe) as client:
        assert client.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
        done = run_to_end(
            [sys.executable, "-m", "proxyd", "status", "--json", "-s", str(front.directory)],
            deadline_s=30,
        )
        counted = json.loads(done.stdout)["relay"]["tls_in_kernel"]
    assert counted == 0 or kernel_encrypts()


def kernel_encrypts():
    """Whether it has the layer that OpenSSL would put on a socket (TCP_ULP)."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sock,
    ):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, 31, b"tls")
        except OSError:
            return False
        return True
