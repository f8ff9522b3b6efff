"""Whom our identities serve: nobody is fatal, not libvirt's clients a warning."""

import datetime as dt
import functools

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL._util import lib

from proxyd.config.concessions import concessions
from proxyd.config.priority import TlsVersion, parse_priority
from proxyd.config.settings import resolve
from proxyd.pki.certificates import load_credentials
from proxyd.pki.files import CertificateFiles
from proxyd.tls.reach import of_no_verification, problems_of_reach
from proxyd.tls.server_context import make_server_tls, problems_in_use, sends_tickets
from proxyd.tls.trial import LIBVIRT, WIDEST, tried
from tests.bed.command import run_to_end
from tests.bed.minting import certificates_pem, key_pem
from tests.bed.pki import write_certificates, write_key
from tests.pki.minting import key_usage, purposes
from tests.system.certificate_rows import ROOT, authority, server

CURVES = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
    "P-224": ec.SECP224R1(),
    "secp256k1": ec.SECP256K1(),
    "brainpool": ec.BrainpoolP256R1(),
}
CLASSICAL = ["RSA-2048", "P-256", "P-384", "P-521", "Ed25519"]
ONLY_1_2 = "NORMAL:-VERS-TLS1.3"
NO_ECDSA = f"{ONLY_1_2}:-ECDHE-ECDSA"
NO_RSA = f"{ONLY_1_2}:-ECDHE-RSA:-DHE-RSA"


@functools.cache
def key_of(kind):
    if kind.startswith("RSA-"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(CURVES[kind])


class Identities:
    """A CA, and credentials made of certificates that it signs."""

    def __init__(self, directory):
        self.directory = directory
        self.key = key_of("P-256")
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])
        self.ca = self._signed(self.name, self.key, x509.BasicConstraints(True, None))
        self.ca_file = directory / "cacert.pem"
        write_certificates(self.ca_file, self.ca)
        self.count = 0

    def _signed(self, name, key, *extensions):
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder(self.name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=60))
        )
        for each in extensions:
            builder = builder.add_extension(each, critical=isinstance(each, x509.BasicConstraints))
        return builder.sign(self.key, algorithm=hashes.SHA256())

    def make(self, kind, *usage):
        """The files of an identity; without `usage` it has no keyUsage."""
        key = key_of(kind)
        extensions = [
            x509.BasicConstraints(ca=False, path_length=None),
            purposes(ExtendedKeyUsageOID.SERVER_AUTH),
            x509.SubjectAlternativeName([x509.DNSName("localhost")]),
        ]
        if usage:
            extensions.append(key_usage(*usage))
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, kind)])
        return self.put(self._signed(name, key, *extensions), key)

    def put(self, certificate, key):
        self.count += 1
        pair = [self.directory / f"{self.count}{part}.pem" for part in ("cert", "key")]
        write_certificates(pair[0], certificate)
        write_key(pair[1], key)
        return tuple(map(str, pair))

    def credentials(self, *pairs):
        files = CertificateFiles(ca=str(self.ca_file), crl=None, pairs=pairs)
        return load_credentials(files, now=dt.datetime.now(dt.UTC), check=False)


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    return Identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture
def judged(identities):
    """A function: what is said of identities of these kinds under a tls_priority."""

    def judged(*kinds, priority=None):
        pairs = [identities.make(kind) for kind in kinds]
        return pairs, problems_in_use(identities.credentials(*pairs), priority)

    return judged


@pytest.mark.parametrize("kind", CLASSICAL)
def test_usual_keys_serve_everybody(judged, kind):
    _, problems = judged(kind)
    assert problems == []


