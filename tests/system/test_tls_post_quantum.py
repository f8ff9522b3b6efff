"""Old and new keys and groups on one listener: ML-DSA beside ECDSA, hybrid beside classical."""

import json
import sys
from contextlib import contextmanager

import pytest
from OpenSSL import SSL

from certs.authority import Authority
from certs.places import flat
from tests.bed import versions
from tests.bed.command import run_to_end
from tests.bed.daemon import short_directory
from tests.bed.proxyd import Proxyd
from tests.bed.virsh import tls_uri, virsh
from tests.bed.waiting import wait_until
from tests.fakes.handshake import Client
from tests.fakes.tls import TlsPeer
from tests.system.rpc import RpcClient
from tests.system.tls_client import LET_IN, connected
from tests.tls.meeting import WITHOUT_POST_QUANTUM

pytestmark = pytest.mark.system

DEADLINE_S = 30
URI = "test:///default"
FIRST_OPENSSL_WITH_ML_DSA = (3, 5)


class Site:
    """A CA of each age, and one directory for everything that a client of it needs."""

    def __init__(self, directory, new):
        self.directory = directory
        self.old = Authority.create(directory / "old", name="Old CA", key="ec:p256")
        self.new = Authority.create(directory / "new", name="New CA", key=new)
        self.ca_file = directory / "cacert.pem"
        self.ca_file.write_bytes(
            b"".join(each.places.ca.read_bytes() for each in (self.old, self.new))
        )
        self.servers = [each.server("127.0.0.1") for each in (self.new, self.old)]

    def settings(self, *servers):
        """With these identities, both unless told: the new one in front, which not all can use."""
        first, *others = servers or self.servers
        return {
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tls_port": "0",
            "ca_file": str(self.ca_file),
            "cert_file": str(first.cert_file),
            "key_file": str(first.key_file),
            "proxyd_more_certificates": [f"{each.cert_file}:{each.key_file}" for each in others],
        }

    def client(self, authority, name):
        places = flat(self.directory / name)
        authority.client(name, to=places)
        places.ca.write_bytes(self.ca_file.read_bytes())
        return places.root


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return Site(tmp_path_factory.mktemp("site"), "ml-dsa-65")


@pytest.fixture(scope="module")
def front(backend_dir, qemu_backend, site):
    """One proxyd with both identities."""
    routes = {"proxyd_routes": [f"test={qemu_backend.sock}"]}
    with (
        short_directory() as directory,
        Proxyd(directory, backend_dir=backend_dir, config=site.settings() | routes) as front,
    ):
        yield front


@contextmanager
def opened_with_openssl(front, pkipath, **offer):
    """A session by the OpenSSL of this process, which verifies the server."""
    client = Client(**offer)
    context = client.context
    context.load_verify_locations(str(pkipath / "cacert.pem"))
    context.set_verify(SSL.VERIFY_PEER, lambda _connection, _cert, _error, _depth, ok: bool(ok))
    context.use_certificate_chain_file(str(pkipath / "clientcert.pem"))
    context.use_privatekey_file(str(pkipath / "clientkey.pem"))
    with connected(front.tls_address()) as sock:
        peer = TlsPeer(sock, SSL.TLS1_3_VERSION)
        peer.connection = SSL.Connection(context, sock)
        peer.connection.set_connect_state()
        peer._wait_for(peer.connection.do_handshake)
        assert peer.recv(1) == LET_IN
        talk = RpcClient(peer)
        assert talk.open(URI) is not None
        yield talk


def terms_by_json(front):
    command = [sys.executable, "-m", "proxyd", "clients", "--json", "-s", str(front.directory)]
    (row,) = json.loads(run_to_end(command, deadline_s=DEADLINE_S).succeeded())
    return row["tls"]


def opened_line(front, name):
    return wait_until(
        lambda: [
            line
            for line in front.log_text().splitlines()
            if " opened: " in line and f"CN={name}" in line
        ],
        10,
        f"the log says that {name} has a session",
    )[-1]


def agreed(front, name):
    """The end of that line."""
    return opened_line(front, name).rpartition(", ")[2]


