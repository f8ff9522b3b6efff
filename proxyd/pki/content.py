"""What stands in a certificate or a revocation list of any content, read without an exception."""

from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import PublicKeyAlgorithmOID
from OpenSSL import crypto

from proxyd.config.quoting import excerpt, one_line
from proxyd.pki.dname import distinguished_name, subject_of
from proxyd.pki.private_key import MLDSAPublicKey
from proxyd.rules.subject import San

_LONGEST_SUBJECT: Final = 200
_LONGEST_REASON: Final = 150
_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_EC_PUBLIC_KEY: Final = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01"  # as DER
_SEQUENCE: Final = b"\x30"
_KINDS_OF_NAME: Final[dict[type[x509.GeneralName], str]] = {
    x509.DNSName: "dns",
    x509.RFC822Name: "email",
    x509.UniformResourceIdentifier: "uri",
}
_BROKEN_DIGESTS: Final = frozenset({"md5", "sha1"})

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


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


def key_kind(key: object) -> str:
    """What a public key is called, with its size where that is chosen; "" for no key at all."""
    match key:
        case None:
            return ""
        case RSAPublicKey(key_size=bits):
            return f"RSA-{bits}"
        case EllipticCurvePublicKey(curve=curve):
            return _CURVES.get(curve.name, curve.name)
        case _:
            # Classes are called Ed25519PublicKey, MLDSA65PublicKey and so on.
            name = type(key).__name__.removesuffix("PublicKey")
            return name.replace("MLDSA", "ML-DSA-")


def malformation(certificate: x509.Certificate) -> str:
    """What keeps the extensions from being read, as words after "the certificate …"; or ""."""
    try:
        found = certificate.extensions
    except x509.DuplicateExtension as duplicate:
        return f"has an extension twice ({duplicate.oid.dotted_string})"
    except (ValueError, TypeError, x509.UnsupportedGeneralNameType) as error:
        return f"has a malformed extension ({one_line(str(error)[:_LONGEST_REASON])})"
    if len(found) and certificate.version is not x509.Version.v3:
        return "has extensions, which its version does not know"
    return ""


def extension_of(
    certificate: x509.Certificate, kind: type[_Extension]
) -> x509.Extension[_Extension] | None:
    """The extension of this kind, for a certificate that has no `malformation`."""
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def alternative_names(certificate: x509.Certificate) -> tuple[San, ...]:
    """Its names in subjectAltName that a rule may ask for: of DNS, e-mail and URI.

    As many as its size allows (bounds.py). None of one whose extensions cannot be read; what could
    deceive who reads a name is spelled out.
    """
    if malformation(certificate):
        return ()
    names = extension_of(certificate, x509.SubjectAlternativeName)
    found = []
    for each in () if names is None else names.value:
        kind = _KINDS_OF_NAME.get(type(each))
        if kind is not None and isinstance(each.value, str):
            found.append(San(kind, one_line(each.value)))
    return tuple(found)


def spells_out_curve(certificate: x509.Certificate) -> bool:
    """Whether its EC key has the curve's parameters in place of its name (RFC 5480 forbids it).

    OpenSSL takes such a key for one with the curve's name; GnuTLS cannot read it.
    """
    if certificate.public_key_algorithm_oid != PublicKeyAlgorithmOID.EC_PUBLIC_KEY:
        return False
    key = crypto.X509.from_cryptography(certificate).get_pubkey()
    # SEQUENCE { SEQUENCE { OID ecPublicKey, parameters }, BIT STRING }
    _, _, parameters = crypto.dump_publickey(crypto.FILETYPE_ASN1, key).partition(_EC_PUBLIC_KEY)
    return parameters[:1] == _SEQUENCE


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
    signs = (
        RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey | MLDSAPublicKey
    )
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
