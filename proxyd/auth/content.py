"""What stands in a certificate or a revocation list of any content, read without an exception."""

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from proxyd.auth.dname import distinguished_name, subject_of
from proxyd.auth.fitness import extension_of, malformation
from proxyd.config.quoting import excerpt, one_line

_LONGEST_SUBJECT: Final = 200
_LONGEST_REASON: Final = 150
_BROKEN_DIGESTS: Final = frozenset({"md5", "sha1"})


def naming(certificate: x509.Certificate) -> str:
    subject = subject_in(certificate)
    which = f"of {subject}" if subject else f"with serial number {certificate.serial_number:x}"
    return f"the certificate {which}"


def subject_in(certificate: x509.Certificate) -> str:
    """Its subject in quotes; "" where it has none that can be read."""
    try:
        return _quoted(subject_of(certificate))
    except ValueError:
        return ""


def issuer_in(signed: x509.Certificate | x509.CertificateRevocationList) -> str:
    try:
        return _quoted(distinguished_name(signed.issuer))
    except (ValueError, TypeError):
        return ""


def _quoted(name: str) -> str:
    return excerpt(name, _LONGEST_SUBJECT) if name else ""


def public_key(certificate: x509.Certificate) -> CertificatePublicKeyTypes | None:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def broken_digest(signed: x509.Certificate | x509.CertificateRevocationList) -> str:
    """The name of the digest that it is signed with if that is a broken one, else ""."""
    try:
        algorithm = signed.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return ""
    return algorithm.name if algorithm and algorithm.name in _BROKEN_DIGESTS else ""


def signed_list(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if issuer_in(crl) != subject_in(authority):
        return False
    key = public_key(authority)
    signs = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey
    try:
        return isinstance(key, signs) and crl.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def may_revoke(authority: x509.Certificate) -> bool:
    if malformation(authority):
        return True  # which is told of already
    usage = extension_of(authority, x509.KeyUsage)
    return usage is None or usage.value.crl_sign


def longest_path(authority: x509.Certificate) -> int | None:
    if malformation(authority):
        return None
    constraints = extension_of(authority, x509.BasicConstraints)
    return constraints.value.path_length if constraints else None


def reason_of(error: Exception) -> str:
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return one_line(text[:_LONGEST_REASON])
