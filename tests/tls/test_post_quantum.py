"""Chains of ML-DSA certificates on both sides, and what they are bounded by."""

import datetime as dt

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Authority
from certs.keys import digest_for, new_key
from certs.places import flat
from proxyd.config.priority import parse_priority
from proxyd.endpoint.handshake import LONGEST_HANDSHAKE, RecordReader
from proxyd.pki.bounds import LARGEST_CERTIFICATE
from proxyd.pki.certificates import load_credentials
from proxyd.pki.files import CertificateFiles
from proxyd.tls.reach import problems_of_reach
from proxyd.tls.server_context import channel_bindings, make_server_tls
from tests.fakes.tls import TLS_1_2, TLS_1_3
from tests.pki import minting
from tests.tls.meeting import WITHOUT_POST_QUANTUM, Meeting

KINDS = ["ml-dsa-44", "ml-dsa-65", "ml-dsa-87"]
# CA, server, client: alike, and the old beside the new in every way.
CHAINS = [(kind, kind, kind) for kind in KINDS]
CHAINS += [
    ("ml-dsa-65", "ec:p256", "ec:p256"),
    ("ec:p256", "ml-dsa-65", "ml-dsa-65"),
    ("ec:p256", "ec:p256", "ml-dsa-87"),
    ("rsa:2048", "ml-dsa-44", "rsa:2048"),
]


@pytest.fixture
def meet():
    met = []

    def meet(*arguments, **options):
        met.append(Meeting(*arguments, **options))
        return met[-1]

    yield meet
    for each in met:
        each.close()


def tls_for(authority, issued, priority=None, crl=None):
    files = CertificateFiles(
        ca=str(authority.places.ca),
        crl=crl and str(crl),
        pairs=((str(issued.cert_file), str(issued.key_file)),),
    )
    credentials = load_credentials(files, now=dt.datetime.now(dt.UTC))
    return make_server_tls(credentials, parse_priority(priority), enforce=True, allowed=None)


@pytest.mark.parametrize(("ca", "server", "client"), CHAINS)
def test_a_client_is_let_in_by_a_chain_of_any_kinds(tmp_path, meet, ca, server, client):
    authority = Authority.create(tmp_path / "pki", name="CA", key=ca)
    issued = authority.server("localhost", key=server)
    joe, ann = flat(tmp_path / "joe"), flat(tmp_path / "ann")
    authority.client("joe", key=client, to=joe)
    authority.client("ann", key=client, to=ann)
    crl = authority.revoke("ann").crl_file
    tls = tls_for(authority, issued, crl=crl)

    meeting = meet(tls, joe.root)
    assert meeting.verdict.dname == "CN=joe"
    terms = tls.terms(meeting.endpoint.connection, meeting.endpoint.offered)
    assert terms.group == "X25519MLKEM768"
    assert terms.signature.startswith(
        {"ml": server.replace("-", ""), "ec": "ecdsa", "rs": "rsa"}[server[:2]]
    )
    assert "has been revoked" in meet(tls, ann.root).error


@pytest.mark.parametrize("kind", KINDS)
def test_no_ml_dsa_certificate_is_too_large(tmp_path, kind):
    authority = Authority.create(tmp_path / "pki", name="CA", key=kind)
    names = [f"host{number}.example.org" for number in range(50)]
    certificate = authority.server("localhost", names=names).certificate
    assert len(certificate.public_bytes(Encoding.DER)) < LARGEST_CERTIFICATE * 3 / 4


