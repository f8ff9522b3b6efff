"""Certificates put together from DER, of any size and shape that OpenSSL still takes for one.

`minting` makes certificates of which one thing is wrong; here it is the parts that are many, long
or deep. All have the key `KEY`, and are signed with it, whoever is named as the issuer.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.bed.minting import (
    BITS,
    DAY,
    EC_SIGNATURES,
    EXTENSIONS_FIELD,
    SEQUENCE,
    TRUE,
    VERSION_FIELD,
    dotted,
    integer,
    tlv,
    utc_time,
)

INTEGER, OCTETS, OID, UTF8, SET = 0x02, 0x04, 0x06, 0x0C, 0x31
COMMON_NAME: Final = dotted("2.5.4.3")
KEY: Final = ec.generate_private_key(ec.SECP256R1())
ALGORITHM: Final = tlv(SEQUENCE, dotted(EC_SIGNATURES["SHA256"]))
PUBLIC_KEY: Final = KEY.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)


def attribute(value: bytes = b"a", *, kind: bytes = COMMON_NAME, tag: int = UTF8) -> bytes:
    return tlv(SEQUENCE, kind, tlv(tag, value))


def part(*attributes: bytes) -> bytes:
    """One part of a name; several attributes are a multi-valued one."""
    return tlv(SET, *(attributes or (attribute(),)))


def name(*parts: bytes) -> bytes:
    return tlv(SEQUENCE, *(parts or (part(),)))


def extension(kind: str, content: bytes, *, critical: bool = False) -> bytes:
    return tlv(SEQUENCE, dotted(kind), TRUE if critical else b"", tlv(OCTETS, content))


def certificate(
    subject: bytes | None = None,
    *,
    issuer: bytes | None = None,
    serial: bytes = b"\x01",
    extensions: Iterable[bytes] = (),
    public_key: bytes = PUBLIC_KEY,
    age: dt.timedelta = DAY,
    signer: ec.EllipticCurvePrivateKey = KEY,
) -> bytes:
    """Valid from `age` ago for 60 days; its own issuer unless there is another."""
    subject = name() if subject is None else subject
    entries = tuple(extensions)
    begins = dt.datetime.now(dt.UTC) - age
    body = tlv(
        SEQUENCE,
        tlv(VERSION_FIELD, integer(2)),
        tlv(INTEGER, serial),
        ALGORITHM,
        subject if issuer is None else issuer,
        tlv(SEQUENCE, utc_time(begins), utc_time(begins + 60 * DAY)),
        subject,
        public_key,
        tlv(EXTENSIONS_FIELD, tlv(SEQUENCE, *entries)) if entries else b"",
    )
    signature = signer.sign(body, ec.ECDSA(hashes.SHA256()))
    return tlv(SEQUENCE, body, ALGORITHM, tlv(BITS, b"\0", signature))
