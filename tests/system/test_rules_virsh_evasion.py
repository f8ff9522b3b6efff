"""Who would like another rule to decide: other spellings of URIs, odd certificates, odd names."""

import ipaddress
import itertools
import re
import socket

import pytest
from cryptography import x509

from proxyd.sasl.passwords import PasswordFile
from proxyd.wire.frame import Status
from proxyd.wire.xdr import Reader
from tests.bed.network import CLIENT, SERVER, two_hosts
from tests.bed.pki import Pki
from tests.bed.proxyd_log import reload
from tests.bed.sasl import SERVICE, auth_file, tcp_uri, with_tickets
from tests.bed.virsh import tls_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, rpc_client
from tests.system.tls_client import LET_IN, client_context, tls_connected

pytestmark = pytest.mark.system

TEST = "test:///default"
GET_URI = 110  # CONNECT_GET_URI of procedures.tsv
DENIED = "denied access: its rules do not let this client open"


@pytest.fixture
def ruled(make_proxyd, tmp_path):
    """Makes a proxyd that goes by these rules; settings add to that."""

    def ruled(text, config=None, **options):
        rules = tmp_path / "rules"
        rules.write_text(text)
        made = make_proxyd({"proxyd_rules_file": str(rules), **(config or {})}, **options)
        made.rules = rules
        return made

    return ruled


def rule_of(front, number):
    """The line by which the session was opened that is the log's one of this number."""
    found = re.compile(r" opened: .*, by rule (\d+) ")
    return int(wait_until(lambda: found.findall(front.log_text())[number:], 10, "opened")[0])


# What is opened

SCHEMES = ["{}", "{}+unix", "{}+UNIX", "{upper}", "{upper}+unix", "{title}", "%{code}{tail}"]
BETWEEN = ["://", ":///", ":////", ":/", ":", "://localhost/", "://%2F", ":///./", ":///x/../"]
PATHS = [
    *("{}", "{}/", "{}//", "/{}", "./{}", "{upper}", "{title}", "%{code}{tail}", "{}%2F", "{}%20"),
    *("{}%00", "{}.", "{}/.", "{};x", "{}%3Fx", "{}%23", "{}%C0%AF"),
]
TAILS = [
    *("", "?", "?x=y", "#", "#x", "?#", "??", "?no_verify=1", "?name=qemu:///session"),
    *("?socket=/nowhere", "?command=x", "?%73ocket=/nowhere", "?mode=direct", "&x=y"),
]


def spelled(template, word):
    return template.format(
        word, upper=word.upper(), title=word.title(), code=f"{ord(word[0]):02x}", tail=word[1:]
    )


def spellings(driver, path):
    """Any two of its parts written in another way."""
    parts = (
        [spelled(each, driver) for each in SCHEMES],
        BETWEEN,
        [spelled(each, path) for each in PATHS],
        TAILS,
    )
    usual = (driver, ":///", path, "")
    for varied in itertools.combinations(range(4), 2):
        for pair in itertools.product(*(parts[each] for each in varied)):
            name = list(usual)
            for where, part in zip(varied, pair, strict=True):
                name[where] = part
            yield "".join(name)


def opened_as(sock, name):
    """How the daemon calls what it has opened for it, without query; None if it has not."""
    with rpc_client(sock) as client:
        if client.open(name).header.status != Status.OK:
            return None
        uri = Reader(client.call(GET_URI).payload).string()
        return uri.partition("?")[0]


