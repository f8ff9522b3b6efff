"""Clients that prove themselves by SASL: real virsh with cyrus-sasl, real Kerberos."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from scramp import ScramClient

from proxyd.sasl.passwords import PasswordFile
from proxyd.wire.frame import FrameBuffer, Status
from proxyd.wire.params import Param, ParamType
from proxyd.wire.programs import Remote
from proxyd.wire.remote import (
    SaslReply,
    SaslStart,
    pack_sasl_step,
    unpack_identity,
    unpack_sasl_mechanisms,
)
from tests.bed import versions
from tests.bed.daemon import short_directory
from tests.bed.pki import Pki
from tests.bed.proxyd import Proxyd
from tests.bed.proxyd_log import log_line, reload
from tests.bed.sasl import SERVICE, auth_file, tcp_uri, with_tickets
from tests.bed.side_by_side import Way
from tests.bed.tap import tapped, tapped_port
from tests.bed.virsh import tls_uri, unix_uri, virsh
from tests.bed.virsh_commands import QEMU_COMMANDS, TEST_COMMANDS, files
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient
from tests.system.sasl_client import by_gssapi
from tests.system.tls_client import LET_IN, tls_connected

__all__ = ["files"]

# libvirtd sends no client of its own a long reply through Kerberos ("failed to decode SASL data").
# 140 KB it is with Debian 13's QEMU, and less with that of before.
TOO_LONG = {"domcapabilities"}
FIRST_WITH_LONGER = (11, 3)

pytestmark = pytest.mark.system

PASSWORD = "correct horse, battery"


@pytest.fixture(scope="module")
def keytab(kdc):
    return kdc.keytab(SERVICE)


@pytest.fixture(scope="module")
def tickets(kdc):
    return kdc.tickets("joe")


@pytest.fixture(scope="module")
def joe(kdc, tickets):
    """The environment of somebody with a ticket."""
    return with_tickets(kdc, tickets)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def passwords(tmp_path_factory):
    path = tmp_path_factory.mktemp("passwords") / "proxyd-passwords"
    PasswordFile(str(path)).set_password("ann", PASSWORD)
    return path


@pytest.fixture
def listening(make_proxyd, kdc, keytab):
    """Starts a proxyd with a TCP listener; settings add to that."""

    def listening(config=None, **options):
        settings = {
            "listen_tcp": 1,
            "listen_addr": "127.0.0.1",
            "tcp_port": "0",
            "proxyd_keytab": str(keytab),
            **(config or {}),
        }
        return make_proxyd(settings, environment=kdc.environment, **options)

    return listening


@pytest.fixture(scope="module")
def shared(backend_dir, qemu_backend, kdc, keytab):
    with short_directory() as directory:
        config = {
            "proxyd_routes": [f"test={qemu_backend.sock}"],
            "listen_tcp": 1,
            "listen_addr": "127.0.0.1",
            "tcp_port": "0",
            "proxyd_keytab": str(keytab),
        }
        front = Proxyd(
            directory, backend_dir=backend_dir, config=config, environment=kdc.environment
        )
        with front:
            yield front


def try_virsh(front, environment, **query):
    uri = tcp_uri("test:///default", front.tcp_address(), **query)
    return virsh(uri, "list", environment=environment)


# ---- Kerberos on TCP


@pytest.mark.parametrize("command", TEST_COMMANDS)
def test_virsh_says_the_same_of_the_test_driver(
    command, direct_tcp, shared, joe, files, side_by_side
):
    through = Way(tcp_uri("test:///default", shared.tcp_address()), joe)

    side_by_side.virsh(direct_tcp("test:///default"), [through], command.format(dir=files))


@pytest.mark.parametrize("command", QEMU_COMMANDS)
def test_virsh_says_the_same_of_qemu(
    command, direct_tcp, shared, joe, files, side_by_side, qemu_backend
):
    through = Way(tcp_uri("qemu:///system", shared.tcp_address()), joe)
    directly = direct_tcp("qemu:///system")
    if command in TOO_LONG and versions.libvirt() >= FIRST_WITH_LONGER:
        directly = Way(unix_uri("qemu:///system", qemu_backend.sock))

    side_by_side.virsh(directly, [through], command.format(dir=files))


def test_who_came_in_is_in_the_log_and_told_to_the_daemon(listening, joe, qemu_backend):
    with short_directory() as directory, tapped(directory / "tap", qemu_backend.sock) as tap:
        front = listening({"proxyd_routes": [f"test={tap.path}"]})
        try_virsh(front, joe).succeeded()
        line = log_line(front, "came in by GSSAPI")
        assert "SASL user 'joe'" in line
        assert "joe@PROXYD.TEST" in line
        assert "256 bits" in line
    assert told_identity(tap) == [Param("sasl-user-name", ParamType.STRING, "joe")]


def told_identity(tap):
    """The parameters of the one SET_IDENTITY that the daemon got."""
    buffer = FrameBuffer()
    buffer.feed(tap.seen[0])
    calls = iter(buffer.next_frame, None)
    (told,) = (each for each in calls if each.header.procedure == Remote.CONNECT_SET_IDENTITY)
    return unpack_identity(told.payload)


def test_nothing_of_a_session_can_be_read_on_the_wire(listening, joe):
    front = listening()
    with tapped_port(front.tcp_address()) as tap:
        uri = tcp_uri("test:///default", tap.address)
        listed = virsh(uri, "dumpxml test", environment=joe).succeeded()
    assert "<name>test</name>" in listed
    for wire in (*tap.seen, *tap.answers):
        for word in (b"domain", b"<name>", b"test:///default", b"vcpu"):
            assert word not in wire
    # What goes before the layer is in the clear: the tap does see the bytes.
    assert b"GSSAPI" in tap.answers[0]
    assert len(tap.answers[0]) > len(listed)


def test_without_a_ticket_nobody_gets_in(listening, kdc, joe):
    front = listening()
    assert try_virsh(front, kdc.environment).status == 1
    line = log_line(front, "ended before a session was open: tcp")
    assert "the client is gone" in line
    assert "when it had been offered GSSAPI: has it no ticket (klist)" in line
    assert " warning : " in line
    try_virsh(front, joe).succeeded()


def test_an_expired_ticket_is_refused(listening, kdc):
    front = listening()
    short = kdc.tickets("joe", "-l", "1s")
    expired = with_tickets(kdc, short)

    def refused():
        tried = try_virsh(front, expired)
        return tried.stderr if tried.status else ""

    assert "expired" in wait_until(refused, 15, "the ticket is refused").lower()


def test_a_user_who_is_not_in_the_list_is_refused(listening, kdc, joe):
    front = listening({"sasl_allowed_username_list": ["fred", "*/admin"]})
    refused = try_virsh(front, joe)
    assert refused.status == 1
    assert "authentication failed" in refused.stderr
    line = log_line(front, "is not in sasl_allowed_username_list")
    assert " warning : " in line
    assert '"joe"' in line
    assert "GSSAPI" in line
    assert "from 127.0.0.1:" in line
    try_virsh(front, with_tickets(kdc, kdc.tickets("fred"))).succeeded()
    try_virsh(front, with_tickets(kdc, kdc.tickets("joe/admin"))).succeeded()


def test_an_empty_list_lets_nobody_in(listening, joe):
    front = listening({"sasl_allowed_username_list": []})
    assert try_virsh(front, joe).status == 1
    assert log_line(front, "lets in nobody")


def test_a_keytab_without_the_key_is_told_of(listening, kdc, joe):
    front = listening({"proxyd_keytab": str(kdc.keytab("libvirt/elsewhere.example"))})
    assert try_virsh(front, joe).status == 1
    assert "libvirt/localhost@PROXYD.TEST not found in keytab" in log_line(front, "GSSAPI: ")


def test_a_keytab_that_is_out_of_date_is_told_of_and_a_new_one_needs_no_restart(
    listening, kdc, tmp_path
):
    kdc.add("libvirt/127.0.0.1")
    old = kdc.keytab("libvirt/127.0.0.1")
    path = tmp_path / "krb5.tab"
    path.write_bytes(old.read_bytes())
    front = listening({"proxyd_keytab": str(path)})
    kdc.new_key("libvirt/127.0.0.1")
    fresh = with_tickets(kdc, kdc.tickets("joe"))
    port = front.tcp_address().rpartition(":")[2]
    uri = f"test+tcp://127.0.0.1:{port}/default"
    assert virsh(uri, "list", environment=fresh).status == 1
    assert "ktadd" in log_line(front, "GSSAPI: ")
    path.write_bytes(kdc.keytab("libvirt/127.0.0.1").read_bytes())
    virsh(uri, "list", environment=fresh).succeeded()


def test_more_bits_than_kerberos_has_are_refused(listening, joe):
    front = listening({"tcp_min_ssf": 257})
    assert try_virsh(front, joe).status == 1
    assert log_line(front, "its encryption has 256 bits and 257 are asked for (tcp_min_ssf)")


def test_who_stands_in_the_list_with_the_default_realm_is_refused_with_what_to_write(
    listening, joe
):
    front = listening({"sasl_allowed_username_list": ["joe@PROXYD.TEST"]})
    assert try_virsh(front, joe).status == 1
    line = log_line(front, "is not in sasl_allowed_username_list")
    assert 'write "joe" instead of "joe@PROXYD.TEST"' in line
    front.conf.write_text(front.conf.read_text().replace("joe@PROXYD.TEST", "joe"))
    reload(front)
    try_virsh(front, joe).succeeded()


def test_no_key_no_listener(listening, tmp_path):
    with pytest.raises(ChildProcessError, match="ended with 6") as failed:
        listening({"proxyd_keytab": str(tmp_path / "missing"), "proxyd_strict_start": 1})
    told = "".join(getattr(failed.value, "__notes__", ()))
    assert f"{tmp_path / 'missing'}: there is no such file" in told
    assert "ktadd" in told


def test_a_reload_changes_the_list_and_leaves_sessions_alone(
    listening, joe, kdc, tickets, monkeypatch
):
    monkeypatch.setenv("KRB5_CONFIG", str(kdc.config))
    front = listening({"sasl_allowed_username_list": ["joe"]})
    with by_gssapi(front.tcp_address(), tickets) as living:
        text = front.conf.read_text()
        front.conf.write_text(text.replace('"joe"', '"fred"'))
        reload(front)
        assert try_virsh(front, joe).status == 1
        assert living.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK


def test_everybody_is_let_in_where_the_administrator_says_so_loudly(listening, kdc):
    front = listening({"auth_tcp": "none"})
    assert " warning : " in log_line(front, "lets in EVERYBODY who can reach it")
    try_virsh(front, {}).succeeded()


# ---- over TLS and UNIX


@pytest.fixture
def over_tls(listening, pki, passwords):
    """A proxyd whose TLS clients need a certificate and SASL, and what their URI has to say."""
    front = listening(
        {
            "listen_tls": 1,
            "tls_port": "0",
            "auth_tls": "sasl",
            "proxyd_passwords": str(passwords),
            **pki.settings(pki.server()),
        }
    )
    port = front.tls_address().rpartition(":")[2]

    def try_it(environment, **query):
        uri = tls_uri("test:///default", f"localhost:{port}", pki.client(), **query)
        return virsh(uri, "list", environment=environment)

    return front, try_it


def test_a_ticket_over_tls(over_tls, joe):
    front, try_it = over_tls
    try_it(joe, auth="sasl.GSSAPI").succeeded()
    line = log_line(front, " opened: tls")
    assert "SASL user 'joe' x509 'CN=joe'" in line
    assert "GSSAPI, joe@PROXYD.TEST, 0 bits" in log_line(front, "came in by")


def test_a_password_over_tls(over_tls, tmp_path):
    front, try_it = over_tls
    file = auth_file(tmp_path / "auth.conf", "ann", PASSWORD)
    try_it({"LIBVIRT_AUTH_FILE": str(file)}, auth="sasl.SCRAM-SHA-256").succeeded()
    assert "SASL user 'ann' x509 'CN=joe'" in log_line(front, " opened: tls")


@pytest.mark.parametrize(("user", "password"), [("ann", "incorrect horse"), ("nobody", PASSWORD)])
def test_a_wrong_password_is_refused(over_tls, tmp_path, user, password):
    front, try_it = over_tls
    file = auth_file(tmp_path / "auth.conf", user, password)
    refused = try_it({"LIBVIRT_AUTH_FILE": str(file)}, auth="sasl.SCRAM-SHA-256")
    assert refused.turned_away
    assert f'"{user}"' in log_line(front, "SCRAM-SHA-256: ")
    assert password not in front.log_text()


@pytest.mark.parametrize("bound", [True, False])
def test_a_password_that_is_bound_to_the_connection(over_tls, pki, bound):
    """SCRAM-SHA-256-PLUS, which no libvirt client speaks yet: nobody sits between both ends."""
    front, _ = over_tls
    with tls_connected(front.tls_address(), pki.client()) as sock:
        assert sock.recv(1) == LET_IN
        client = RpcClient(sock)
        offered = client.call(Remote.AUTH_SASL_INIT)
        assert "SCRAM-SHA-256-PLUS" in unpack_sasl_mechanisms(offered.payload)
        shown = x509.load_der_x509_certificate(sock.getpeercert(binary_form=True))
        mark = shown.fingerprint(hashes.SHA256()) if bound else bytes(32)
        scram = ScramClient(["SCRAM-SHA-256-PLUS"], "ann", PASSWORD, ("tls-server-end-point", mark))
        begun = SaslStart("SCRAM-SHA-256-PLUS", scram.get_client_first().encode())
        said = client.call(Remote.AUTH_SASL_START, begun.pack())
        scram.set_server_first(SaslReply.unpack(said.payload).data.decode())
        proof = pack_sasl_step(scram.get_client_final().encode())
        said = client.call(Remote.AUTH_SASL_STEP, proof)
        assert (said.header.status == Status.OK) is bound
        if bound:
            scram.set_server_final(SaslReply.unpack(said.payload).data.decode())
            assert client.open("test:///default").header.status == Status.OK
    if not bound:
        assert "SCRAM-SHA-256-PLUS" in log_line(front, "bound to another connection")


def test_no_certificate_is_made_good_by_a_ticket(listening, pki, joe):
    front = listening(
        {"listen_tls": 1, "tls_port": "0", "auth_tls": "sasl", **pki.settings(pki.server())}
    )
    port = front.tls_address().rpartition(":")[2]
    uri = tls_uri("test:///default", f"localhost:{port}", pki.stranger(), auth="sasl.GSSAPI")
    assert virsh(uri, "list", environment=joe).turned_away
    assert log_line(front, "peer did not return a certificate")


@pytest.fixture
def local(make_proxyd, kdc, keytab, passwords):
    def local(**config):
        settings = {"proxyd_keytab": str(keytab), "proxyd_passwords": str(passwords), **config}
        return make_proxyd(settings, environment=kdc.environment)

    return local


def local_uri(sock, mechanism):
    return unix_uri("test:///default", sock, auth=f"sasl.{mechanism}")


def test_a_ticket_at_the_unix_socket(local, joe):
    front = local(auth_unix_rw="sasl")
    virsh(local_uri(front.sock, "GSSAPI"), "list", environment=joe).succeeded()
    line = log_line(front, " opened: libvirt-sock")
    assert "uid 0 (root)" in line
    assert "SASL user 'joe'" in line


def test_a_password_at_the_unix_socket(local, tmp_path):
    front = local(auth_unix_rw="sasl")
    file = auth_file(tmp_path / "auth.conf", "ann", PASSWORD)
    environment = {"LIBVIRT_AUTH_FILE": str(file)}
    virsh(local_uri(front.sock, "SCRAM-SHA-256"), "list", environment=environment).succeeded()
    assert "SASL user 'ann'" in log_line(front, " opened: libvirt-sock")


def test_the_read_only_socket_has_its_own_setting(local, tmp_path):
    front = local(auth_unix_ro="sasl")
    virsh(unix_uri("test:///default", front.sock), "list").succeeded()
    bare = unix_uri("test:///default", front.sock_ro)
    assert virsh(bare, "list", readonly=True).status == 1
    file = auth_file(tmp_path / "auth.conf", "ann", PASSWORD)
    environment = {"LIBVIRT_AUTH_FILE": str(file)}
    uri = local_uri(front.sock_ro, "SCRAM-SHA-256")
    virsh(uri, "list", readonly=True, environment=environment).succeeded()
    denied = virsh(uri, "destroy test", readonly=True, environment=environment)
    assert "read only access" in denied.stderr


def test_passwords_are_never_offered_on_tcp(listening, passwords):
    front = listening({"proxyd_passwords": str(passwords)})
    assert log_line(front, "clients by TCP are offered GSSAPI").endswith("GSSAPI")


def test_the_administrator_restricts_the_mechanisms(local, tmp_path):
    front = local(auth_unix_rw="sasl", proxyd_sasl_mechanisms=["GSSAPI"])
    file = auth_file(tmp_path / "auth.conf", "ann", PASSWORD)
    uri = local_uri(front.sock, "SCRAM-SHA-256")
    assert virsh(uri, "list", environment={"LIBVIRT_AUTH_FILE": str(file)}).status == 1
    assert log_line(front, "clients by UNIX are offered GSSAPI").endswith("GSSAPI")
