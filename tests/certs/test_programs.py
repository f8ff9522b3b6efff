"""What other programs make of the files: GnuTLS's certtool, libvirt's tools, virsh and proxyd."""

import re
import shutil
import signal
import socket

import pytest

from certs.authority import Authority
from certs.keys import KINDS
from certs.names import Attributes
from certs.places import Store, flat, tree
from tests.bed import versions
from tests.bed.command import run_to_end
from tests.bed.daemon import short_directory
from tests.bed.libvirtd import Libvirtd
from tests.bed.proxyd import Proxyd
from tests.bed.tls import RELOADED
from tests.bed.virsh import tls_uri, virsh
from tests.bed.waiting import wait_until
from tests.certs.conftest import CA_NAME, HOST

pytestmark = pytest.mark.system

DEADLINE_S = 30
# GnuTLS knows ML-DSA from 3.8.9 on.
QUICK_KINDS = [kind for kind in KINDS if kind not in ("rsa:3072", "rsa:4096") and "ml" not in kind]
SERVER_AUTH, CLIENT_AUTH = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"
# virt-pki-validate looks at /etc/pki and nowhere else. The programs that it calls need no more of
# /etc than this; all of it is mounted in a namespace that ends with the command.
VALIDATE = """
cp -a /etc/alternatives /etc/passwd /etc/group "$1"
mount --bind "$1" /etc
exec virt-pki-validate
"""
# Another program since libvirt 10: it ends in failure unless every user of the host may read the
# client's key and list the directory of all keys, which is not what we make.
FIRST_THAT_CHECKS_KEYS = (10,)
PASSED_CHECKS = 22
KEY_DIRECTORY = (
    "The system key dir /etc/pki/libvirt/private must be accessible to all users. As root, run:"
    " chown root.root; chmod 0755 /etc/pki/libvirt/private"
)
KEYS_FOR_EVERYBODY = [
    ("SERVER: Checking system key dir access", KEY_DIRECTORY),
    ("CLIENT: Checking system key dir access", KEY_DIRECTORY),
    (
        "CLIENT: Checking key access",
        "The client key /etc/pki/libvirt/private/clientkey.pem must be accessible to all users. As"
        " root run: chown root.root /etc/pki/libvirt/private/clientkey.pem; chmod 0644"
        " /etc/pki/libvirt/private/clientkey.pem",
    ),
]
CA_TEMPLATE = """
organization = "Example, Inc."
cn = "certtool's CA"
ca
cert_signing_key
crl_signing_key
expiration_days = 700
"""


def said(*command):
    return run_to_end([str(each) for each in command], deadline_s=DEADLINE_S).succeeded()


def verified(authority, certificate, *more):
    ca = authority.places.ca
    return said(
        *("certtool", "--verify", "--load-ca-certificate", ca, "--infile", certificate), *more
    )


# GnuTLS


@pytest.mark.parametrize("kind", QUICK_KINDS)
def test_gnutls_verifies_every_kind_of_chain(root, kind):
    authority = Authority.create(root, name=CA_NAME, key=kind)
    server = authority.server(HOST, names=["192.0.2.1"]).cert_file
    client = authority.client("joe").cert_file
    for file, *use in (
        (server, "--verify-purpose", SERVER_AUTH, "--verify-hostname", HOST),
        (client, "--verify-purpose", CLIENT_AUTH),
    ):
        assert "Chain verification output: Verified." in verified(authority, file, *use)


def test_gnutls_finds_the_host_under_its_names_only(authority):
    server = authority.server(HOST, names=["*.kvm.example.org"]).cert_file
    verified(authority, server, "--verify-hostname", "a.kvm.example.org")
    with pytest.raises(AssertionError, match="The name in the certificate does not match"):
        verified(authority, server, "--verify-hostname", "other.example.org")


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("joe", Attributes()),
        ("joe", Attributes(country="de", state="S", locality="L", organization="O", unit="U")),
        ('a+b=c;"d"', Attributes(organization="Example, <Inc.>")),
        ("#joe", Attributes(unit="a\\b")),
        ("Müller", Attributes(organization="株式会社")),
    ],
)
def test_the_name_is_spelled_as_libvirt_spells_it(authority, name, attributes):
    issued = authority.client(name, attributes=attributes)
    # In quotes from libvirt 10 on.
    found = said("virt-pki-query-dn", issued.cert_file).rstrip("\n")
    assert issued.record.subject in (found, found.removeprefix('"').removesuffix('"'))


def test_gnutls_reads_the_revocation_list(authority, tmp_path):
    numbers = []
    for name in ("ann", "joe"):
        numbers.append(authority.client(name, to=flat(tmp_path / name)).record.number)
        authority.revoke(name, reason="keyCompromise")
        crl = authority.places.crl
        printed = said("certtool", "--crl-info", "--infile", crl)
        assert re.findall(r"Serial Number \(hex\): (\S+)", printed) == numbers
        assert f"CRL Number (not critical): {len(numbers):02x}" in printed
        verdict = said(
            *("certtool", "--verify-crl", "--load-ca-certificate", authority.places.ca),
            *("--infile", crl),
        )
        assert "Verification output: Verified" in verdict