@pytest.mark.parametrize(("driver", "path"), [("test", "default"), ("qemu", "system")])
def test_no_spelling_of_a_name_opens_what_is_denied_or_not_allowed(driver, path, ruled):
    name = f"{driver}:///{path}"
    names = list(dict.fromkeys(spellings(driver, path)))
    front = ruled("unix all * write\n")
    assert len(names) > 500

    as_what = {each: opened_as(front.sock, each) for each in names}
    same = [each for each in names if as_what[each] == name]
    assert len(same) > 10

    front.rules.write_text(f"unix all {name} deny\nunix all * write\n")
    reload(front)
    assert not [each for each in names if opened_as(front.sock, each) == name]
    front.rules.write_text(f"unix all {name} write\n")
    reload(front)
    found = {each: opened_as(front.sock, each) for each in names}
    assert set(found.values()) == {None, name}
    assert [each for each in names if found[each]] == same


@pytest.mark.parametrize("readonly", [False, True])
def test_a_name_that_is_left_to_the_proxy_is_asked_about_as_the_one_that_it_becomes(
    readonly, ruled
):
    front = ruled("unix,ro all qemu:///system deny\nunix,ro all * write\n")
    sock = front.sock_ro if readonly else front.sock

    for name in ("", None):
        with rpc_client(sock) as client:
            assert client.open(name).header.status == Status.ERROR
    assert front.log_text().count('cannot open "": rule 1 denies it') == 2


def test_a_query_has_no_say(ruled):
    front = ruled(f"unix all {TEST} write\n")

    for query in ("", "?x=y", "?x=/../qemu:///system", "?name=qemu:///system"):
        assert opened_as(front.sock, TEST + query) == TEST
    assert opened_as(front.sock, f"qemu:///system?name={TEST}") is None


# Certificates


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
                reply = RpcClient(sock).open(TEST)
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
    # Of more than 64 those behind are nobody's: whom they would let in stays outside.
    ([*OTHERS, x509.DNSName("x.kvm.example.org")], 0),
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


# Addresses

NETWORKS = """\
tls addr:10.78.1.7,addr:10.78.2.0/30 * write
tls addr:10.78.2.0/24&dn:CN=ann * write
tls addr:::/0,addr:127.0.0.1 * write
"""
FROM = {
    "10.78.1.7": 1,
    "10.78.1.70": 0,
    "10.78.2.3": 1,
    "10.78.2.4": 0,
    "10.79.0.1": 0,
}


def test_a_client_of_another_host_is_known_by_its_address(ruled, pki, monkeypatch):
    with two_hosts([each for each in FROM if each != CLIENT]) as (server, others):
        monkeypatch.setattr("tests.bed.proxyd.WRAPPER", server.command)
        listens = {"listen_tls": 1, "listen_addr": SERVER, "tls_port": "0"}
        front = ruled(NETWORKS, {**listens, **pki.settings(pki.server([SERVER]))})
        port = int(front.tls_address(SERVER).rpartition(":")[2])
        joe, ann = pki.client(("CN", "joe")), pki.client(("CN", "ann"))

        def lines(client):
            return {each: others.run(lambda each=each: line(each, client)) for each in FROM}

        def line(source, client):
            plain = socket.create_connection((SERVER, port), 20, (source, 0))
            with client_context(client).wrap_socket(plain) as sock:
                assert sock.recv(1) == LET_IN
                opened = front.log_text().count(" opened: ")
                reply = RpcClient(sock).open(TEST)
                return rule_of(front, opened) if reply.header.status == Status.OK else 0

        assert lines(joe) == FROM
        assert lines(ann) == {**FROM, "10.78.2.4": 2}
        front.stop()


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
    uri = tls_uri(TEST, front.tls_address(), pki.client(), auth="sasl.SCRAM-SHA-256")

    for number, name in enumerate(("ann", *ODD_NAMES), 1):
        file = auth_file(tmp_path / "auth.conf", name, "secret words")
        done = virsh(uri, "list", environment={"LIBVIRT_AUTH_FILE": str(file)})

        assert front.log_text().count("came in by SCRAM-SHA-256") == number, name
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

    done = virsh(tcp_uri(TEST, front.tcp_address()), "list", environment=environment)

    assert (done.status == 0) is opens
    assert (DENIED in done.stderr) is not opens