@pytest.mark.parametrize(
    ("kind", "priority", "reasons"),
    [
        ("P-256", NO_ECDSA, ["no shared cipher", "lacks a key exchange", "+ECDHE-ECDSA"]),
        ("Ed25519", NO_ECDSA, ["no shared cipher", "lacks a key exchange", "+ECDHE-ECDSA"]),
        ("RSA-2048", NO_RSA, ["no shared cipher", "lacks a key exchange", "+ECDHE-RSA"]),
        ("RSA-2048", "SUITEB128", ["key too small"]),
        ("RSA-2048", "SECURE256", ["key too small"]),
        ("RSA-3072", "SUITEB128", ["no shared cipher", "+ECDHE-RSA"]),
        ("P-224", None, ["no shared cipher", "no use for this curve"]),
        ("secp256k1", None, ["no shared cipher", "no use for this curve"]),
        ("P-256", "SUITEB192", ["key too small"]),
    ],
)
def test_an_identity_that_no_client_can_use_is_fatal_with_its_file(judged, kind, priority, reasons):
    ((certificate, _),), problems = judged(kind, priority=priority)
    (problem,) = problems
    assert problem.fatal
    assert problem.path == certificate
    for each in reasons:
        assert each in problem.text
    assert (f'tls_priority = "{priority}"' if priority else "the default tls_priority") in str(
        problem
    )
    assert "proxyd certs server" in problem.fix


def test_one_useless_identity_among_others_is_fatal_all_the_same(judged):
    pairs, problems = judged("RSA-2048", "P-224")
    assert [(each.path, each.fatal) for each in problems] == [(pairs[1][0], True)]


def test_every_useless_identity_is_told(judged):
    pairs, problems = judged("P-224", "secp256k1")
    assert [each.path for each in problems] == [pair[0] for pair in pairs]


@pytest.mark.parametrize(
    ("kinds", "fatal"), [(("Ed25519", "RSA-2048"), False), (("Ed25519",), True)]
)
def test_an_identity_whose_signatures_are_switched_off_may_stay_beside_another(
    identities, kinds, fatal
):
    """As an ML-DSA one does where libvirt's documented tls_priority switches those off."""
    credentials = identities.credentials(*map(identities.make, kinds))
    policy = parse_priority(None)
    tls = make_server_tls(credentials, policy, enforce=True, allowed=None)
    for context in tls.contexts:
        assert lib.SSL_CTX_set1_sigalgs_list(context._context, b"rsa_pss_rsae_sha256:RSA+SHA256")
    (problem,) = problems_of_reach(tls.identities, policy, None)
    assert problem.path == credentials.pairs[0].certificate_file
    assert problem.fatal == fatal
    assert ("no client is shown it" in problem.text) == (not fatal)
    assert "Ed25519" in problem.text


@pytest.mark.parametrize(
    ("kind", "other", "change"),
    [
        ("P-256", "RSA-2048", "-SIGN-ECDSA-SHA256:-SIGN-ECDSA-SHA384:-SIGN-ECDSA-SHA512"),
        ("P-256", "RSA-2048", "-VERS-TLS1.2:-SIGN-ECDSA-SECP256R1-SHA256"),
        ("P-384", "RSA-2048", "-SIGN-ALL:+SIGN-RSA-PSS-RSAE-SHA256"),
        ("P-521", "RSA-2048", "-VERS-TLS1.3:-SIGN-ALL:+SIGN-RSA-SHA256"),
        ("Ed25519", "RSA-2048", "-VERS-TLS1.3:-SIGN-ALL:+SIGN-RSA-SHA256"),
        ("RSA-2048", "P-256", "-SIGN-ALL:+SIGN-ECDSA-SECP256R1-SHA256"),
    ],
)
def test_a_priority_may_switch_off_keys_of_any_kind(judged, kind, other, change):
    """For each of these OpenSSL has other words."""
    pairs, problems = judged(other, kind, priority=f"NORMAL:{change}")
    (found,) = (each for each in problems if each.path == pairs[1][0])
    assert not found.fatal
    assert "no client is shown it" in found.text
    (alone,) = judged(kind, priority=f"NORMAL:{change}")[1]
    assert alone.fatal
    assert "it has no signatures of such keys" in alone.text


@pytest.mark.parametrize(
    ("kind", "change"),
    [("P-224", "-VERS-TLS1.2"), ("P-256", "-VERS-TLS1.3:-ECDHE-ECDSA"), ("secp256k1", "-DHE-RSA")],
)
def test_what_is_useless_for_other_reasons_was_not_switched_off(judged, kind, change):
    pairs, problems = judged("RSA-2048", kind, priority=f"NORMAL:{change}")
    (found,) = (each for each in problems if each.path == pairs[1][0])
    assert found.fatal


