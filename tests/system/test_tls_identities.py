"""Several identities of one proxyd: which files count, who is shown what, and what never starts."""

import functools
import json
import re
import socket
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from OpenSSL import SSL
from OpenSSL._util import lib

from proxyd.tls.trial import LIBVIRT, client_context
from tests.bed.command import held_open, run_to_end
from tests.bed.daemon import short_directory
from tests.bed.hellos import GROUPS, SIGNATURES, VERSIONS
from tests.bed.pki import DAY, Pki, write_certificates, write_key
from tests.bed.tls import PROXYD_LISTENS, listening_proxyd, patient, takes
from tests.bed.virsh import held_virsh, tls_uri, virsh, virt_admin
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

NEW_KEYS = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}
# What clients of TLS 1.3 can be limited to.
ONLY = {
    "RSA": b"rsa_pss_rsae_sha256",
    "P-256": b"ecdsa_secp256r1_sha256",
    "P-384": b"ecdsa_secp384r1_sha384",
    "Ed25519": b"ed25519",
}


@functools.cache
def key_of(kind):
    return NEW_KEYS[kind]()


class Place:
    """A directory of identities that a proxyd is configured for."""

    def __init__(self, directory, pki):
        self.directory = directory
        self.pki = pki
        self.serials = {}  # of what was put there, to its name

    def put(self, number, kind, **validity):
        """An identity under its number, "" for the one without."""
        issued = self.pki.server(key=key_of(kind), **validity)
        write_certificates(self.certificate(number), issued.certificate)
        write_key(self.key(number), issued.key)
        self.serials[issued.certificate.serial_number] = f"servercert{number}"

    def certificate(self, number):
        return self.directory / f"servercert{number}.pem"

    def key(self, number):
        return self.directory / f"serverkey{number}.pem"

    def empty(self):
        for path in self.directory.glob("server*.pem"):
            path.unlink()

    @property
    def settings(self):
        return {
            "ca_file": str(self.pki.ca_file),
            "cert_file": str(self.certificate("")),
            "key_file": str(self.key("")),
        }


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def joe(pki):
    return pki.client(("CN", "joe"))


@pytest.fixture
def place(tmp_path, pki):
    return Place(tmp_path, pki)


@pytest.fixture(scope="module")
def reloading(pki, tmp_path_factory):
    """A proxyd that is told to reload again and again, which looks at the files as a start does."""
    settings = pki.settings(pki.server())
    with short_directory() as directory, listening_proxyd(directory, settings) as running:
        yield running


def shown(proxyd, place, signatures=None):
    """Which of the identities a client is shown that knows these signatures."""
    host, _, port = proxyd.tls_address().rpartition(":")
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    if signatures:
        assert lib.SSL_CTX_set1_sigalgs_list(context._context, signatures)
    with patient(socket.create_connection((host, int(port)), timeout=10)) as sock:
        connection = SSL.Connection(context, sock)
        connection.set_connect_state()
        connection.do_handshake()
        certificate = connection.get_peer_certificate(as_cryptography=True)
        return place.serials.get(certificate.serial_number)


EVERYBODY = {"tls_no_verify_certificate": 1}  # these clients cannot sign for themselves


@pytest.mark.parametrize(
    ("put", "usual", "only"),
    [
        (["", "RSA"], "servercert", {"RSA": "servercert"}),
        (
            ["", "RSA", "0", "P-256", "1", "Ed25519", "2", "P-384"],
            "servercert",
            {
                "RSA": "servercert",
                "P-256": "servercert0",
                "Ed25519": "servercert1",
                "P-384": "servercert2",
            },
        ),
        (
            ["", "P-256", "0", "RSA", "1", "RSA"],
            "servercert",
            {"RSA": "servercert0", "P-256": "servercert"},
        ),
        (
            ["", "Ed25519", "0", "P-256", "2", "RSA"],
            "servercert",
            {"Ed25519": "servercert", "P-256": "servercert0", "RSA": "nobody"},
        ),
        (
            ["", "P-384", "0", "P-256", "1", "P-384", "2", "RSA", "3", "Ed25519"],
            "servercert",
            {"P-256": "servercert0", "RSA": "servercert2", "Ed25519": "servercert3"},
        ),
    ],
)
@pytest.mark.parametrize("in_kernel", [0, 1], ids=["", "proxyd_kernel_tls"])
def test_each_client_is_shown_the_first_that_suits_it(
    reloading, place, put, usual, only, in_kernel
):
    for number, kind in zip(put[::2], put[1::2], strict=True):
        place.put(number, kind)
    more = {**EVERYBODY, "proxyd_kernel_tls": in_kernel}
    assert takes(reloading, {**place.settings, **more})
    assert shown(reloading, place) == usual
    for kind, name in only.items():
        if name == "nobody":
            with pytest.raises(SSL.Error, match="handshake failure"):
                shown(reloading, place, ONLY[kind])
            wait_until(lambda: "knows no signatures of our keys" in reloading.log_text(), 10, "")
        else:
            assert shown(reloading, place, ONLY[kind]) == name


