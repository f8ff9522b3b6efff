"""Certificates made in memory, every part of them as a test wants it."""

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


def key_usage(*granted):
    return x509.KeyUsage(**{each: each in granted for each in _USAGES})


def purposes(*oids):
    return x509.ExtendedKeyUsage(list(oids))


def garbage(oid, value=b"xx"):
    """An extension of this kind with something else in it."""
    return x509.UnrecognizedExtension(oid, value)


CONSTRAINTS_OF_CA = (x509.BasicConstraints(ca=True, path_length=None), True)
USAGE_OF_CA = (key_usage("key_cert_sign", "crl_sign"), True)
CONSTRAINTS_OF_LEAF = (x509.BasicConstraints(ca=False, path_length=None), True)
USAGE_OF_LEAF = (key_usage("digital_signature", "key_encipherment"), True)
FOR_SERVERS = (purposes(ExtendedKeyUsageOID.SERVER_AUTH), False)
FOR_CLIENTS = (purposes(ExtendedKeyUsageOID.CLIENT_AUTH), False)
HOST_NAMES = (x509.SubjectAlternativeName([x509.DNSName("host.example")]), False)

OF_CA = (CONSTRAINTS_OF_CA, USAGE_OF_CA)
OF_SERVER = (CONSTRAINTS_OF_LEAF, USAGE_OF_LEAF, FOR_SERVERS, HOST_NAMES)


def name_of(text):
    """A name with this common name, an empty one for ""."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def digest_for(key):
    """Keys of newer kinds bring their own."""
    hashing = isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return hashes.SHA256() if hashing else None


def mint(  # everything about a certificate is a parameter
    name, key, *, issuer=None, signer=None, extensions=(), begins=-DAY, ends=365 * DAY
):
    """A certificate from (extension, critical) pairs, which may repeat. Self-signed unless told."""
    signer = signer or key
    return x509.CertificateBuilder(
        name_of(name if issuer is None else issuer),
        name_of(name),
        key.public_key(),
        x509.random_serial_number(),
        NOW + begins,
        NOW + ends,
        # The method for one more extension refuses the second of a kind.
        [x509.Extension(value.oid, critical, value) for value, critical in extensions],
    ).sign(signer, digest_for(signer))


def mint_list(issuer, signer, *revoked, last=-DAY, next_=30 * DAY):
    """A revocation list with these certificates on it."""
    builder = x509.CertificateRevocationListBuilder(name_of(issuer), NOW + last, NOW + next_)
    for each in revoked:
        entry = x509.RevokedCertificateBuilder(each.serial_number, NOW - DAY)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(signer, digest_for(signer))


def pem(*values):
    """Certificates and revocation lists as PEM, one behind the other."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in values)


def der(value):
    return value.public_bytes(serialization.Encoding.DER)


def key_pem(key, password=None, form=serialization.PrivateFormat.PKCS8):
    lock = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, form, lock)
