"""Who would like to be taken for another one: odd certificates, odd names of SASL."""

import ipaddress
from functools import partial

import pytest
from cryptography import x509

from proxyd.sasl.passwords import PasswordFile
from proxyd.wire.frame import Status
from tests.bed.pki import Pki
from tests.bed.ruled_proxyd import DENIED, NAME, rule_of, ruled
from tests.bed.sasl import SERVICE, auth_file, tcp_uri, with_tickets
from tests.bed.virsh import tls_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient
from tests.system.tls_client import LET_IN, tls_connected

__all__ = ["ruled"]

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def lines_by_tls(ruled, pki):
    """Which line lets each of these clients in by TLS: 0 for none, None if TLS refuses it."""

    def lines_by_tls(rules, clients):
        listens = {"listen_tls": 1, "listen_addr": "127.0.0.1", "tls_port": "0"}
        front = ruled(rules, {**listens, **pki.settings(pki.server())})
        found, opened = [], 0
        for client in clients:
            with tls_connected(front.tls_address(), client) as sock:
                if sock.recv(1) != LET_IN:
                    found.append(None)
                    continue
                reply = RpcClient(sock).open(NAME)
                if reply.header.status == Status.OK:
                    found.append(rule_of(front, opened))
                    opened += 1
                else:
                    assert DENIED.encode() in bytes(reply.payload)
                    found.append(0)
        return found

    return lines_by_tls


SANS = """\
tls san:kvm7.example.org * write
tls san:ann@example.org * write
tls san:spiffe://example.org/monitor * write
tls san:*.kvm.example.org * write
tls san:192.0.2.7 * write
"""


def raw_email(text):
    return x509.RFC822Name._init_without_validation(text)


OTHERS = [x509.DNSName(f"h{n}.example.com") for n in range(99)]
OTHER_NAMES = [
    ([x509.DNSName("kvm7.example.org")], 1),
    ([x509.DNSName("KVM7.Example.ORG")], 1),
    ([x509.DNSName("kvm7.example.org.")], 0),
    ([x509.DNSName("*.example.org")], 0),
    ([x509.DNSName("*")], 0),
    ([x509.DNSName("kvm?.example.org")], 0),
    ([x509.DNSName("kvm7.example.org\0.example.com")], 0),
    ([x509.DNSName("dns:kvm7.example.org")], 0),
    ([x509.UniformResourceIdentifier("kvm7.example.org")], 0),
    ([raw_email("kvm7.example.org")], 0),
    ([x509.RFC822Name("ann@example.org")], 2),
    ([x509.RFC822Name("ann@EXAMPLE.org")], 2),
    ([x509.RFC822Name("Ann@example.org")], 0),
    ([x509.DNSName("ann@example.org")], 0),
    ([x509.DNSName("email:ann@example.org")], 0),
    ([x509.UniformResourceIdentifier("ann@example.org")], 0),
    ([raw_email("ann@example.org\0@example.com")], 0),
    ([raw_email("ann@example.org,bob@example.org")], 0),
    ([x509.UniformResourceIdentifier("spiffe://example.org/monitor")], 3),
    ([x509.UniformResourceIdentifier("SPIFFE://example.org/monitor")], 0),
    ([x509.UniformResourceIdentifier("spiffe://example.org/monitor/")], 0),
    ([x509.UniformResourceIdentifier("spiffe://example.org/%6Donitor")], 0),
    ([x509.UniformResourceIdentifier("spiffe://example.org/monitor?x")], 0),
    ([x509.DNSName("spiffe://example.org/monitor")], 0),
    ([raw_email("spiffe://example.org/monitor")], 0),
    ([x509.DNSName("a.kvm.example.org")], 4),
    ([x509.DNSName("kvm.example.org")], 0),
    ([x509.DNSName("a.kvm.example.org.example.com")], 0),
    ([x509.DNSName("akvm.example.org")], 0),
    ([x509.IPAddress(ipaddress.ip_address("192.0.2.7"))], 0),
    ([x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))], 0),
    ([*OTHERS[:40], x509.DNSName("x.kvm.example.org")], 4),
    ([*OTHERS, x509.DNSName("x.kvm.example.org")], 4),
    ([x509.DNSName("x.kvm.example.org"), *OTHERS], 4),
    # More than the parts of a certificate may be.
    ([x509.DNSName("x.kvm.example.org"), *OTHERS, *OTHERS, *OTHERS], None),
]


def test_other_names_are_compared_with_their_own_kind(lines_by_tls, pki):
    clients = [pki.client(("CN", "odd"), names=names) for names, _ in OTHER_NAMES]

    found = lines_by_tls(SANS, clients)

    assert list(zip([names for names, _ in OTHER_NAMES], found, strict=True)) == OTHER_NAMES


