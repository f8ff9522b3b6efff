"""Certificates and revocation lists as libvirt wants them, from values: nothing is read or written.

Each leaf has both bits of keyUsage that libvirt before 11.6 asks for, digitalSignature and
keyEncipherment, although the second means nothing for keys that cannot encrypt. With an ML-DSA key
it must not stand there (RFC 9881, section 5), and such a libvirt has no use for that key anyway.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from proxyd.pki.content import extension_of
from proxyd.pki.fitness import Purpose
from proxyd.pki.private_key import MLDSAPrivateKey

from .keys import Key, digest_for

# The clocks of other hosts may be slow by this much.
SKEW: Final = dt.timedelta(minutes=5)

_OIDS: Final = {
    Purpose.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    Purpose.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs."""

    certificate: x509.Certificate
    key: Key


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when, both ends included."""

    begins: dt.datetime
    ends: dt.datetime


def validity_of(now: dt.datetime, days: int) -> Validity:
    """So many days from now, and a little before for slow clocks."""
    now = now.replace(microsecond=0)
    return Validity(now - SKEW, now + dt.timedelta(days=days))


def sign_authority(subject: x509.Name, key: Key, validity: Validity) -> x509.Certificate:
    """A CA's own certificate."""
    public = key.public_key()
    return (
        x509.CertificateBuilder(subject, subject, public, x509.random_serial_number())
        .not_valid_before(validity.begins)
        .not_valid_after(validity.ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, digest_for(key))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a certificate is to say."""

    purpose: Purpose
    subject: x509.Name
    names: Sequence[x509.GeneralName]  # none for a client
    key: Key
    validity: Validity


def sign_leaf(request: Request, issuer: Issuer) -> x509.Certificate:
    """A server's or a client's certificate."""
    public = request.key.public_key()
    builder = (
        x509.CertificateBuilder(
            issuer.certificate.subject, request.subject, public, x509.random_serial_number()
        )
        .not_valid_before(request.validity.begins)
        .not_valid_after(request.validity.ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            _usage(
                digital_signature=True,
                key_encipherment=not isinstance(request.key, MLDSAPrivateKey),
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([_OIDS[request.purpose]]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_authority_key(issuer), critical=False)
    )
    if request.names:
        alternatives = x509.SubjectAlternativeName(request.names)
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(issuer.key, digest_for(issuer.key))


def sign_list(
    issuer: Issuer, number: int, entries: Iterable[x509.RevokedCertificate], validity: Validity
) -> x509.CertificateRevocationList:
    """A revocation list; its number has to be greater than that of the one before."""
    builder = (
        x509.CertificateRevocationListBuilder(
            issuer.certificate.subject, validity.begins, validity.ends
        )
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key(issuer), critical=False)
    )
    for each in entries:
        builder = builder.add_revoked_certificate(each)
    return builder.sign(issuer.key, digest_for(issuer.key))


def revoked_entry(
    serial: int, when: dt.datetime, reason: x509.ReasonFlags | None
) -> x509.RevokedCertificate:
    """One line of a revocation list. No reason is the same as `unspecified`."""
    builder = x509.RevokedCertificateBuilder(serial, when)
    if reason not in (None, x509.ReasonFlags.unspecified):
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()


def _authority_key(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    found = extension_of(issuer.certificate, x509.SubjectKeyIdentifier)
    if found is None:  # a CA that somebody else has made
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def _usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
