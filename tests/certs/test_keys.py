"""Keys: kinds, and those that other programs have written."""

from base64 import b64decode, encodebytes
from pathlib import Path

import pytest
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from OpenSSL import crypto

from certs.failures import CannotDo
from certs.keys import DEFAULT_KIND, KINDS, key_pem, kind_like, new_key, parse_key
from proxyd.pki.private_key import for_openssl, load_private_key

FILE = Path("/some where/key.pem")
P256 = bytes.fromhex("06082a8648ce3d030107")  # the OID
QUICK_KINDS = [kind for kind in KINDS if kind not in ("rsa:3072", "rsa:4096")]


def same(one, other):
    return one.public_key() == other.public_key()


def element(tag, *contents):
    """DER of less than 128 bytes."""
    content = b"".join(contents)
    return bytes([tag, len(content)]) + content


def as_gnutls_writes(key):
    """With a zero before the number, as if that were an INTEGER."""
    number = key.private_numbers().private_value.to_bytes(33, "big")
    public = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    der = element(
        0x30,
        element(0x02, b"\1"),
        element(0x04, number),
        element(0xA0, P256),
        element(0xA1, element(0x03, b"\0", public)),
    )
    return pem_of(der, "EC PRIVATE KEY")


def pem_of(der, label):
    return f"-----BEGIN {label}-----\n{encodebytes(der).decode()}-----END {label}-----\n".encode()


@pytest.mark.parametrize("kind", QUICK_KINDS)
def test_each_kind_comes_back_from_its_pem_and_is_known_again(kind):
    key = new_key(kind)
    assert same(parse_key(key_pem(key), FILE), key)
    assert kind_like(key) == kind


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP521R1()),
        lambda: rsa.generate_private_key(65537, 2056),
        ed448.Ed448PrivateKey.generate,
    ],
)
def test_a_ca_with_a_key_that_we_do_not_make_gets_leaves_of_the_default_kind(make):
    assert kind_like(make()) == DEFAULT_KIND


@pytest.mark.parametrize("text", [b"", b"Public Key Info:\n\tPublic Key Algorithm: EC/ECDSA\n"])
def test_an_ec_key_of_gnutls_is_read_although_a_zero_stands_before_it(text):
    key = new_key("ec:p256")
    pem = as_gnutls_writes(key)
    assert same(parse_key(text + pem, FILE), key)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_told_with_the_command_that_decrypts_it(form):
    pem = new_key("ec:p256").private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"x"))
    with pytest.raises(CannotDo) as caught:
        parse_key(pem, FILE)
    assert str(caught.value) == (
        "/some where/key.pem is encrypted; decrypt it (umask 077; openssl pkey -in"
        " '/some where/key.pem' -out NEW_FILE)"
    )


@pytest.mark.parametrize(
    "pem",
    [b"", b"junk", pem_of(b"junk", "PRIVATE KEY"), pem_of(b"\x30\x00", "EC PRIVATE KEY")],
)
def test_what_is_no_key_is_told(pem):
    with pytest.raises(CannotDo, match=r"holds no private key in PEM; restore it from a backup$"):
        parse_key(pem, FILE)


def test_a_key_that_signs_nothing_for_tls_is_told():
    key = dsa.generate_private_key(1024)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(CannotDo, match="holds a key of a kind that signs no certificates for TLS"):
        parse_key(pem, FILE)


ML_DSA = ["ml-dsa-44", "ml-dsa-65", "ml-dsa-87"]


def expanded(kind):
    """A key in the form that `openssl genpkey` writes, and its seed.

    pyOpenSSL is the only one here that writes it.
    """
    key = new_key(kind)
    with pytest.warns(DeprecationWarning, match="dump_privatekey"):
        pem = crypto.dump_privatekey(crypto.FILETYPE_PEM, for_openssl(key))
    return key, pem


def without_seed(pem):
    """What is left when the seed is forgotten."""
    der = b64decode(b"".join(pem.splitlines()[1:-1]))
    head, rest = der[:20], der[62:]
    inner = b"\x04\x82" + len(rest).to_bytes(2, "big") + rest
    body = head[4:] + inner
    return pem_of(b"\x30\x82" + len(body).to_bytes(2, "big") + body, "PRIVATE KEY")


@pytest.mark.parametrize("kind", ML_DSA)
def test_an_ml_dsa_key_of_openssl_is_read_although_it_holds_more_than_the_seed(kind):
    key, pem = expanded(kind)
    assert len(pem) > 20 * len(key_pem(key))
    assert key_pem(parse_key(b"some text\n" + pem, FILE)) == key_pem(key)


@pytest.mark.parametrize("kind", ML_DSA)
def test_a_bare_seed_is_read(kind):
    key = new_key(kind)
    head = b"\x30\x32" + b64decode(b"".join(key_pem(key).splitlines()[1:-1]))[2:18]
    pem = pem_of(head + b"\x04\x20" + key.private_bytes_raw(), "PRIVATE KEY")
    assert key_pem(parse_key(pem, FILE)) == key_pem(key)


@pytest.mark.parametrize("kind", ML_DSA)
def test_an_ml_dsa_key_without_its_seed_serves_but_issues_nothing(kind):
    key, pem = expanded(kind)
    loaded = load_private_key(without_seed(pem))
    assert loaded.public_key() == key.public_key()
    assert for_openssl(loaded).bits() == for_openssl(key).bits()
    with pytest.raises(CannotDo, match="holds an ML-DSA key without its seed"):
        parse_key(without_seed(pem), FILE)


@pytest.mark.parametrize("kind", ML_DSA)
@pytest.mark.parametrize("cut", [30, 40, 61, 100, 2000])
def test_an_ml_dsa_key_that_is_cut_off_is_told(kind, cut):
    _, pem = expanded(kind)
    der = b64decode(b"".join(pem.splitlines()[1:-1]))
    with pytest.raises(CannotDo, match="holds no private key in PEM"):
        parse_key(pem_of(der[:cut], "PRIVATE KEY"), FILE)


def test_an_encrypted_ml_dsa_key_is_told_like_any_other():
    pem = new_key("ml-dsa-44").private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    with pytest.raises(CannotDo, match=r"is encrypted; decrypt it \(umask 077; openssl pkey"):
        parse_key(pem, FILE)


@pytest.mark.parametrize("kind", ML_DSA)
def test_a_library_that_knows_no_ml_dsa_is_told_with_what_to_install(kind, monkeypatch):
    monkeypatch.setattr(backend, "mldsa_supported", lambda: False)
    with pytest.raises(CannotDo, match=rf"makes no {kind} keys; install its wheel \(pip install"):
        new_key(kind)
