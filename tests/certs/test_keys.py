"""Keys: kinds, and those that other programs have written."""

from base64 import encodebytes
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from certs.failures import CannotDo
from certs.keys import DEFAULT_KIND, KINDS, key_pem, kind_like, new_key, parse_key

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
