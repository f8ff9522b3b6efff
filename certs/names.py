"""Who a certificate is for: the subject, and a server's names. Wrong ones are refused here.

The limits are those of X.520 (upper bounds) and of DNS. libvirt's clients look for the name that
they connected to among a server's names (subjectAltName), so that the common name is one of them.
`covers` looks for a name as GnuTLS does.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from proxyd.config.quoting import excerpt
from proxyd.pki.content import extension_of, malformation

from .failures import CannotDo

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LONGEST_HOST: Final = 253
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_COUNTRY: Final = re.compile(r"[A-Za-z]{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What stands in a subject before the common name, in this order. "" is left out."""

    country: str = ""  # two letters
    state: str = ""
    locality: str = ""
    organization: str = ""
    unit: str = ""


_OIDS: Final = {
    "country": NameOID.COUNTRY_NAME,
    "state": NameOID.STATE_OR_PROVINCE_NAME,
    "locality": NameOID.LOCALITY_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "unit": NameOID.ORGANIZATIONAL_UNIT_NAME,
}
_LONGEST: Final = {"state": 128, "locality": 128, "organization": 64, "unit": 64, "name": 64}
NO_ATTRIBUTES: Final = Attributes()


def subject_for(common_name: str, attributes: Attributes = NO_ATTRIBUTES) -> x509.Name:
    """The subject, checked. Raises CannotDo."""
    given = {each.name: getattr(attributes, each.name) for each in fields(attributes)}
    parts = [
        x509.NameAttribute(_OIDS[kind], _checked(kind, text))
        for kind, text in given.items()
        if text
    ]
    parts.append(x509.NameAttribute(NameOID.COMMON_NAME, _checked("name", common_name)))
    return x509.Name(parts)


def host_names(names: Iterable[str]) -> list[x509.GeneralName]:
    """A server's names: addresses as addresses, the rest as DNS names, each once."""
    return list(dict.fromkeys(_general_name(name) for name in names))


def common_names(certificate: x509.Certificate) -> list[str]:
    """The common names of anybody's certificate, as far as they can be read."""
    try:
        found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, TypeError):
        return []
    return [each.value for each in found if isinstance(each.value, str)]


def alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """The names of anybody's certificate besides the subject, as far as they can be read."""
    if malformation(certificate):
        return []
    found = extension_of(certificate, x509.SubjectAlternativeName)
    return list(found.value) if found else []


def address_in(text: str) -> Address | None:
    """The address that this is, if it is one. One with a zone (%eth0) is not: none can be named."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else address


def check_address(text: str) -> str:
    """An address and nothing else; raises CannotDo."""
    if address_in(text):
        return text
    raise CannotDo(f"{excerpt(text)} is no address; write one like 192.0.2.1 or 2001:db8::1")


def check_host(name: str) -> str:
    """A DNS name, perhaps with * as its first label; raises CannotDo for anything else."""
    labels = name.removeprefix("*.").split(".")
    # What ends in a number is a misspelled address, and no domain.
    if (
        len(name) <= _LONGEST_HOST
        and all(map(_LABEL.fullmatch, labels))
        and not labels[-1].isdecimal()
    ):
        return name
    if name and not name.isascii():
        fix = "write it as DNS does (xn--…)"
    else:
        fix = "write one like host.example.org or 192.0.2.1, without port or brackets"
    raise CannotDo(f"{excerpt(name)} is no host name or address; {fix}")


def covers(certificate: x509.Certificate, host: str) -> bool:
    """Whether a client that connects to this name or address finds it in a server's certificate."""
    names = alternative_names(certificate)
    address = address_in(host)
    if address:
        return any(isinstance(each, x509.IPAddress) and each.value == address for each in names)
    patterns = [each.value for each in names if isinstance(each, x509.DNSName)]
    # A certificate without any of these names is looked up by its common name.
    if not any(isinstance(each, x509.DNSName | x509.IPAddress) for each in names):
        patterns = common_names(certificate)[:1]
    return any(_matches(pattern, host) for pattern in patterns)


def may_name(certificate: x509.Certificate, host: str) -> bool:
    """Whether it covers this name, or one of the same host in some domain."""
    label = host.partition(".")[0].lower()
    first = [
        each.value.partition(".")[0].lower()
        for each in alternative_names(certificate)
        if isinstance(each, x509.DNSName)
    ]
    return label in first or "*" in first or covers(certificate, host)


def _matches(pattern: str, host: str) -> bool:
    pattern, host = pattern.lower(), host.lower()
    if not pattern.startswith("*."):
        return pattern == host
    # One whole label, and not of a top-level domain.
    first, _, rest = host.partition(".")
    return bool(first) and rest == pattern[2:] and "." in rest


def _general_name(name: str) -> x509.GeneralName:
    address = address_in(name)
    return x509.IPAddress(address) if address else x509.DNSName(check_host(name))


def _checked(kind: str, text: str) -> str:
    if kind == "country":
        if not _COUNTRY.fullmatch(text):
            raise CannotDo(f"the country {excerpt(text)} is not two letters, like DE or JP")
        return text.upper()
    if not text:
        raise CannotDo(f"the {kind} is empty")
    if not text.isprintable():
        raise CannotDo(f"the {kind} {excerpt(text)} has characters that cannot be printed")
    if text != text.strip():
        raise CannotDo(f"the {kind} {excerpt(text)} begins or ends with a space")
    size = len(text.encode())  # X.520 counts characters, cryptography bytes
    if size > _LONGEST[kind]:
        raise CannotDo(
            f"the {kind} {excerpt(text)} has {size} bytes, and X.509 allows"
            f" {_LONGEST[kind]}{_LONG_HOST if kind == 'name' else ''}"
        )
    return text


_LONG_HOST: Final = "; name a server shorter and give the long name with --dns"
