"""What a client has sent is looked into up to a size, and what is larger is refused by its size.

"Looked into" is whatever takes longer for more: the spelling of a name, the list of extensions.
"""

import contextlib
import datetime as dt
import time
import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto
from OpenSSL._util import lib

from proxyd.config.priority import parse_priority
from proxyd.endpoint.handshake import LONGEST_HANDSHAKE
from proxyd.endpoint.tls import HandshakeFailed, TlsEndpoint
from proxyd.pki import bounds
from proxyd.pki.bounds import (
    LARGEST_CERTIFICATE,
    LARGEST_EXTENSIONS,
    LARGEST_SUBJECT,
    LONGEST_CHAIN,
    TooLarge,
)
from proxyd.pki.certificates import load_credentials
from proxyd.pki.files import CertificateFiles
from proxyd.tls import verify
from proxyd.tls.server_context import make_server_tls
from proxyd.tls.verify import Inspection, described
from tests.bed.minting import DAY, SEQUENCE, tlv
from tests.bed.odd_certificates import KEY, attribute, certificate, extension, name, part
from tests.bed.pairs import tcp_pair
from tests.bed.pki import Pki
from tests.fakes.tls import TLS_1_2, TLS_1_3

LONGEST_LINE = 1000
NAMES = "2.5.29.17"
OLD = 70 * DAY


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(params=[TLS_1_2, TLS_1_3], ids=["TLS 1.2", "TLS 1.3"])
def version(request):
    return request.param


@pytest.fixture
def issued(pki):
    """A function: a certificate that the CA vouches for, whatever is in it."""
    issuer = pki.certificate.subject.public_bytes()
    return lambda *subject, **rest: certificate(*subject, issuer=issuer, signer=pki.key, **rest)


@pytest.fixture
def shown(pki, version):
    """A function: what becomes of a client that shows these certificates, as one line."""
    server = pki.server()
    files = CertificateFiles(
        ca=str(pki.ca_file), crl=None, pairs=((str(server.cert_file), str(server.key_file)),)
    )

    def shown(*ders, enforce=True):
        tls = make_server_tls(
            load_credentials(files, now=dt.datetime.now(dt.UTC)),
            parse_priority(None),
            enforce=enforce,
            allowed=None,
        )
        other, sock = tcp_pair()
        inspection = Inspection()
        endpoint = TlsEndpoint(sock, tls.contexts[0], inspection)
        client = SSL.Connection(client_context(ders, version), other)
        client.set_connect_state()
        other.setblocking(False)
        try:
            while not endpoint.handshake():
                with contextlib.suppress(SSL.WantReadError):
                    client.do_handshake()
            tls.judge(inspection, endpoint.connection)
        except HandshakeFailed as failed:
            return tls.explain(inspection, str(failed))
        finally:
            other.close()
            endpoint.close()
            # Whoever comes next in this thread would be taken for broken.
            assert lib.ERR_peek_error() == 0
        verdict = inspection.verdict
        return verdict.refusal or f"{verdict.dname} {'; '.join(verdict.remarks)}"

    return shown


def client_context(ders, version):
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    leaf, *others = (crypto.load_certificate(crypto.FILETYPE_ASN1, der) for der in ders)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.use_certificate(leaf)
        for each in others:
            context.add_extra_chain_cert(each)
    context.use_privatekey(KEY)
    return context