def test_three_of_the_largest_certificates_fit_into_a_handshake(tmp_path, meet, monkeypatch):
    root, between, key = (new_key("ml-dsa-87") for _ in range(3))
    assert digest_for(root) is None
    now = {"begins": dt.timedelta(days=-400), "ends": dt.timedelta(days=3650)}
    ca = minting.mint("CA", root, extensions=minting.OF_CA, **now)
    middle = minting.mint(
        "CA 2", between, issuer="CA", signer=root, extensions=minting.OF_CA, **now
    )
    for name, purpose in (("server", minting.FOR_SERVERS), ("client", minting.FOR_CLIENTS)):
        leaf = minting.mint(
            name,
            key,
            issuer="CA 2",
            signer=between,
            extensions=(
                minting.CONSTRAINTS_OF_LEAF,
                (minting.key_usage("digital_signature"), True),
                purpose,
                minting.HOST_NAMES,
            ),
            **now,
        )
        (tmp_path / f"{name}cert.pem").write_bytes(minting.pem(leaf, middle, ca))
        (tmp_path / f"{name}key.pem").write_bytes(minting.key_pem(key))
    (tmp_path / "cacert.pem").write_bytes(minting.pem(ca))
    files = CertificateFiles(
        ca=str(tmp_path / "cacert.pem"),
        crl=None,
        pairs=((str(tmp_path / "servercert.pem"), str(tmp_path / "serverkey.pem")),),
    )
    credentials = load_credentials(files, now=dt.datetime.now(dt.UTC))
    # The client brings a hybrid share of 1.2 KiB for nothing and then says hello once more.
    policy = parse_priority("NORMAL:-GROUP-ALL:+GROUP-SECP384R1")
    tls = make_server_tls(credentials, policy, enforce=True, allowed=None)
    heard = []
    check = RecordReader._check

    def noted(reader):
        check(reader)
        heard.append(len(reader._partial))

    monkeypatch.setattr(RecordReader, "_check", noted)
    meeting = meet(tls, tmp_path)
    assert (meeting.error, meeting.verdict.dname) == ("", "CN=client")
    assert meeting.endpoint.connection.get_group_name() == "secp384r1"
    assert 28_000 < sum(heard) < LONGEST_HANDSHAKE


def test_an_identity_whose_signatures_are_taken_away_serves_nobody(tmp_path, meet):
    authority = Authority.create(tmp_path / "pki", name="CA", key="ml-dsa-65")
    issued = authority.server("localhost")
    joe = flat(tmp_path / "joe")
    authority.client("joe", to=joe)
    for priority in (WITHOUT_POST_QUANTUM, "NORMAL:-SIGN-ML-DSA-65"):
        tls = tls_for(authority, issued, priority)
        assert "no suitable signature algorithm" in meet(tls, joe.root).error
        problems = problems_of_reach(tls.identities, parse_priority(priority), priority)
        assert "no client can use its ML-DSA-65 key" in str(problems[0])
        assert problems[0].fatal
    # TLS 1.2 has no ML-DSA at all.
    tls = tls_for(authority, issued, "NORMAL:-VERS-TLS1.3")
    assert "no shared cipher" in meet(tls, joe.root, version=TLS_1_2).error


@pytest.mark.parametrize(
    ("priority", "reason", "hint"),
    [
        # Such a client sends no certificate, although it has one.
        (
            "NORMAL:-SIGN-ALL:+SIGN-RSA-PSS-RSAE-SHA256",
            "peer did not return a certificate",
            "whose key can make a signature that tls_priority allows",
        ),
        (
            "NORMAL:-GROUP-ALL:+GROUP-SECP384R1-MLKEM1024",
            "no suitable key share",
            "none of the groups that tls_priority allows",
        ),
    ],
)
def test_who_is_left_out_by_tls_priority_is_told_of_with_it(tmp_path, meet, priority, reason, hint):
    authority = Authority.create(tmp_path / "pki", name="CA", key="ec:p256")
    issued = authority.server("localhost", key="rsa:2048")
    joe = flat(tmp_path / "joe")
    authority.client("joe", to=joe)
    error = meet(tls_for(authority, issued, priority), joe.root).error
    assert reason in error
    assert hint in error


def test_an_ml_dsa_certificate_gives_no_channel_binding_of_its_own(tmp_path, meet):
    # RFC 5929 takes the digest of the certificate's signature, and this one has none.
    authority = Authority.create(tmp_path / "pki", name="CA", key="ml-dsa-44")
    joe = flat(tmp_path / "joe")
    authority.client("joe", to=joe)
    meeting = meet(tls_for(authority, authority.server("localhost")), joe.root, version=TLS_1_3)
    assert set(channel_bindings(meeting.endpoint.connection)) == {"tls-exporter"}
