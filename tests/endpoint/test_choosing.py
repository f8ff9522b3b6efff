"""A client is shown the first certificate that suits it, whatever way the handshake goes."""

import datetime as dt
import select
import socket

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from OpenSSL import SSL
from OpenSSL._util import lib

from proxyd.endpoint.contract import HungUp
from proxyd.endpoint.handshake import Hello as HelloOnSocket
from proxyd.endpoint.tls import HandshakeFailed, TlsEndpoint
from tests.bed.hellos import Hello, records
from tests.bed.pairs import tcp_pair
from tests.fakes.tls import PARTIAL_WRITE, TLS_1_2, TLS_1_3

KERNEL = 0x8
KEYS = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "other RSA": lambda: rsa.generate_private_key(65537, 2048),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}
RSA_SIGNATURES = b"rsa_pss_rsae_sha256:rsa_pkcs1_sha256"
SIGNATURES = {
    "RSA": RSA_SIGNATURES,
    "P-256": b"ecdsa_secp256r1_sha256",
    "P-384": b"ecdsa_secp384r1_sha384",
    "P-521": b"ecdsa_secp521r1_sha512",
    "Ed25519": b"ed25519",
}


@pytest.fixture(scope="module")
def identities():
    """A certificate and its key for each kind."""
    made = {}
    now = dt.datetime.now(dt.UTC)
    for kind, new in KEYS.items():
        key = new()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, kind)])
        builder = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
        )
        digest = None if kind == "Ed25519" else hashes.SHA256()
        made[kind] = builder.sign(key, digest), key
    return made


@pytest.fixture
def contexts(identities):
    def contexts(*kinds, in_kernel=False, highest=TLS_1_3, ciphers=None):
        made = []
        for kind in kinds:
            context = SSL.Context(SSL.TLS_SERVER_METHOD)
            context.clear_mode(PARTIAL_WRITE)
            context.set_max_proto_version(highest)
            if ciphers:
                context.set_cipher_list(ciphers)
            if in_kernel:
                context.set_options(KERNEL)
            certificate, key = identities[kind]
            context.use_certificate(certificate)
            context.use_privatekey(key)
            made.append(context)
        return made

    return contexts


def client_of(other, version, *, signatures=None, groups=None, ciphers=None):
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    if signatures:
        assert lib.SSL_CTX_set1_sigalgs_list(context._context, signatures)
    if groups:
        assert lib.SSL_CTX_set1_curves_list(context._context, groups)
    if ciphers:
        context.set_cipher_list(ciphers)
    other.setblocking(False)
    connection = SSL.Connection(context, other)
    connection.set_connect_state()
    return connection


def shaken(contexts, version, **offer):
    """The common name of the certificate that such a client is shown."""
    other, sock = tcp_pair()
    endpoint = TlsEndpoint(sock, contexts[0], None, contexts[1:])
    client = client_of(other, version, **offer)
    ends = {other: client.do_handshake, sock: endpoint.handshake}
    try:
        client_done = server_done = False
        while not (client_done and server_done):
            try:
                ends[other]()
                client_done = True
            except SSL.WantReadError:
                pass
            server_done = server_done or endpoint.handshake()
            if not (client_done and server_done):
                assert select.select([other, sock], [], [], 5)[0]
        client.send(b"first call")
        scratch = memoryview(bytearray(100))
        assert select.select([sock], [], [], 5)[0]
        assert bytes(scratch[: endpoint.read_into(scratch)]) == b"first call"
        shown = client.get_peer_certificate(as_cryptography=True)
        (name,) = shown.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return name.value
    finally:
        other.close()
        endpoint.close()


@pytest.fixture(params=[TLS_1_2, TLS_1_3], ids=["TLS 1.2", "TLS 1.3"])
def version(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["memory", "socket"])
def in_kernel(request):
    """Whether OpenSSL makes the handshake on the socket, as the kernel's TLS would have it."""
    return request.param


@pytest.mark.parametrize(
    ("held", "first"),
    [
        (("RSA", "P-256"), "RSA"),
        (("P-256", "RSA"), "P-256"),
        (("RSA", "other RSA"), "RSA"),
        (("other RSA", "RSA"), "other RSA"),
        (("P-521", "P-384", "P-256"), "P-521"),
        (("Ed25519", "RSA"), "Ed25519"),
    ],
)
def test_of_those_that_suit_it_a_client_is_shown_the_first(
    contexts, version, in_kernel, held, first, no_descriptor_leaks
):
    assert shaken(contexts(*held, in_kernel=in_kernel), version) == first


@pytest.mark.parametrize("only", list(SIGNATURES))
def test_a_client_that_knows_one_kind_of_signature_is_shown_that(
    contexts, version, in_kernel, only, no_descriptor_leaks
):
    others = [kind for kind in SIGNATURES if kind != only]
    # TLS 1.2 does not say which curve goes with which digest, only which curves there are.
    curves = [only] if version == TLS_1_2 and only.startswith("P-") else ["P-256", "P-384", "P-521"]
    groups = ":".join(curves).encode()
    held = contexts(*others, only, in_kernel=in_kernel)
    assert shaken(held, version, signatures=SIGNATURES[only], groups=groups) == only