def test_what_is_named_one_by_one_comes_behind_the_numbers(reloading, place, tmp_path, pki):
    place.put("", "RSA")
    place.put("0", "P-256")
    further = Place(tmp_path / "further", pki)
    further.directory.mkdir()
    further.put("", "P-256")
    further.put("9", "Ed25519")
    pairs = [f"{further.certificate(each)}:{further.key(each)}" for each in ("", "9")]
    assert takes(reloading, {**place.settings, **EVERYBODY, "proxyd_more_certificates": pairs})
    assert shown(reloading, place, ONLY["P-256"]) == "servercert0"
    assert shown(reloading, further, ONLY["Ed25519"]) == "servercert9"


def test_a_reload_takes_identities_in_and_out(reloading, place):
    place.put("", "RSA")
    settings = {**place.settings, **EVERYBODY}
    assert takes(reloading, settings)
    place.put("0", "P-256")
    with pytest.raises(SSL.Error):
        shown(reloading, place, ONLY["P-256"])  # not yet
    assert takes(reloading, settings)
    assert shown(reloading, place, ONLY["P-256"]) == "servercert0"
    for path in (place.certificate("0"), place.key("0")):
        path.unlink()
    assert takes(reloading, settings)
    with pytest.raises(SSL.Error):
        shown(reloading, place, ONLY["P-256"])
    assert shown(reloading, place) == "servercert"


BROKEN = {
    "no key": (lambda place: place.key("0").unlink(), "serverkey0.pem: there is no such file, but"),
    "no certificate": (
        lambda place: place.certificate("0").unlink(),
        "servercert0.pem: there is no such file, but there is",
    ),
    "no key in it": (lambda place: place.key("0").write_text("hello"), "serverkey0.pem: it is not"),
    "another's key": (
        lambda place: write_key(place.key("0"), NEW_KEYS["P-256"]()),
        "serverkey0.pem: the key does not belong to the certificate",
    ),
    "expired": (
        lambda place: place.put("0", "P-256", begins=-3 * DAY, ends=-DAY),
        'servercert0.pem: the certificate of "CN=localhost" expired on',
    ),
    "no use": (
        lambda place: place.put("0", "P-224"),
        "servercert0.pem: no client can use its secp224r1 key with the default tls_priority",
    ),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_reload_with_a_broken_identity_changes_nothing_and_names_it(reloading, place, damage):
    place.put("", "RSA")
    place.put("0", "P-256")
    settings = {**place.settings, **EVERYBODY}
    assert takes(reloading, settings)
    before = len(reloading.log_text())
    damage, says = BROKEN[damage]
    damage(place)
    assert not takes(reloading, settings)
    assert says in reloading.log_text()[before:]
    assert f"{place.directory}/" in reloading.log_text()[before:]
    (serial,) = (each for each, name in place.serials.items() if name == "servercert")
    assert serial
    assert shown(reloading, place, ONLY["P-256"]) == "servercert0"


def test_a_number_behind_a_gap_is_warned_of(reloading, place):
    place.put("", "RSA")
    place.put("1", "P-256")
    assert takes(reloading, {**place.settings, **EVERYBODY})
    gap = f"{place.certificate('1')}: it is not used, for the numbers end where one is missing"
    assert gap in reloading.log_text()


# What cannot serve


def refused(settings):
    """The exit status of a start, and what it said."""
    with short_directory() as directory:
        proxyd = listening_proxyd(directory, {**settings, "proxyd_strict_start": 1})
        with pytest.raises(ChildProcessError) as failed:
            proxyd.start()
    told = "".join(getattr(failed.value, "__notes__", ()))
    return re.search(r"ended with (\d+)", str(failed.value))[1], told


@pytest.mark.parametrize(
    ("kind", "priority", "reason"),
    [
        ("Ed25519", "NORMAL:-VERS-TLS1.3:-ECDHE-ECDSA", "lacks a key exchange for it"),
        ("RSA", "SECURE256", "key too small"),
        ("RSA", "NORMAL:-VERS-TLS1.3:-ECDHE-RSA:-DHE-RSA", "lacks a key exchange for it"),
    ],
)
def test_nothing_starts_that_cannot_serve(place, kind, priority, reason):
    place.put("", kind)
    status, told = refused({**place.settings, "tls_priority": priority})
    assert status == "6"
    for part in (str(place.certificate("")), f'tls_priority = "{priority}"', reason):
        assert part in told
    check = [sys.executable, "-m", "certs", "check", "--dir", str(as_flat(place))]
    checked = run_to_end([*check, "--tls-priority", priority], deadline_s=30)
    assert checked.status == 2
    assert reason in checked.stdout


def as_flat(place):
    """The same as a directory that `certs` knows."""
    write_certificates(place.directory / "cacert.pem", place.pki.certificate)
    place.directory.chmod(0o700)
    return place.directory


def test_forward_secrecy_and_aead_given_up_work_and_are_said_each_time(reloading, place, joe):
    place.put("", "RSA")
    settings = {**place.settings, "tls_priority": "LEGACY"}
    for _ in range(2):
        before = len(reloading.log_text())
        assert takes(reloading, settings)
        said = reloading.log_text()[before:]
        assert said.count('tls_priority = "LEGACY": allows RSA key exchange') == 1
        assert said.count('tls_priority = "LEGACY": allows AES-CBC') == 1
    for exchange, cipher in (("RSA", "AES-256-GCM"), ("ECDHE-RSA", "AES-128-CBC")):
        only = f"NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+{exchange}:-CIPHER-ALL:+{cipher}"
        done = virsh(tls_uri("test:///default", reloading.tls_address(), joe, tls_priority=only))
        # There is no daemon behind this one: that it says so is the end of the way.
        assert "virtqemud" in done.stderr or "daemon" in done.stderr or "socket" in done.stderr


# What is told


@pytest.fixture
def told_of(make_proxyd, place):
    """A proxyd with two identities, started with these settings; and what its status is."""

    def told_of(**settings):
        place.put("", "RSA")
        place.put("0", "P-256")
        front = make_proxyd({**PROXYD_LISTENS, **place.settings, **settings})
        return front, lambda: json.loads(asked(front, "status", "--json").stdout)

    return told_of


def asked(front, *words):
    command = [sys.executable, "-m", "proxyd", *words, "-s", str(front.directory)]
    return run_to_end(command, deadline_s=30)


def test_the_status_has_every_identity_with_its_file_key_subject_and_end(told_of, place):
    front, status = told_of()
    found = [each for each in status()["certificates"] if each["role"] == "server"]
    assert [(each["file"], each["key"], each["subject"]) for each in found] == [
        (str(place.certificate("")), "RSA-2048", "CN=localhost"),
        (str(place.certificate("0")), "P-256", "CN=localhost"),
    ]
    assert all(55 < each["days_left"] < 60 for each in found)
    text = asked(front, "status").stdout
    assert f"RSA-2048  {place.certificate('')}" in text
    checked = run_to_end(
        [sys.executable, "-m", "certs", "check", "--dir", str(as_flat(place))], deadline_s=30
    )
    assert checked.status == 0
    assert f"ok       {place.certificate('0')}\n" in checked.stdout
    assert "P-256, until " in checked.stdout


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "x509"),
        ({"tls_allowed_dn_list": ["CN=*"]}, "x509 + allowed list"),
        ({"tls_no_verify_certificate": 1}, "none (certificates are not verified)"),
    ],
)
def test_what_authenticates_is_told_of_listeners_and_clients(told_of, joe, settings, says):
    front, status = told_of(**settings)
    (tls,) = (each for each in status()["listeners"] if each["transport"] == "tls")
    assert tls["authentication"] == says
    assert says in asked(front, "status").stdout
    uri = tls_uri("test:///default", front.tls_address(), joe)
    with held_virsh(uri) as client:
        client.stdin.write("uri\n")
        client.stdin.flush()
        found = wait_until(
            lambda: [
                each
                for each in json.loads(asked(front, "clients", "--json").stdout)
                if each["transport"] == "tls" and each["authentication"]
            ],
            10,
            "the client is known",
        )
        assert found[0]["authentication"] == says
        number = str(found[0]["id"])
        told = virt_admin(front.admin_sock, "client-info", "virtproxyd", number).succeeded()
        assert re.search(rf"^authentication\s*: {re.escape(says)}$", told, re.MULTILINE)


