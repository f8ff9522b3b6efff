"""The subject of a certificate as one line, spelled as GnuTLS spells it.

`tls_allowed_dn_list`, the client's identity and the log all use the text that libvirt gets from
`gnutls_x509_crt_get_dn` (docs/protocol/tls.md, section 6), so its quirks are kept:

* Attributes stand in the order of the certificate, without a space behind the comma, and a set of
  several is joined with "+".
* Each known attribute has string types of its own. A value of another type is spelled as the
  whole DER of it, in hexadecimal behind a "#". Thus a country that is a UTF8String, which OpenSSL
  never writes but some authorities do, is `C=#0c024742` and not `C=GB`.
* A TeletexString that is not plain ASCII, a UniversalString and a broken BMPString are spelled as
  the hexadecimal of the characters alone, and their "#" is escaped as any other text's: `\\#61e4`.
* A string with a NUL in it is hexadecimal as well, so that nobody hides the end of a name.

Where GnuTLS gives no name, libvirt refuses the client; here that is ValueError, and everything
that is no DER is too. An empty attribute of the kinds that GnuTLS before 3.8.4 spelled in
hexadecimal (`DC=#1600`) is empty as in newer versions (`DC=`).

What can stand in the text: every character except NUL. Line ends and other control characters
are kept, so write it to a log only with `repr` or `quoting.one_line`. A byte that is no UTF-8 is
a lone surrogate ("surrogateescape"), as in `wire.xdr`, and leaves again as the same byte.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from cryptography import x509


class _Tag(IntEnum):
    OCTET_STRING = 0x04
    OID = 0x06
    UTF8 = 0x0C
    NUMERIC = 0x12
    PRINTABLE = 0x13
    TELETEX = 0x14
    IA5 = 0x16
    UNIVERSAL = 0x1C
    BMP = 0x1E
    SEQUENCE = 0x30
    SET = 0x31
    VERSION = 0xA0
    EXTENSIONS = 0xA3


@dataclass(frozen=True, slots=True)
class _Known:
    """An attribute that GnuTLS knows, and in which string types it reads it."""

    name: str
    kinds: frozenset[int]


_DIRECTORY: Final[frozenset[int]] = frozenset(
    {_Tag.UTF8, _Tag.PRINTABLE, _Tag.TELETEX, _Tag.UNIVERSAL, _Tag.BMP}
)
_PASSWORD: Final[frozenset[int]] = frozenset({_Tag.PRINTABLE, _Tag.UTF8})
_PRINTABLE: Final[frozenset[int]] = frozenset({_Tag.PRINTABLE})
_NUMERIC: Final[frozenset[int]] = frozenset({_Tag.NUMERIC})
_IA5: Final[frozenset[int]] = frozenset({_Tag.IA5})
_UTF8: Final[frozenset[int]] = frozenset({_Tag.UTF8})
_BMP: Final[frozenset[int]] = frozenset({_Tag.BMP})
_OCTETS: Final[frozenset[int]] = frozenset({_Tag.OCTET_STRING})

_KNOWN: Final[dict[str, _Known]] = {
    "2.5.4.3": _Known("CN", _DIRECTORY),
    "2.5.4.4": _Known("surName", _DIRECTORY),
    "2.5.4.5": _Known("serialNumber", _PRINTABLE),
    "2.5.4.6": _Known("C", _PRINTABLE),
    "2.5.4.7": _Known("L", _DIRECTORY),
    "2.5.4.8": _Known("ST", _DIRECTORY),
    "2.5.4.9": _Known("street", _DIRECTORY),
    "2.5.4.10": _Known("O", _DIRECTORY),
    "2.5.4.11": _Known("OU", _DIRECTORY),
    "2.5.4.12": _Known("title", _DIRECTORY),
    "2.5.4.13": _Known("description", _DIRECTORY),
    "2.5.4.15": _Known("businessCategory", _DIRECTORY),
    "2.5.4.17": _Known("postalCode", _DIRECTORY),
    "2.5.4.20": _Known("telephoneNumber", _PRINTABLE),
    "2.5.4.41": _Known("name", _DIRECTORY),
    "2.5.4.42": _Known("givenName", _DIRECTORY),
    "2.5.4.43": _Known("initials", _DIRECTORY),
    "2.5.4.44": _Known("generationQualifier", _DIRECTORY),
    "2.5.4.46": _Known("dnQualifier", _PRINTABLE),
    "2.5.4.65": _Known("pseudonym", _DIRECTORY),
    "0.9.2342.19200300.100.1.1": _Known("UID", _DIRECTORY),
    "0.9.2342.19200300.100.1.25": _Known("DC", _IA5),
    "1.2.643.3.131.1.1": _Known("INN", _NUMERIC),
    "1.2.643.100.1": _Known("OGRN", _NUMERIC),
    "1.2.643.100.3": _Known("SNILS", _NUMERIC),
    "1.2.643.100.5": _Known("OGRNIP", _NUMERIC),
    "1.2.840.113549.1.9.1": _Known("EMAIL", _IA5),
    # Read as text, yet without a name.
    "1.2.840.113549.1.9.4": _Known("1.2.840.113549.1.9.4", _OCTETS),
    "1.2.840.113549.1.9.7": _Known("1.2.840.113549.1.9.7", _PASSWORD),
    "1.2.840.113549.1.9.20": _Known("1.2.840.113549.1.9.20", _BMP),
    "1.2.840.113549.1.9.21": _Known("1.2.840.113549.1.9.21", _OCTETS),
    "1.2.840.113556.1.4.656": _Known("userPrincipalName", _DIRECTORY),
    "1.3.6.1.4.1.311.60.2.1.1": _Known("jurisdictionOfIncorporationLocalityName", _DIRECTORY),
    "1.3.6.1.4.1.311.60.2.1.2": _Known(
        "jurisdictionOfIncorporationStateOrProvinceName", _DIRECTORY
    ),
    "1.3.6.1.4.1.311.60.2.1.3": _Known("jurisdictionOfIncorporationCountryName", _PRINTABLE),
    "1.3.6.1.5.5.7.8.5": _Known("XmppAddr", _UTF8),
    "1.3.6.1.5.5.7.9.2": _Known("placeOfBirth", _DIRECTORY),
    "1.3.6.1.5.5.7.9.3": _Known("gender", _PRINTABLE),
    "1.3.6.1.5.5.7.9.4": _Known("countryOfCitizenship", _PRINTABLE),
    "1.3.6.1.5.5.7.9.5": _Known("countryOfResidence", _PRINTABLE),
}

_ESCAPED: Final = str.maketrans({char: f"\\{char}" for char in ',+"\\<>;'})
_LONGEST_OID: Final = 126  # GnuTLS has no room for a longer one
_LARGEST_ARC: Final = 2**63 - 1  # GnuTLS writes the next one as a negative number
_SUBJECT: Final = 4  # in TBSCertificate: serial, algorithm, issuer, validity, subject
_OIDS_REMEMBERED: Final = 64  # subjects are made of the same few


class Parts(NamedTuple):
    """What a certificate's own size does not tell: the DER of its subject and its extensions."""

    subject: bytes
    extensions: bytes  # b"" without any