def test_what_libvirt_s_clients_cannot_use_is_a_warning_that_names_them(judged):
    ((certificate, _),), (problem,) = judged("brainpool")
    assert not problem.fatal
    assert problem.path == certificate
    assert "libvirt's clients with usual settings" in problem.text
    assert "brainpool" in problem.text
    assert "no s" in problem.text  # OpenSSL's reason, "no shared cipher" or "no suitable …"


def test_it_is_none_if_another_identity_serves_them(judged):
    assert judged("brainpool", "RSA-2048")[1] == []


def test_clients_of_one_version_that_are_left_out_are_told(judged):
    _, (problem,) = judged("RSA-2048", priority="NORMAL:-ECDHE-RSA:-DHE-RSA")
    assert not problem.fatal
    assert "clients that speak TLS 1.2 alone are left out" in problem.text
    assert judged("RSA-2048", "P-256", priority="NORMAL:-ECDHE-RSA:-DHE-RSA")[1] == []


@pytest.mark.parametrize("version", TlsVersion)
@pytest.mark.parametrize("kind", CLASSICAL)
def test_both_offers_are_tried_in_each_version(identities, kind, version):
    credentials = identities.credentials(identities.make(kind))
    tls = make_server_tls(credentials, parse_priority(None), enforce=True, allowed=None)
    for offer in (WIDEST, LIBVIRT):
        outcome = tried(tls.contexts[0], offer, only=version)
        assert (outcome.version, outcome.refusal, outcome.has_ticket) == (version, "", False)


# What GnuTLS has against a certificate that OpenSSL uses


@pytest.mark.parametrize(
    ("kind", "granted", "priority", "lacks"),
    [
        ("RSA-2048", "digital_signature", None, ""),
        ("P-256", "digital_signature", None, ""),
        ("Ed25519", "digital_signature", None, ""),
        ("RSA-2048", "key_encipherment", None, "digitalSignature"),
        ("RSA-2048", "key_encipherment", "NONE:+VERS-TLS1.2:+AES-256-GCM:+RSA:+AEAD", ""),
        (
            "RSA-2048",
            "digital_signature",
            "NONE:+VERS-TLS1.2:+AES-256-GCM:+RSA:+AEAD",
            "keyEncipherment",
        ),
    ],
)
def test_a_key_usage_is_held_against_what_the_key_is_used_for(
    identities, kind, granted, priority, lacks
):
    pair = identities.make(kind, granted)
    problems = problems_in_use(identities.credentials(pair), priority)
    of_usage = [each.text for each in problems if "keyUsage" in each.text]
    assert bool(of_usage) == bool(lacks)
    assert all(f"keyUsage lacks {lacks}" in text for text in of_usage)
    assert not any(each.fatal for each in problems)


def openssl_identity(identities, name, *made):
    """One of a kind that `cryptography` does not make; self-signed."""
    key, certificate = identities.directory / f"{name}.key", identities.directory / f"{name}.crt"
    signing = ("req", "-x509", "-subj", f"/CN={name}", "-addext", "basicConstraints=CA:FALSE")
    for command in (
        ("openssl", *made, "-out", str(key)),
        ("openssl", *signing, "-key", str(key), "-out", str(certificate)),
    ):
        run_to_end(command, deadline_s=10).succeeded()
    return str(certificate), str(key)


def test_a_curve_without_its_name_is_read_by_openssl_alone(identities):
    curve = ("ecparam", "-name", "prime256v1", "-param_enc", "explicit", "-genkey", "-noout")
    pair = openssl_identity(identities, "explicit", *curve)
    (problem,) = problems_in_use(identities.credentials(pair), None)
    assert not problem.fatal
    assert "a curve's parameters instead of its name" in problem.text