def test_old_and_new_clients_are_served_by_what_they_know(front, site):
    joe, ann = site.client(site.old, "joe"), site.client(site.new, "ann")
    # GnuTLS as libvirt has it on Debian 12, which knows neither.
    assert "test" in virsh(tls_uri(URI, front.tls_address(), joe), "list").succeeded()
    version, _, group, signature = agreed(front, "joe").split()
    assert (version, signature) == ("TLSv1.3", "ecdsa_secp256r1_sha256")
    assert group in ("x25519", "secp256r1")

    with opened_with_openssl(front, ann):
        terms = terms_by_json(front)
    assert terms == {
        "version": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "group": "X25519MLKEM768",
        "signature": "mldsa65",
    }
    assert agreed(front, "ann") == " ".join(terms.values())


def test_a_new_key_goes_with_an_old_group_and_an_old_key_with_a_new_one(front, site):
    bea, tom = site.client(site.new, "bea"), site.client(site.old, "tom")
    with opened_with_openssl(front, bea, groups="X25519"):
        assert agreed(front, "bea").endswith(" x25519 mldsa65")
    old = {"signatures": "ecdsa_secp256r1_sha256", "groups": "SecP256R1MLKEM768"}
    with opened_with_openssl(front, tom, **old):
        assert agreed(front, "tom").endswith(" SecP256r1MLKEM768 ecdsa_secp256r1_sha256")


def test_the_documented_string_switches_all_of_it_off(make_proxyd, site):
    old = site.servers[1]
    front = make_proxyd({**site.settings(old), "tls_priority": WITHOUT_POST_QUANTUM})
    sue, eve = site.client(site.old, "sue"), site.client(site.new, "eve")
    with opened_with_openssl(front, sue):
        assert agreed(front, "sue").endswith(" x25519 ecdsa_secp256r1_sha256")
    with (
        pytest.raises(SSL.Error, match="handshake failure"),
        opened_with_openssl(front, sue, groups="X25519MLKEM768"),
    ):
        pass
    # A certificate that makes no signature which is allowed is not even sent.
    with pytest.raises(SSL.Error, match="certificate required"), opened_with_openssl(front, eve):
        pass
    assert "test" in virsh(tls_uri(URI, front.tls_address(), sue), "list").succeeded()


def test_an_identity_alone_that_is_switched_off_stops_the_start(make_proxyd, site):
    alone = site.settings(site.servers[0])
    with pytest.raises(ChildProcessError, match="ended with 6") as failed:
        make_proxyd({**alone, "tls_priority": WITHOUT_POST_QUANTUM, "proxyd_strict_start": 1})
    told = "".join(getattr(failed.value, "__notes__", ()))
    assert str(site.servers[0].cert_file) in told
    assert "no client can use its ML-DSA-65 key" in told


def test_an_identity_that_is_switched_off_may_stay_beside_another(make_proxyd, site):
    front = make_proxyd({**site.settings(), "tls_priority": WITHOUT_POST_QUANTUM})
    told = f"{site.servers[0].cert_file}: no client is shown it"
    wait_until(lambda: told in front.log_text(), 10, "the log says so")
    ned = site.client(site.old, "ned")
    with opened_with_openssl(front, ned):
        assert agreed(front, "ned").endswith(" x25519 ecdsa_secp256r1_sha256")


def test_the_openssl_of_this_host_verifies_and_gets_in(front, site):
    jim = site.client(site.old, "jim")
    # Which identity it is shown, and by whom that is signed.
    ca = (site.new if versions.openssl() >= FIRST_OPENSSL_WITH_ML_DSA else site.old).places.ca
    command = ["openssl", "s_client", "-connect", front.tls_address(), "-verify_return_error"]
    command += ["-CAfile", str(ca), "-cert", str(jim / "clientcert.pem")]
    said = run_to_end(
        [*command, "-key", str(jim / "clientkey.pem"), "-brief"], deadline_s=DEADLINE_S
    )
    assert "Protocol version: TLSv1.3" in said.stdout + said.stderr
    assert "Verification: OK" in said.stdout + said.stderr