def test_a_certificate_without_a_subject_is_refused_whatever_its_other_names(lines_by_tls, pki):
    client = pki.client(names=[x509.DNSName("kvm7.example.org")], nameless=True)

    assert lines_by_tls(SANS, [client]) == [None]


SUBJECTS = """\
tls dn:"O=Example,CN=monitor" * write
tls dn:CN=monitor * write
tls dn:"CN=a,b" * write
"""


ODD_SUBJECTS = [
    ([("O", "Example"), ("CN", "monitor")], 1),
    ([("O", "Example,CN=monitor")], 0),
    ([("CN", "monitor"), ("O", "Example")], 0),
    ([("O", "Example"), ("CN", "monitor"), ("CN", "x")], 0),
    ([("O", "x"), ("O", "Example"), ("CN", "monitor")], 0),
    ([("O", "Example"), ("CN", "Monitor")], 0),
    ([("O", "Example"), ("CN", "monitor ")], 0),
    ([("O", "Example"), ("CN", "monitor\0")], 0),
    ([("O", "Example"), ("CN", "mon*")], 0),
    ([("CN", "monitor")], 2),
    ([("CN", "monitor,O=Example")], 0),
    ([("CN", "monitor+O=x")], 0),
    ([("CN", "a,b")], 0),  # its subject is CN=a\\,b
    ([("CN", "*")], 0),
]


def test_subjects_are_compared_as_a_whole(lines_by_tls, pki):
    found = lines_by_tls(SUBJECTS, [pki.client(*subject) for subject, _ in ODD_SUBJECTS])

    assert list(zip([subject for subject, _ in ODD_SUBJECTS], found, strict=True)) == ODD_SUBJECTS


# SASL

ODD_NAMES = [
    "Ann",
    "ann@EXAMPLE.COM",
    "ann,bob",
    "*",
    "an?",
    "ann bob",
    "sasl-ann",
    "аnn",
    "ann=2C",
]


def has_come_in(front, times):
    return front.log_text().count("came in by SCRAM-SHA-256") == times


def test_names_of_passwords_are_compared_as_a_whole(ruled, pki, tmp_path):
    passwords = tmp_path / "passwords"
    for name in ("ann", *ODD_NAMES):
        PasswordFile(str(passwords)).set_password(name, "secret words")
    front = ruled(
        "tls sasl:ann * write\n",
        {
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tls_port": "0",
            "auth_tls": "sasl",
            "proxyd_passwords": str(passwords),
            **pki.settings(pki.server()),
        },
    )
    uri = tls_uri(NAME, front.tls_address(), pki.client(), auth="sasl.SCRAM-SHA-256")

    for number, name in enumerate(("ann", *ODD_NAMES), 1):
        file = auth_file(tmp_path / "auth.conf", name, "secret words")
        done = virsh(uri, "list", environment={"LIBVIRT_AUTH_FILE": str(file)})

        wait_until(partial(has_come_in, front, number), 10, f"{name} has come in")
        assert (done.status == 0) is (name == "ann"), name
        assert (DENIED in done.stderr) is (name != "ann"), name


@pytest.mark.parametrize(
    ("principal", "rule", "opens"),
    [
        ("joe", "sasl:joe", True),
        ("joe/admin", "sasl:joe", False),
        ("joe/admin", "sasl:joe/admin", True),
        ("joe", "sasl:joe@PROXYD.TEST", False),
        ("fred", "sasl:joe", False),
    ],
)
def test_names_of_tickets_are_compared_as_a_whole(principal, rule, opens, ruled, kdc):
    front = ruled(
        f"tcp {rule} * write\n",
        {
            "listen_tcp": 1,
            "listen_addr": "127.0.0.1",
            "tcp_port": "0",
            "proxyd_keytab": str(kdc.keytab(SERVICE)),
        },
        environment=kdc.environment,
    )
    environment = with_tickets(kdc, kdc.tickets(principal))

    done = virsh(tcp_uri(NAME, front.tcp_address()), "list", environment=environment)

    assert (done.status == 0) is opens
    assert (DENIED in done.stderr) is not opens


def test_a_glob_of_a_subject_takes_no_escaped_comma_for_its_own(lines_by_tls, pki):
    subjects = [
        [("CN", "x"), ("O", "Example")],
        [("CN", "x,O=Example")],
        [("CN", "a"), ("OU", "b"), ("O", "Example")],
        [("CN", "x"), ("O", "y,O=Example")],
    ]
    clients = [pki.client(*each) for each in subjects]
    assert lines_by_tls('tls dn:"CN=*,O=Example" * write\n', clients) == [1, 0, 1, 0]
