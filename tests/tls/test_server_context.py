"""What new TLS connections are made with, and the verdict on those who come."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from proxyd.config.priority import parse_priority
from proxyd.pki.certificates import load_credentials
from proxyd.pki.files import CertificateFiles
from proxyd.tls.server_context import (
    TlsUnusable,
    channel_bindings,
    make_server_tls,
    sends_tickets,
)
from proxyd.tls.verify import ClientJudge, Inspection
from tests.bed.pki import DAY, Pki
from tests.fakes.tls import TLS_1_2, TLS_1_3
from tests.tls.meeting import Meeting


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


def files_of(pki, server, crl=None):
    pairs = ((str(server.cert_file), str(server.key_file)),)
    return CertificateFiles(ca=str(pki.ca_file), crl=crl and str(crl), pairs=pairs)


def tls_of(pki, *, priority=None, enforce=True, allowed=None, crl=None, server=None):
    credentials = load_credentials(
        files_of(pki, server or pki.server(), crl), now=dt.datetime.now(dt.UTC)
    )
    return make_server_tls(credentials, parse_priority(priority), enforce=enforce, allowed=allowed)


@pytest.fixture
def meet():
    met = []

    def meet(*arguments, **options):
        met.append(Meeting(*arguments, **options))
        return met[-1]

    yield meet
    for each in met:
        each.close()


@pytest.fixture(params=[TLS_1_2, TLS_1_3], ids=["TLS 1.2", "TLS 1.3"])
def version(request):
    return request.param


def test_a_client_of_our_ca_is_let_in_by_name(pki, meet, version):
    met = meet(tls_of(pki), pki.client(("C", "GB"), ("CN", "joe")), version)
    assert met.verdict.dname == "C=GB,CN=joe"
    assert met.verdict.refusal == ""


@pytest.mark.parametrize(
    ("begins", "ends", "reason", "alert"),
    [(-3 * DAY, -DAY, "has expired", "expired"), (DAY, 3 * DAY, "is not valid yet", "bad cert")],
)
def test_who_is_out_of_date_gets_an_alert(pki, meet, version, begins, ends, reason, alert):
    met = meet(tls_of(pki), pki.client(begins=begins, ends=ends), version)
    assert f"its certificate {reason}" in met.error
    assert 'subject "CN=joe", serial ' in met.error
    assert alert in met.alert


def test_who_is_revoked_gets_an_alert(tmp_path, meet, version):
    pki = Pki(tmp_path / "pki")
    joe, fred = pki.client(), pki.client(("CN", "fred"))
    tls = tls_of(pki, crl=pki.revoke(joe))
    assert meet(tls, fred, version).verdict.dname == "CN=fred"
    met = meet(tls, joe, version)
    assert "its certificate has been revoked" in met.error
    assert "revoked" in met.alert


def test_who_comes_from_elsewhere_gets_an_alert(pki, meet, tmp_path, version):
    stranger = Pki(tmp_path / "other", name="another").client()
    met = meet(tls_of(pki), stranger, version)
    assert "was not issued by a CA of ours" in met.error
    assert "unknown ca" in met.alert


def test_a_ca_of_the_same_name_is_not_ours(pki, meet, tmp_path, version):
    met = meet(tls_of(pki), Pki(tmp_path / "other", name=pki.name).client(), version)
    assert "its certificate " in met.error
    assert met.verdict.refusal == "not judged"


def test_who_brings_nothing_is_told_to_bring_something(pki, meet, version):
    met = meet(tls_of(pki), pki.stranger(), version)
    assert "peer did not return a certificate" in met.error
    assert "give the client one" in met.error
    assert met.alert


def test_who_was_let_in_before_is_judged_anew(pki):
    shown = x509.load_pem_x509_certificates((pki.client() / "clientcert.pem").read_bytes())
    chain, now = shown[:1], dt.datetime.now(dt.UTC)
    judge = ClientJudge(enforce=True, allowed=None)
    for _ in range(2):
        assert judge.verdict("", chain, now).refusal == ""
    assert "expired" in judge.verdict("", chain, now + 1000 * DAY).refusal
    assert judge.verdict("is revoked", chain, now).refusal == "is revoked"
    others = ClientJudge(enforce=True, allowed=["CN=fred"])
    assert "is not in tls_allowed_dn_list" in others.verdict("", chain, now).refusal


def test_what_is_remembered_of_a_certificate_is_the_certificates(pki, meet, version):
    tls = tls_of(pki)
    for _ in range(2):
        for name in ("joe", "fred"):
            assert meet(tls, pki.client(("CN", name)), version).verdict.dname == f"CN={name}"


def test_a_name_that_is_not_listed_is_refused_after_the_handshake(pki, meet, version):
    met = meet(tls_of(pki, allowed=["CN=fred"]), pki.client(), version)
    assert met.error == ""
    assert met.verdict.dname is None
    assert met.verdict.refusal.startswith(
        'its certificate is not in tls_allowed_dn_list: subject "CN=joe", serial '
    )


@pytest.mark.parametrize("who", ["nobody", "expired", "stranger"])
def test_without_verification_everybody_is_let_in_and_nobody_has_a_name(
    pki, meet, tmp_path, version, who
):
    pkipath = {
        "nobody": pki.stranger,
        "expired": lambda: pki.client(begins=-3 * DAY, ends=-DAY),
        "stranger": Pki(tmp_path / "other", name="another").client,
    }[who]()
    met = meet(tls_of(pki, enforce=False, allowed=[]), pkipath, version)
    assert met.verdict.refusal == ""
    assert met.verdict.dname is None
    (remark,) = met.verdict.remarks
    assert remark.startswith("is not verified: ")


def test_without_verification_whom_it_would_let_in_has_a_name(pki, meet):
    met = meet(tls_of(pki, enforce=False), pki.client())
    assert met.verdict.dname == "CN=joe"
    assert met.verdict.remarks == ()


def test_a_judge_that_was_shown_nothing_lets_nobody_in():
    judge = ClientJudge(enforce=True, allowed=None)
    assert judge.verdict("", [], dt.datetime.now(dt.UTC)).refusal == "it sent no certificate"


def test_a_connection_that_was_not_judged_is_refused():
    assert Inspection().verdict.refusal


def test_what_else_was_sent_must_be_in_date(pki):
    def load(pkipath):
        return x509.load_pem_x509_certificate((pkipath / "clientcert.pem").read_bytes())

    leaf = load(pki.client())
    old = load(pki.client(("CN", "old"), begins=-3 * DAY, ends=-DAY))
    judge = ClientJudge(enforce=True, allowed=None)
    verdict = judge.verdict("", [leaf, old], dt.datetime.now(dt.UTC))
    assert 'another one that is out of date (subject "CN=old"' in verdict.refusal


def test_both_ends_have_the_same_channel_bindings(pki, meet, version):
    server = pki.server()
    meeting = meet(tls_of(pki, server=server), pki.client(), version)
    found = channel_bindings(meeting.endpoint.connection)
    certificate = meeting.peer.connection.get_peer_certificate(as_cryptography=True)
    expected = {"tls-server-end-point": certificate.fingerprint(hashes.SHA256())}
    if version == TLS_1_3:
        exporter = meeting.peer.connection.export_keying_material
        expected["tls-exporter"] = exporter(b"EXPORTER-Channel-Binding", 32, b"")
    assert found == expected


def test_another_connection_has_other_channel_bindings(pki, meet):
    tls, joe = tls_of(pki), pki.client()
    one, other = (channel_bindings(meet(tls, joe).endpoint.connection) for _ in range(2))
    assert one["tls-exporter"] != other["tls-exporter"]
    assert one["tls-server-end-point"] == other["tls-server-end-point"]


def test_no_session_tickets_are_sent(pki):
    """This process has loaded OpenSSL as the daemon does: see tests/conftest.py."""
    assert not sends_tickets(tls_of(pki))


def test_versions_are_those_of_the_policy(pki, meet):
    only_1_3 = tls_of(pki, priority="NORMAL:-VERS-TLS1.2")
    assert "(the client is limited to versions" in meet(only_1_3, pki.client(), TLS_1_2).error
    only_1_2 = tls_of(pki, priority="NORMAL:-VERS-TLS1.3")
    met = meet(only_1_2, pki.client(), TLS_1_2)
    assert met.endpoint.connection.get_protocol_version_name() == "TLSv1.2"


def test_a_key_that_the_policy_forbids_is_refused_with_the_reason(pki):
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    weak = pki.server(key=rsa.generate_private_key(65537, 2048))
    with pytest.raises(TlsUnusable, match="key too small"):
        tls_of(pki, priority="SECURE256", server=weak)