def test_in_tls_1_2_a_curve_that_the_client_lacks_does_not_suit_it(contexts, in_kernel):
    held = contexts("P-521", "P-384", "P-256", in_kernel=in_kernel)
    assert shaken(held, TLS_1_2, groups=b"P-256") == "P-256"


def test_in_tls_1_2_the_ciphers_decide_as_well(contexts, in_kernel):
    held = contexts("RSA", "P-256", in_kernel=in_kernel)
    assert shaken(held, TLS_1_2, ciphers=b"ECDHE-ECDSA-AES256-GCM-SHA384") == "P-256"
    assert shaken(held, TLS_1_2, ciphers=b"ECDHE-RSA-AES256-GCM-SHA384") == "RSA"


def test_a_client_that_has_to_try_again_gets_the_same_choice(contexts, in_kernel):
    """It brings no key for a group that the server takes, and is asked for another one."""
    held = contexts("RSA", "P-256", in_kernel=in_kernel)
    for context in held:
        assert lib.SSL_CTX_set1_curves_list(context._context, b"P-384")
    offer = {"groups": b"X25519:P-384", "signatures": SIGNATURES["P-256"]}
    assert shaken(held, TLS_1_3, **offer) == "P-256"


def test_whom_none_suits_is_told_once_and_the_log_has_the_first_reason(
    contexts, version, in_kernel, no_descriptor_leaks
):
    with pytest.raises(HandshakeFailed, match=r"no (shared cipher|suitable signature)"):
        shaken(
            contexts("RSA", "other RSA", "P-384", in_kernel=in_kernel),
            version,
            signatures=SIGNATURES["P-256"],
            groups=b"P-256",
        )


@pytest.mark.parametrize("size", [64, 300, 16384])
def test_a_hello_in_pieces_is_shown_whole_to_the_next_context(
    contexts, in_kernel, size, no_descriptor_leaks
):
    other, sock = tcp_pair()
    held = contexts("RSA", "P-256", in_kernel=in_kernel)
    endpoint = TlsEndpoint(sock, held[0], None, held[1:])
    ecdsa_only = (13, b"\x00\x02\x04\x03")
    wire = records(Hello(extensions=[(21, bytes(300)), ecdsa_only]).pack(), size=size)
    for start in range(0, len(wire), 100):
        other.sendall(wire[start : start + 100])
        assert not endpoint.handshake()
    while not select.select([other], [], [], 0)[0]:
        select.select([sock], [], [], 0.01)
        assert not endpoint.handshake()
    assert other.recv(1) == b"\x16"  # it is answered, not refused
    other.close()
    endpoint.close()


# A hello that is looked at on the socket


@pytest.fixture
def pair(no_descriptor_leaks):
    ends = tcp_pair()
    ends[1].setblocking(False)
    yield ends
    for each in ends:
        each.close()


def is_readable(sock):
    return bool(select.select([sock], [], [], 0.05)[0])


def test_looking_takes_nothing_and_waits_for_the_whole(pair):
    other, sock = pair
    wire = records(Hello(extensions=[(21, bytes(2000))]).pack(), size=900)
    look = HelloOnSocket(sock).look
    for byte in (wire[:1], wire[1:4], wire[4:5], wire[5:500], wire[500:904]):
        other.sendall(byte)
        assert look() is None
        assert not is_readable(sock)  # nobody is woken for less than a record
    assert look() is None
    other.sendall(wire[904:])
    assert select.select([sock], [], [], 5)[0]
    while (seen := look()) is None:
        assert select.select([sock], [], [], 5)[0]
    assert seen == wire == sock.recv(65536)
    other.sendall(b"x")
    assert select.select([sock], [], [], 5)[0]  # one byte wakes again


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\x15\x03\x03\x00\x02\x02\x28"],
    ids=["http", "too long", "alert"],
)
def test_what_is_no_hello_is_given_as_it_is(pair, said):
    other, sock = pair
    other.sendall(said)
    assert select.select([sock], [], [], 5)[0]
    assert HelloOnSocket(sock).look() == said


def test_a_hello_in_too_many_records_is_given_as_far_as_it_came(pair):
    other, sock = pair
    other.sendall(records(Hello().pack(), size=1))
    look = HelloOnSocket(sock).look
    while (seen := look()) is None:
        assert select.select([sock], [], [], 5)[0]
    assert len(seen) > 100


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x00\x50half"])
def test_an_end_before_the_whole_is_no_reason_to_wait(contexts, said, no_descriptor_leaks):
    other, sock = tcp_pair()
    held = contexts("RSA", "P-256", in_kernel=True)
    endpoint = TlsEndpoint(sock, held[0], None, held[1:])
    other.sendall(said)
    other.shutdown(socket.SHUT_WR)
    assert select.select([sock], [], [], 5)[0]
    with pytest.raises((HungUp, HandshakeFailed)):
        endpoint.handshake()
    other.close()
    endpoint.close()