# A CA that certtool has made


@pytest.fixture(params=["rsa", "ecdsa", "ed25519"])
def foreign(request, root, tmp_path):
    template = tmp_path / "template"
    template.write_text(CA_TEMPLATE)
    ca, key = tree(root).ca, Store(root).key
    key.parent.mkdir(parents=True, mode=0o700)
    bits = ["--bits", "2048"] if request.param == "rsa" else []
    said("certtool", "--generate-privkey", "--key-type", request.param, *bits, "--outfile", key)
    said(
        *("certtool", "--generate-self-signed", "--load-privkey", key),
        *("--template", template, "--outfile", ca),
    )
    return Authority.open(root)


def test_a_ca_of_certtools_issues_and_revokes(foreign, check):
    server, client = foreign.server(HOST).cert_file, foreign.client("joe").cert_file
    assert "Verified." in verified(foreign, server, "--verify-hostname", HOST)
    assert "Verified." in verified(foreign, client)
    assert check("--dir", foreign.places.root, "--host", HOST)[0] == 0

    foreign.revoke("joe")
    printed = said("certtool", "--crl-info", "--infile", foreign.places.crl)
    (record,) = (each for each in foreign.ledger().records if each.revocation)
    # certtool's own serials may begin with a zero, which it prints.
    shown = {int(each, 16) for each in re.findall(r"Serial Number \(hex\): (\S+)", printed)}
    assert int(record.number, 16) in shown
    status, document = check("--dir", foreign.places.root, "--host", HOST)
    assert status == 2
    (problem,) = document["problems"]
    assert "was revoked on" in problem["text"]


# libvirt's own


def test_libvirts_validator_accepts_the_tree(tmp_path):
    # It compares the CA's common name with everybody's organization.
    etc, host = tmp_path / "etc", socket.gethostname()
    etc.mkdir()
    authority = Authority.create(etc / "pki", name="Example")
    attributes = Attributes(organization="Example")
    authority.server(host, attributes=attributes)
    authority.client("joe", attributes=attributes)

    done = run_to_end(
        ["unshare", "--mount", "sh", "-euc", VALIDATE, "-", str(etc)], deadline_s=DEADLINE_S
    )

    if versions.libvirt() >= FIRST_THAT_CHECKS_KEYS:
        failed = re.findall(r"^ *(.*?) +: FAIL \((.*)\)$", done.stdout, re.MULTILINE)
        assert len(re.findall(r" : PASS$", done.stdout, re.MULTILINE)) == PASSED_CHECKS
        assert failed == KEYS_FOR_EVERYBODY
        assert done.status == 1
        return
    assert done.succeeded().splitlines() == [
        f"Found {shutil.which('certtool')}",
        "Found CA certificate /etc/pki/CA/cacert.pem for Example",
        "Found client certificate /etc/pki/libvirt/clientcert.pem for joe",
        "Found client private key /etc/pki/libvirt/private/clientkey.pem",
        # A key that everybody may read is what libvirt asks for here, and what we do not make.
        "The client private key need to be read by client tools",
        "as root do: chmod 644 /etc/pki/libvirt/private/clientkey.pem",
        f"Found server certificate /etc/pki/libvirt/servercert.pem for {host}",
        "Found server private key /etc/pki/libvirt/private/serverkey.pem",
    ]


def test_virsh_comes_in_with_its_files_until_it_is_revoked(authority, tmp_path):
    places = authority.places
    authority.server("localhost", names=["127.0.0.1"])
    authority.client("joe", to=flat(tmp_path / "joe"))
    authority.client("ann", to=flat(tmp_path / "ann"))
    authority.refresh_list()
    with short_directory() as behind, short_directory() as before, Libvirtd(behind) as libvirtd:
        config = {
            "proxyd_routes": [f"test={libvirtd.sock}"],
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tls_port": "0",
            "ca_file": str(places.ca),
            "crl_file": str(places.crl),
            "cert_file": str(places.server.certificate),
            "key_file": str(places.server.key),
        }
        with Proxyd(before, backend_dir=before, config=config) as proxyd:

            def comes_in(name):
                uri = tls_uri("test:///default", proxyd.tls_address(), tmp_path / name)
                return virsh(uri, "list", "--all")

            assert " test " in comes_in("joe").succeeded()
            authority.revoke("joe")
            proxyd.daemon.send(signal.SIGHUP)
            wait_until(lambda: RELOADED.search(proxyd.log_text()), DEADLINE_S, "it has reloaded")
            assert comes_in("joe").status != 0
            assert " test " in comes_in("ann").succeeded()
            assert "has been revoked" in proxyd.log_text()