@pytest.mark.system  # the openssl command
def test_a_key_for_rsa_pss_alone_serves_everybody(identities):
    kind = ("genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048")
    pair = openssl_identity(identities, "pss", *kind)
    assert problems_in_use(identities.credentials(pair), None) == []
    assert problems_in_use(identities.credentials(pair), ONLY_1_2) == []


@pytest.mark.parametrize("which", ["the server's own", "that of a CA below the root"])
def test_a_digest_that_clients_refuse_is_a_warning(identities, which):
    """The sanity check refuses it, unless it is switched off."""
    middle = authority("middle", issuer=ROOT, digest="SHA256" if "own" in which else "SHA1")
    leaf = server(issuer=middle, digest="SHA1" if "own" in which else "SHA256")
    (problem,) = problems_in_use(identities.credentials(chain(identities, leaf, middle)), None)
    assert not problem.fatal
    assert "is signed with sha1" in problem.text


def chain(identities, leaf, *between):
    """The files of an identity with CAs in them."""
    pair = [identities.directory / name for name in ("chain.pem", "chainkey.pem")]
    pair[0].write_bytes(certificates_pem([leaf, *between]))
    pair[1].write_bytes(key_pem(leaf))
    return tuple(map(str, pair))


# Contexts


def test_all_contexts_trust_by_one_store(identities):
    pairs = [identities.make(kind) for kind in ("RSA-2048", "P-256")]
    tls = make_server_tls(
        identities.credentials(*pairs), parse_priority(None), enforce=True, allowed=None
    )
    one, other = (context.get_cert_store()._store for context in tls.contexts)
    assert one == other


def test_tickets_are_not_taken_for_what_follows_a_retry(identities):
    """A client that has to try again makes the server speak once more, which is no ticket."""
    tls = make_server_tls(
        identities.credentials(identities.make("P-256")),
        parse_priority(None),
        enforce=True,
        allowed=None,
    )
    assert lib.SSL_CTX_set1_curves_list(tls.contexts[0]._context, b"P-384")
    assert not sends_tickets(tls)


# What is given up


@pytest.mark.parametrize(
    ("priority", "given_up"),
    [
        (None, []),
        ("NORMAL", []),
        ("SECURE256", []),
        ("NORMAL:-VERS-TLS1.2", []),
        ("NORMAL:+RSA", ["RSA"]),
        ("NORMAL:+AES-256-CBC", ["CBC"]),
        ("LEGACY", ["RSA", "CBC"]),
        ("LEGACY:-VERS-TLS1.2", []),
        ("LEGACY:-RSA", ["CBC"]),
        ("LEGACY:-AES-256-CBC:-AES-128-CBC", ["RSA"]),
        ("NONE:+VERS-TLS1.2:+AES-256-GCM:+RSA:+AEAD", ["RSA"]),
    ],
)
def test_forward_secrecy_and_aead_are_given_up_aloud(judged, priority, given_up):
    _, problems = judged("RSA-3072", priority=priority)
    said = [each for each in problems if each.path.startswith("tls_priority")]
    assert len(said) == len(given_up)
    for problem, what in zip(said, given_up, strict=True):
        assert what in problem.text
        assert not problem.fatal
        assert problem.path == f'tls_priority = "{priority}"'


@pytest.mark.parametrize("priority", ["LEGACY", "NORMAL:+RSA", "NORMAL:+AES-128-CBC"])
def test_what_is_said_to_take_it_back_takes_it_back(priority):
    words = [word for _, word in concessions(parse_priority(priority))]
    assert words
    assert list(concessions(parse_priority(":".join([priority, *words])))) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, None),
        ({"tls_no_verify_certificate": True}, "whoever reaches the port owns this host"),
        ({"tls_no_verify_certificate": True, "auth_tls": "sasl"}, "any certificate or none"),
        (
            {"tls_no_verify_certificate": True, "tls_allowed_dn_list": ("CN=joe",)},
            "tls_allowed_dn_list does nothing",
        ),
    ],
)
def test_certificates_that_prove_nothing_are_said_to(settings, said):
    found = [each.text for each in of_no_verification(resolve(settings, privileged=True))]
    assert len(found) == (said is not None)
    assert all(said in text for text in found)