# libvirt's offer


def words_of(content):
    return [content[at : at + 2].hex() for at in range(0, len(content), 2)]


def fields_of(hello):
    """Ciphers and extensions of a ClientHello in one record."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    size = int.from_bytes(hello[at : at + 2], "big")
    ciphers = words_of(hello[at + 2 : at + 2 + size])
    at += 2 + size
    at += 1 + hello[at] + 2
    extensions = {}
    while at < len(hello):
        kind, size = (int.from_bytes(hello[at + n : at + n + 2], "big") for n in (0, 2))
        extensions[kind] = hello[at + 4 : at + 4 + size]
        at += 4 + size
    return ciphers, extensions


def test_the_offer_that_is_tried_is_that_of_virsh(joe):
    """What GnuTLS 3.7.9 and 3.8.9 have in NORMAL; OpenSSL says the same in its own hello."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        uri = tls_uri("test:///default", f"127.0.0.1:{listener.getsockname()[1]}", joe)
        with held_open(["virsh", "--quiet", "-c", uri, "list"]):
            sock, _ = listener.accept()
            with sock:
                real = fields_of(sock.recv(16384))
    client = SSL.Connection(client_context(LIBVIRT), None)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    ours = fields_of(client.bio_read(16384))
    assert [each for each in ours[0] if each != "00ff"] == real[0]  # which says it can renegotiate
    for extension in (GROUPS, SIGNATURES):
        assert words_of(ours[1][extension]) == words_of(real[1][extension])
    assert {"0304", "0303"} <= set(words_of(real[1][VERSIONS][1:]))