def subject_of_size(size):
    """A name whose DER has so many bytes, of parts as small as they get."""
    parts = [part()] * (size // len(part()) - 4)
    rest = size - len(name(*parts))
    for length in range(rest):
        found = name(*parts, part(attribute(b"b" * length)))
        if len(found) == size:
            return found
    raise AssertionError(f"no name has {size} bytes")


def names_of_size(size):
    """An extension field of so many bytes."""
    for count in range(size // 3, 0, -1):
        found = extension(NAMES, tlv(SEQUENCE, *[tlv(0x82, b"a")] * count))
        if len(found) <= size - 8:
            return found
    raise AssertionError("too small")


def padded(size):
    """An extension that is never read, of about so many bytes."""
    return extension("1.3.6.1.4.1.99999.1", bytes(size))


@pytest.fixture
def unspelled(monkeypatch):
    """Nobody may spell a subject or list extensions."""

    def entered(*_):
        raise AssertionError("it was looked into")

    for what in ("subject_of", "flaws_of_leaf"):
        monkeypatch.setattr(verify, what, entered)


def test_a_certificate_of_an_ordinary_size_is_let_in_by_its_name(shown, issued):
    assert shown(issued()) == "CN=a "


def test_a_subject_and_extensions_of_the_largest_size_are_read(shown, issued):
    largest = issued(
        subject_of_size(LARGEST_SUBJECT), extensions=[names_of_size(LARGEST_EXTENSIONS)]
    )
    assert shown(largest).startswith("CN=a,CN=a,")


LARGE_ALONE = {
    "a subject of one byte more": (
        lambda of: [of(subject_of_size(LARGEST_SUBJECT + 1))],
        f"has a subject that is {LARGEST_SUBJECT + 1} bytes long, where at most {LARGEST_SUBJECT}",
    ),
    "a subject of one long value": (
        lambda of: [of(name(part(attribute(b"," * 5000))))],
        f"bytes long, where at most {LARGEST_SUBJECT}",
    ),
    "more extensions": (
        lambda of: [of(extensions=[names_of_size(LARGEST_EXTENSIONS + 400)])],
        f"bytes long, where at most {LARGEST_EXTENSIONS}",
    ),
    "a larger certificate": (
        lambda of: [of(extensions=[padded(LARGEST_CERTIFICATE)])],
        f"bytes long, where at most {LARGEST_CERTIFICATE}",
    ),
    "a serial number of 20 KiB": (
        lambda of: [of(serial=b"\x7f" * 20480)],
        f"bytes long, where at most {LARGEST_CERTIFICATE}",
    ),
}
LARGE = LARGE_ALONE | {
    "a large one beside a fine one": (
        lambda of: [of(), certificate(extensions=[padded(LARGEST_CERTIFICATE)])],
        f"bytes long, where at most {LARGEST_CERTIFICATE}",
    ),
    "too many": (
        lambda of: [of(), *[certificate(serial=bytes([n + 1])) for n in range(LONGEST_CHAIN)]],
        f"that it sent, where {LONGEST_CHAIN} are looked into",
    ),
}


@pytest.mark.parametrize("what", LARGE)
def test_what_the_ca_vouches_for_and_is_large_is_refused_unread(shown, issued, unspelled, what):
    made, told = LARGE[what]
    refusal = shown(*made(issued))
    assert told in refusal
    assert len(refusal) < LONGEST_LINE


@pytest.mark.parametrize("what", LARGE_ALONE)
def test_a_stranger_s_large_one_is_refused_unread(shown, unspelled, what):
    made, told = LARGE_ALONE[what]
    refusal = shown(*made(certificate))
    assert refusal.startswith("its certificate is self-signed")
    assert told in refusal
    assert len(refusal) < LONGEST_LINE


@pytest.mark.parametrize("what", LARGE)
def test_where_certificates_are_not_verified_large_ones_are_unread_too(
    shown, issued, unspelled, what
):
    made, told = LARGE[what]
    told_of = shown(*made(issued), enforce=False)
    assert told_of.startswith("None is not verified: ")
    assert told in told_of
    assert len(told_of) < LONGEST_LINE


def test_of_many_that_are_out_of_date_one_is_told_of(shown, issued, monkeypatch):
    spelled = []
    monkeypatch.setattr(verify, "subject_of", lambda one: spelled.append(one) or "CN=a")
    old = [certificate(serial=bytes([n + 1]), age=OLD) for n in range(LONGEST_CHAIN - 1)]
    assert "came with another one that is out of date" in shown(issued(), *old)
    assert len(spelled) == 3  # the client's own for its name and for the log, and that one


def test_more_than_a_handshake_needs_is_not_even_shown_to_openssl(shown):
    flight = [certificate(serial=bytes([n % 100 + 1])) for n in range(200)]
    assert f"where at most {LONGEST_HANDSHAKE} and" in shown(*flight)


def test_three_certificates_of_the_largest_keys_fit(shown, issued):
    # ML-DSA-87: a key of 2592 bytes and a signature of 4627.
    chain = [issued(extensions=[padded(3000)]), *[certificate(extensions=[padded(7000)])] * 2]
    assert shown(*chain) == "CN=a "


def test_a_long_serial_number_is_cut_in_the_log():
    long = x509.load_der_x509_certificate(certificate(serial=b"\x7f" * 8000))
    assert f"serial {'7f' * 20}…," in described(long)


@pytest.mark.parametrize("size", [4096, LARGEST_CERTIFICATE])
def test_a_large_one_is_described_about_as_fast_as_a_small_one(size):
    def seconds(certificate):
        return min(timed(lambda: described(certificate)) for _ in range(20))

    # As dear as the limit allows is what all are measured by.
    largest = x509.load_der_x509_certificate(certificate(subject_of_size(LARGEST_SUBJECT)))
    larger = x509.load_der_x509_certificate(certificate(name(*[part()] * (size // 12))))
    # What is left is cryptography's own copying, 24 ns a byte.
    assert seconds(larger) < 2 * seconds(largest) + size * 100e-9


def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_an_oversized_certificate_is_not_even_loaded(monkeypatch):
    der = certificate(extensions=[padded(LARGEST_CERTIFICATE)])
    shown = crypto.load_certificate(crypto.FILETYPE_ASN1, der)
    monkeypatch.setattr(x509, "load_der_x509_certificate", lambda _: pytest.fail("loaded"))
    with pytest.raises(TooLarge, match=f"is {len(der)} bytes long"):
        bounds.loaded(shown)


def test_the_certificates_here_are_what_cryptography_takes_for_one():
    made = x509.load_der_x509_certificate(certificate(extensions=[names_of_size(500)]))
    assert made.public_bytes(serialization.Encoding.DER)
    assert len(made.extensions) == 1
