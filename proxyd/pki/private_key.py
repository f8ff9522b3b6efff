"""A private key in PEM, also in forms that only OpenSSL understands, and for OpenSSL again.

An ML-DSA key has three forms (RFC 9881, section 6). cryptography reads and writes the seed alone;
`openssl genpkey` writes the seed and what follows from it, and others what follows alone. OpenSSL
can be told to write two more, without the DER around the seed or around the rest.
"""

import base64
import re
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization import load_pem_private_key as _load
from OpenSSL import SSL, crypto

from proxyd.endpoint import openssl

MLDSAPrivateKey: TypeAlias = MLDSA44PrivateKey | MLDSA65PrivateKey | MLDSA87PrivateKey
MLDSAPublicKey: TypeAlias = MLDSA44PublicKey | MLDSA65PublicKey | MLDSA87PublicKey

# id-ml-dsa-44, -65 and -87, which stand near the beginning of PKCS#8.
_TYPES: Final[dict[bytes, type[MLDSAPrivateKey]]] = {
    b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x11": MLDSA44PrivateKey,
    b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x12": MLDSA65PrivateKey,
    b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x13": MLDSA87PrivateKey,
}
_BEGINNING: Final = 32
# Behind that name: an OCTET STRING, in it a SEQUENCE, in it the seed as an OCTET STRING and the
# rest. The first two have lengths of two bytes. Or the first is the seed already.
_WITH_SEED: Final = re.compile(rb"(?:\x04\x82..\x30\x82..)?\x04\x20(.{32})(?:\x04|$)", re.DOTALL)
_PKCS8: Final = re.compile(
    rb"-----BEGIN PRIVATE KEY-----([A-Za-z0-9+/=\s]*)-----END PRIVATE KEY-----"
)


class ExpandedKey:
    """An ML-DSA key without its seed: OpenSSL signs with it, cryptography does not know it."""

    def __init__(self, key: crypto.PKey, public: MLDSAPublicKey) -> None:
        self.key = key
        self._public = public

    def public_key(self) -> MLDSAPublicKey:
        return self._public


def load_private_key(pem: bytes) -> object:
    """The key: one of cryptography's or an `ExpandedKey`.

    Raises ValueError, UnsupportedAlgorithm, and TypeError for an encrypted one.
    """
    try:
        return _load(pem, None)
    except ValueError as error:
        # GnuTLS puts a zero before every second EC key (certtool 3.7.9), as before an INTEGER.
        # OpenSSL reads that; cryptography 50 does not.
        try:
            return _of_openssl(crypto.load_privatekey(crypto.FILETYPE_PEM, pem, b""), pem)
        except (crypto.Error, ValueError, UnsupportedAlgorithm):
            raise error from None


def use_private_key(context: SSL.Context, key: object) -> None:
    """Gives a key of `load_private_key` to a context, behind its certificate. Raises SSL.Error.

    pyOpenSSL 26 takes cryptography's keys of all kinds but ML-DSA, and calls its own deprecated.
    """
    if isinstance(key, MLDSAPrivateKey | ExpandedKey):
        key = for_openssl(key)
    if not isinstance(key, crypto.PKey):
        context.use_privatekey(key)  # type: ignore[arg-type]  # TypeError says the same
    else:
        openssl.use_key(context, key)


def for_openssl(key: MLDSAPrivateKey | ExpandedKey) -> crypto.PKey:
    """The same as OpenSSL has it."""
    if isinstance(key, ExpandedKey):
        return key.key
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return crypto.load_privatekey(crypto.FILETYPE_PEM, pem)


def _of_openssl(key: crypto.PKey, pem: bytes) -> object:
    """What cryptography has for a key that it has not read itself."""
    der = _der_of(pem)
    for oid, kind in _TYPES.items():
        at = der.find(oid, 0, _BEGINNING)
        if at > 0:
            seed = _WITH_SEED.match(der, at + len(oid))
            return kind.from_seed_bytes(seed[1]) if seed else ExpandedKey(key, _public_of(key))
    return key.to_cryptography_key()


def _der_of(pem: bytes) -> bytes:
    found = _PKCS8.search(pem)
    return base64.b64decode(found[1]) if found else b""


def _public_of(key: crypto.PKey) -> MLDSAPublicKey:
    public: object = openssl.public_half(key).to_cryptography_key()
    assert isinstance(public, MLDSAPublicKey)
    return public
