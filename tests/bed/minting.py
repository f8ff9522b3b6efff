"""Certificates and revocation lists of any content, right or wrong, made in no time.

A template says what stands in one, `minted` and `minted_list` make it. The DER is put together
here, and of `cryptography` come only the parts, because its builders know better than to make what
the tests need as well: version 1, negative serial numbers, an extension twice, MD5, a signature
that is not one. Keys are kept as long as the process lives, certificates are made anew every time,
so that validity counts from now.
"""

import base64
import datetime as dt
import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

Key = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)
Extension = x509.Extension[x509.ExtensionType]

DAY: Final = dt.timedelta(days=1)

INTEGER, BITS, SEQUENCE, UTC_TIME = 0x02, 0x03, 0x30, 0x17
VERSION_FIELD, LIST_EXTENSIONS_FIELD, EXTENSIONS_FIELD = 0xA0, 0xA0, 0xA3
TRUE: Final = b"\x01\x01\xff"
NULL: Final = b"\x05\x00"
UNIQUE_ID_FIELD: Final = b"\x81\x02\x00\x00"

CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
DIGESTS: Final[dict[str, hashes.HashAlgorithm]] = {
    "MD5": hashes.MD5(),
    "SHA1": hashes.SHA1(),
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
    "PSS": hashes.SHA256(),
}
RSA_SIGNATURES: Final = {
    "MD5": "1.2.840.113549.1.1.4",
    "SHA1": "1.2.840.113549.1.1.5",
    "SHA256": "1.2.840.113549.1.1.11",
    "SHA384": "1.2.840.113549.1.1.12",
    "SHA512": "1.2.840.113549.1.1.13",
}
EC_SIGNATURES: Final = {
    "SHA1": "1.2.840.10045.4.1",
    "SHA256": "1.2.840.10045.4.3.2",
    "SHA384": "1.2.840.10045.4.3.3",
    "SHA512": "1.2.840.10045.4.3.4",
}
ED25519_SIGNATURE, ED448_SIGNATURE = "1.3.101.112", "1.3.101.113"
PSS_SIGNATURE, MGF1 = "1.2.840.113549.1.1.10", "1.2.840.113549.1.1.8"
SHA256_OID: Final = "2.16.840.1.101.3.4.2.1"