def parts_of(certificate: x509.Certificate) -> Parts:
    """Cut out of the certificate's own bytes and not looked into. Raises ValueError alone."""
    fields = list(_elements(_only(certificate.tbs_certificate_bytes, _Tag.SEQUENCE)))
    if fields and fields[0].tag == _Tag.VERSION:
        del fields[0]
    if len(fields) <= _SUBJECT:
        raise ValueError("the certificate ends before its subject")
    last = fields[-1]
    return Parts(fields[_SUBJECT].der, last.der if last.tag == _Tag.EXTENSIONS else b"")


def subject_of(certificate: x509.Certificate) -> str:
    """The subject, read from the certificate's own bytes. Raises ValueError and nothing else.

    `certificate.subject` does not do for a stranger's certificate: it raises TypeError for some,
    refuses names that GnuTLS reads, and warns on stderr of lengths. For as long as the subject is
    (5 µs for a part of 11 bytes) nothing else of the process runs: see bounds.py.
    """
    return dname_from_der(parts_of(certificate).subject)


def distinguished_name(name: x509.Name) -> str:
    """The name as GnuTLS spells it; "" when it is empty. Raises ValueError and nothing else.

    cryptography has put the attributes of a set into DER order by then; `subject_of` sees the
    order of the certificate.
    """
    return dname_from_der(name.public_bytes())


def dname_from_der(der: bytes) -> str:
    """The same for the DER of a Name, whatever those bytes are."""
    return ",".join(
        "+".join(_attribute(_expect(each, _Tag.SEQUENCE)) for each in _members(rdn))
        for rdn in _elements(_only(der, _Tag.SEQUENCE))
    )


class _Element(NamedTuple):
    """One DER element: its tag, what is in it, and all of its bytes."""

    tag: int
    content: bytes
    der: bytes


