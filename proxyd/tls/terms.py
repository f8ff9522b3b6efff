"""What a handshake has agreed on: version, cipher, group and signature.

OpenSSL tells the first three. Which signature the server has made it would tell as well, but
pyOpenSSL and cryptography have no call for that, and TLS 1.3 sends it encrypted. It follows from
what is known, though: of the signatures that tls_priority allows, in that order
(SSL_OP_CIPHER_SERVER_PREFERENCE), OpenSSL takes the first that the key can make and the client
offers. For all keys but RSA's, in TLS 1.3, there is only one. For the others the client's offer has
to be seen, which it is unless the handshake was made on the socket for the kernel's sake and there
was no choice of identities.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PublicKey,
    MLDSA65PublicKey,
    MLDSA87PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import PublicKeyAlgorithmOID
from OpenSSL import SSL

from proxyd.negotiation.terms import NONE, UNKNOWN, TlsTerms
from proxyd.pki.content import public_key

Makes: TypeAlias = Mapping[int, Sequence[str]]  # by the number of TLS's version

# IANA's registry "TLS SignatureScheme".
NUMBERS: Final = {
    "rsa_pkcs1_sha256": 0x0401,
    "rsa_pkcs1_sha384": 0x0501,
    "rsa_pkcs1_sha512": 0x0601,
    "ecdsa_secp256r1_sha256": 0x0403,
    "ecdsa_secp384r1_sha384": 0x0503,
    "ecdsa_secp521r1_sha512": 0x0603,
    "rsa_pss_rsae_sha256": 0x0804,
    "rsa_pss_rsae_sha384": 0x0805,
    "rsa_pss_rsae_sha512": 0x0806,
    "ed25519": 0x0807,
    "ed448": 0x0808,
    "rsa_pss_pss_sha256": 0x0809,
    "rsa_pss_pss_sha384": 0x080A,
    "rsa_pss_pss_sha512": 0x080B,
    "mldsa44": 0x0904,
    "mldsa65": 0x0905,
    "mldsa87": 0x0906,
}
_PREFIXES: Final[dict[type[CertificatePublicKeyTypes], str]] = {
    Ed25519PublicKey: "ed25519",
    Ed448PublicKey: "ed448",
    MLDSA44PublicKey: "mldsa44",
    MLDSA65PublicKey: "mldsa65",
    MLDSA87PublicKey: "mldsa87",
}


def makes_of(certificate: x509.Certificate, allowed: Sequence[str]) -> Makes:
    """Which of the allowed signatures this certificate's key can make, in the same order."""
    return {
        version: tuple(
            name for name in allowed if name.startswith(tuple(_makes(certificate, version)))
        )
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)
    }


def terms_of(connection: SSL.Connection, makes: Makes, offered: Sequence[int] | None) -> TlsTerms:
    """Of an established connection, on the server's side, by what its key makes.

    `offered` are the numbers of the signatures that the client takes, None if they were not seen.
    """
    version = connection.get_protocol_version()
    group = connection.get_group_name()
    return TlsTerms(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or UNKNOWN,
        group=group or NONE,
        signature=_first(makes.get(version, ()), offered) if group else NONE,
    )


def _first(can: Sequence[str], offered: Sequence[int] | None) -> str:
    if len(can) == 1:
        return can[0]
    return next((name for name in can if NUMBERS[name] in (offered or ())), UNKNOWN)


def _makes(certificate: x509.Certificate, version: int) -> Iterator[str]:
    """How the names of the signatures begin that this certificate's key can make."""
    is_1_3 = version == SSL.TLS1_3_VERSION
    key: object = public_key(certificate)
    match key:
        case RSAPublicKey():
            if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
                yield "rsa_pss_pss_"
                return
            yield "rsa_pss_rsae_"
            if not is_1_3:
                yield "rsa_pkcs1_"
        case EllipticCurvePublicKey(curve=curve):
            yield f"ecdsa_{curve.name}_" if is_1_3 else "ecdsa_"
        case _:
            yield from (name for kind, name in _PREFIXES.items() if isinstance(key, kind))
