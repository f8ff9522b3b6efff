"""Private keys: which kinds there are, making them, and their PEM."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from proxyd.pki.private_key import ExpandedKey, MLDSAPrivateKey, load_private_key

from .failures import CannotDo

Key: TypeAlias = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | MLDSAPrivateKey
)


def _rsa(bits: int) -> Callable[[], Key]:
    return lambda: rsa.generate_private_key(public_exponent=65537, key_size=bits)


def _curve(curve: ec.EllipticCurve) -> Callable[[], Key]:
    return lambda: ec.generate_private_key(curve)


_MAKERS: Final[dict[str, Callable[[], Key]]] = {
    "rsa:2048": _rsa(2048),
    "rsa:3072": _rsa(3072),
    "rsa:4096": _rsa(4096),
    "ec:p256": _curve(ec.SECP256R1()),
    "ec:p384": _curve(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ml-dsa-44": mldsa.MLDSA44PrivateKey.generate,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
}
KINDS: Final = tuple(_MAKERS)
# As strong as RSA of 3072 bits, and signs in 0.03 ms where that takes 2.2 (OpenSSL 4.0).
DEFAULT_KIND: Final = "ec:p256"

_CURVES: Final = {"secp256r1": "ec:p256", "secp384r1": "ec:p384"}


def new_key(kind: str) -> Key:
    """A key of one of KINDS."""
    maker = _MAKERS.get(kind)
    if maker is None:
        raise CannotDo(f'there is no kind of key "{kind}"; choose from {", ".join(KINDS)}')
    try:
        return maker()
    except UnsupportedAlgorithm:
        raise CannotDo(
            f"the OpenSSL in this Python's cryptography package makes no {kind} keys; install its"
            f" wheel (pip install --only-binary :all: --force-reinstall cryptography), or build it"
            f" with OpenSSL 3.5 or later"
        ) from None


def kind_like(key: Key) -> str:
    """The kind of a key that fits to this one: its own, unless we make no such keys."""
    match key:
        case rsa.RSAPrivateKey(key_size=bits):
            kind = f"rsa:{bits}"
        case ec.EllipticCurvePrivateKey(curve=curve):
            kind = _CURVES.get(curve.name, "")
        case ed25519.Ed25519PrivateKey():
            kind = "ed25519"
        case mldsa.MLDSA44PrivateKey():
            kind = "ml-dsa-44"
        case mldsa.MLDSA65PrivateKey():
            kind = "ml-dsa-65"
        case mldsa.MLDSA87PrivateKey():
            kind = "ml-dsa-87"
        case _:
            kind = ""
    return kind if kind in _MAKERS else DEFAULT_KIND


def digest_for(key: Key) -> hashes.SHA256 | None:
    """What this key signs with; Edwards curves and ML-DSA bring their own."""
    hashing = isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return hashes.SHA256() if hashing else None


def key_pem(key: Key) -> bytes:
    """The key without a password: no daemon could type one."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def parse_key(pem: bytes, path: Path) -> Key:
    """The key in this file's content. Raises CannotDo."""
    try:
        key: object = load_private_key(pem)
    except TypeError:
        command = f"openssl pkey -in {shlex.quote(str(path))} -out NEW_FILE"
        raise CannotDo(f"{path} is encrypted; decrypt it (umask 077; {command})") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CannotDo(f"{path} holds no private key in PEM; restore it from a backup") from None
    if isinstance(key, ExpandedKey):
        raise CannotDo(
            f"{path} holds an ML-DSA key without its seed, with which no certificates can be signed"
            f" here; restore the seed's form from a backup, or make a new CA"
        )
    if not isinstance(key, Key):
        raise CannotDo(f"{path} holds a key of a kind that signs no certificates for TLS")
    return key