def _elements(der: bytes) -> Iterator[_Element]:
    """The elements that stand one behind the other in these bytes."""
    at = 0
    while at < len(der):
        start, end = _bounds(der, at)
        yield _Element(der[at], der[start:end], der[at:end])
        at = end


def _bounds(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at this place starts and ends. DER lengths only."""
    if der[at] & 0x1F == 0x1F:
        raise ValueError("a tag of several bytes is in no name")
    header = der[at + 1 : at + 2]
    if not header:
        raise ValueError("the length is missing")
    size, start = header[0], at + 2
    if size >= 0x80:
        count = size & 0x7F
        size = int.from_bytes(der[start : start + count], "big")
        start += count
        if not 1 <= count <= 4 or size < max(0x80, 1 << 8 * (count - 1)):
            raise ValueError("the length is not in the shortest form")
    if start + size > len(der):
        raise ValueError("an element is longer than what it stands in")
    return start, start + size


def _only(der: bytes, tag: _Tag) -> bytes:
    elements = list(_elements(der))
    if len(elements) != 1:
        raise ValueError("one element was expected")
    return _expect(elements[0], tag)


def _expect(element: _Element, tag: _Tag) -> bytes:
    if element.tag != tag:
        raise ValueError(f"the tag is {element.tag:#04x} where {tag:#04x} was expected")
    return element.content


def _members(rdn: _Element) -> list[_Element]:
    members = list(_elements(_expect(rdn, _Tag.SET)))
    if not members:
        # GnuTLS ends the whole process on a name of nothing else.
        raise ValueError("a part of the name is empty")
    return members


def _attribute(content: bytes) -> str:
    parts = list(_elements(content))
    if len(parts) != 2:
        raise ValueError("an attribute is a type and a value")
    oid, value = _dotted(_expect(parts[0], _Tag.OID)), parts[1]
    known = _KNOWN.get(oid) or _Known(oid, frozenset())
    if known.kinds is _DIRECTORY and not value.content:
        raise ValueError(f"{known.name} is empty")
    text = _text(value, known.kinds)
    return f"{known.name}=" + (f"#{value.der.hex()}" if text is None else _escape(text))


def _text(value: _Element, kinds: frozenset[int]) -> str | None:
    """The value as text, None when it has to be spelled as DER."""
    if not value.content:  # of whatever type: GnuTLS looks at the length first
        return "" if kinds and kinds is not _PASSWORD else None
    if value.tag not in kinds:
        return None
    match value.tag:
        case _Tag.BMP:
            text = _utf16(value.content)
        case _Tag.TELETEX if not all(0x20 <= byte < 0x7F for byte in value.content):
            text = f"#{value.content.hex()}"
        case _Tag.UNIVERSAL:
            text = f"#{value.content.hex()}"
        case _Tag.OCTET_STRING if b"\0" in value.content:
            raise ValueError("a NUL stands in an attribute without a fallback")
        case _:
            text = value.content.decode("utf-8", "surrogateescape")
    return None if "\0" in text else text


def _utf16(content: bytes) -> str:
    # One closing NUL is not part of the name, and half a character at the end is left out.
    size = len(content) - (2 if len(content) > 2 and content.endswith(b"\0\0") else 0)
    try:
        return content[: size - size % 2].decode("utf-16-be")
    except UnicodeDecodeError:
        return f"#{content.hex()}"


@functools.lru_cache(_OIDS_REMEMBERED)
def _dotted(content: bytes) -> str:
    arcs: list[int] = []
    arc, fresh = 0, True
    for byte in content:
        if fresh and byte == 0x80:
            raise ValueError("a number in the OID has leading zeros")
        arc, fresh = arc << 7 | byte & 0x7F, byte < 0x80
        if arc > _LARGEST_ARC:
            raise ValueError("a number in the OID is too large")
        if fresh:
            arcs.append(arc)
            arc = 0
    if not arcs or not fresh:
        raise ValueError("the OID is not complete")
    top = min(arcs[0] // 40, 2)
    dotted = ".".join(map(str, (top, arcs[0] - 40 * top, *arcs[1:])))
    if len(dotted) > _LONGEST_OID:
        raise ValueError("the OID is too long")
    return dotted


def _escape(text: str) -> str:
    escaped = text.translate(_ESCAPED)
    if len(text) > 1 and text.endswith(" "):
        escaped = f"{escaped[:-1]}\\ "
    return f"\\{escaped}" if text.startswith((" ", "#")) else escaped