USAGES: Final = (
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


def named(common_name: str) -> x509.Name:
    """A name with one common name, an empty one for ""."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What a certificate says. `dataclasses.replace` makes the next one of it.

    Without an issuer it is its own. `forger` is another who signs in the issuer's name. Two of
    one name have the same key and serial number, unless their `holder` differs.
    """

    name: x509.Name
    issuer: "Template | None" = None
    forger: "Template | None" = None
    holder: str = ""
    key: str = "P-256"  # or P-384, P-521, RSA-<bits>, Ed25519, Ed448
    extensions: tuple[Extension, ...] = ()
    begins: dt.timedelta = -DAY
    ends: dt.timedelta = 60 * DAY
    digest: str = "SHA256"
    version: int = 3
    serial: int | None = None
    has_unique_id: bool = False
    has_broken_signature: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ListTemplate:
    """What a revocation list says. `ends` None leaves nextUpdate out."""

    issuer: Template
    forger: Template | None = None
    revoked: tuple[Template, ...] = ()
    extensions: tuple[Extension, ...] = ()
    begins: dt.timedelta = -DAY
    ends: dt.timedelta | None = 60 * DAY
    digest: str = "SHA256"


def minted(template: Template) -> bytes:
    """The certificate as DER."""
    issuer = template.issuer or template
    signer = template.forger or issuer
    algorithm = signature_algorithm(key_of(signer), template.digest)
    now = dt.datetime.now(dt.UTC)
    body = tlv(
        SEQUENCE,
        tlv(VERSION_FIELD, integer(template.version - 1)) if template.version > 1 else b"",
        integer(serial_of(template)),
        algorithm,
        issuer.name.public_bytes(),
        tlv(SEQUENCE, utc_time(now + template.begins), utc_time(now + template.ends)),
        template.name.public_bytes(),
        public_key_of(template),
        UNIQUE_ID_FIELD if template.has_unique_id else b"",
        extensions_field(EXTENSIONS_FIELD, template.extensions),
    )
    signature = signed(body, key_of(signer), template.digest)
    if template.has_broken_signature:
        signature = signature[:-1] + bytes([signature[-1] ^ 1])
    return tlv(SEQUENCE, body, algorithm, tlv(BITS, b"\0", signature))


def minted_list(template: ListTemplate) -> bytes:
    """The revocation list as DER."""
    key = key_of(template.forger or template.issuer)
    algorithm = signature_algorithm(key, template.digest)
    now = dt.datetime.now(dt.UTC)
    entries = [
        tlv(SEQUENCE, integer(serial_of(each)), utc_time(now - DAY)) for each in template.revoked
    ]
    body = tlv(
        SEQUENCE,
        integer(1),
        algorithm,
        template.issuer.name.public_bytes(),
        utc_time(now + template.begins),
        b"" if template.ends is None else utc_time(now + template.ends),
        tlv(SEQUENCE, *entries) if entries else b"",
        extensions_field(LIST_EXTENSIONS_FIELD, template.extensions),
    )
    return tlv(SEQUENCE, body, algorithm, tlv(BITS, b"\0", signed(body, key, template.digest)))


def pem(label: str, *ders: bytes) -> bytes:
    """One block behind the other."""
    begin, end = f"-----BEGIN {label}-----\n".encode(), f"-----END {label}-----\n".encode()
    return b"".join(begin + base64.encodebytes(der) + end for der in ders)


def certificates_pem(templates: Iterable[Template]) -> bytes:
    return pem("CERTIFICATE", *map(minted, templates))


def lists_pem(templates: Iterable[ListTemplate]) -> bytes:
    return pem("X509 CRL", *map(minted_list, templates))


def key_pem(template: Template) -> bytes:
    """The private key, not encrypted."""
    return key_of(template).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def key_of(template: Template) -> Key:
    """The key of everything that has this name, holder and kind of key."""
    return _key(template.key, template.name.public_bytes(), template.holder)


@functools.cache
def _key(kind: str, _name: bytes, _holder: str) -> Key:
    if kind.startswith("RSA-"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    return ec.generate_private_key(CURVES[kind])


def public_key_of(template: Template) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key_of(template).public_key().public_bytes(serialization.Encoding.DER, form)


def serial_of(template: Template) -> int:
    """Its own, or one that follows from the name."""
    if template.serial is not None:
        return template.serial
    digest = hashlib.sha256(template.name.public_bytes() + template.holder.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


# Extensions


def extension(value: x509.ExtensionType, *, critical: bool) -> Extension:
    return x509.Extension(value.oid, critical, value)


def constraints(*, ca: bool, longest: int | None = None, critical: bool = True) -> Extension:
    """basicConstraints."""
    return extension(x509.BasicConstraints(ca=ca, path_length=longest), critical=critical)


def usage(*granted: str, critical: bool = True) -> Extension:
    """keyUsage."""
    wanted = {each: each in granted for each in USAGES}
    if unknown := set(granted) - set(wanted):
        raise ValueError(f"no key usage: {unknown}")
    return extension(x509.KeyUsage(**wanted), critical=critical)


def purposes(*oids: x509.ObjectIdentifier, critical: bool = False) -> Extension:
    """extendedKeyUsage."""
    return extension(x509.ExtendedKeyUsage(oids), critical=critical)


def raw(oid: x509.ObjectIdentifier, content: bytes, *, critical: bool) -> Extension:
    """An extension of any kind with any content."""
    return extension(x509.UnrecognizedExtension(oid, content), critical=critical)


def extensions_field(tag: int, extensions: Iterable[Extension]) -> bytes:
    """As they come: in that order, and twice if told so."""
    entries = [
        tlv(
            SEQUENCE,
            object_identifier(each.oid),
            TRUE if each.critical else b"",
            tlv(0x04, each.value.public_bytes()),
        )
        for each in extensions
    ]
    return tlv(tag, tlv(SEQUENCE, *entries)) if entries else b""


# Signatures


def signature_algorithm(key: Key, digest: str) -> bytes:
    """The AlgorithmIdentifier."""
    match key:
        case rsa.RSAPrivateKey() if digest == "PSS":
            sha256 = tlv(SEQUENCE, dotted(SHA256_OID), NULL)
            return tlv(
                SEQUENCE,
                dotted(PSS_SIGNATURE),
                tlv(
                    SEQUENCE,
                    tlv(0xA0, sha256),
                    tlv(0xA1, tlv(SEQUENCE, dotted(MGF1), sha256)),
                    tlv(0xA2, integer(hashes.SHA256.digest_size)),
                ),
            )
        case rsa.RSAPrivateKey():
            return tlv(SEQUENCE, dotted(RSA_SIGNATURES[digest]), NULL)
        case ed25519.Ed25519PrivateKey():
            return tlv(SEQUENCE, dotted(ED25519_SIGNATURE))
        case ed448.Ed448PrivateKey():
            return tlv(SEQUENCE, dotted(ED448_SIGNATURE))
        case _:
            return tlv(SEQUENCE, dotted(EC_SIGNATURES[digest]))


def signed(body: bytes, key: Key, digest: str) -> bytes:
    """The signature; the Edwards curves have a digest of their own."""
    chosen = DIGESTS[digest]
    match key:
        case rsa.RSAPrivateKey() if digest == "PSS":
            masked = padding.PSS(padding.MGF1(chosen), chosen.digest_size)
            return key.sign(body, masked, chosen)
        case rsa.RSAPrivateKey():
            return key.sign(body, padding.PKCS1v15(), chosen)
        case ec.EllipticCurvePrivateKey():
            return key.sign(body, ec.ECDSA(chosen))
        case _:
            return key.sign(body)


# DER


def tlv(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def integer(value: int) -> bytes:
    """Shortest form, one bit more than the number needs: the sign."""
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def utc_time(moment: dt.datetime) -> bytes:
    """Good until 2049."""
    return tlv(UTC_TIME, f"{moment:%y%m%d%H%M%SZ}".encode())


def dotted(oid: str) -> bytes:
    return object_identifier(x509.ObjectIdentifier(oid))


def object_identifier(oid: x509.ObjectIdentifier) -> bytes:
    # cryptography shows the encoding only inside of something: here a SEQUENCE of two bytes more.
    return x509.ExtendedKeyUsage([oid]).public_bytes()[2:]
