"""One condition of a rule's second column, as `user:alice`, and what of a client it looks at."""

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from proxyd.rules.glob import Glob
from proxyd.rules.subject import Subject

_ESCAPED: Final = re.compile(r"\\([^*?])", re.DOTALL)
_PRIVATE: Final = 0xF0000  # where no character is anybody's
_PLANE: Final = 0x10000

UID_BITS: Final = 33  # no address has as many, so that numbers of both kinds are told apart


class Kind(StrEnum):
    """What a pattern is about, as it is written before the colon."""

    USER = "user"
    GROUP = "group"
    UID = "uid"
    SASL = "sasl"
    DN = "dn"
    SAN = "san"
    ADDR = "addr"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Pattern:
    """`text` is what stands behind the kind; of a san with its type, as `dns:*.example.org`.

    Names have a `glob`. Numbers go from `low` to `high`, and have `bits`: those of an address of
    IPv4 are 32, of IPv6 128, and uids UID_BITS.
    """

    kind: Kind
    text: str
    glob: Glob | None = None
    low: int = 0
    high: int = 0
    bits: int = 0

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.text}" if self.text else self.kind.value

    def matches(self, client: "Client") -> bool:
        """Tell whether the client has what is asked for. What is not known of it fits nothing."""
        if self.glob is not None:
            # Not any(), which takes twice as long for the one name that there mostly is.
            for name in client.names[self.kind]:  # noqa: SIM110
                if self.glob.matches(name):
                    return True
            return False
        if self.bits:
            number = client.numbers.get(self.bits)
            return number is not None and self.low <= number <= self.high
        return True

    def takes(self, other: "Pattern") -> bool:
        """Whether each client that fits `other` fits this one; False where that is not plain."""
        if self.kind is Kind.ALL:
            return True
        if self.kind is not other.kind:
            return False
        if self.glob is not None and other.glob is not None:
            return self.glob.takes(other.glob)
        return self.bits == other.bits and self.low <= other.low and other.high <= self.high


EVERYBODY: Final = Pattern(Kind.ALL, "")


class Client:
    """A subject, made ready for being compared with many patterns.

    `names` are what it is called, by kind; `numbers` its uid and address, by their bits.
    """

    __slots__ = ("names", "numbers", "subject")

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.names: dict[Kind, tuple[str, ...]] = {
            Kind.USER: () if subject.user is None else (subject.user,),
            Kind.GROUP: tuple(subject.groups),
            Kind.SASL: () if subject.sasl is None else (subject.sasl,),
            Kind.DN: () if subject.dn is None else (spelled(Kind.DN, subject.dn),),
            Kind.SAN: tuple(spelled_san(san.kind, san.value) for san in subject.sans),
        }
        self.numbers: dict[int, int] = {}
        if subject.uid is not None:
            self.numbers[UID_BITS] = subject.uid
        if subject.address:
            address = address_of(subject.address)
            if address is not None:
                self.numbers[address.max_prefixlen] = int(address)


def spelled(kind: Kind, text: str) -> str:
    """A name, or a pattern of one, as they are compared with each other.

    What is escaped in a certificate's subject is made unlike what parts it: else `CN=*,O=Example`
    would fit somebody whose CN is `joe,O=Example` and who has no O at all.
    """
    if kind is not Kind.DN:
        return text
    return _ESCAPED.sub(lambda found: chr(_PRIVATE + ord(found[1]) % _PLANE), text)


def spelled_san(kind: str, value: str) -> str:
    """A certificate's other name as patterns are compared with it: with its type.

    Case does not count in a DNS name, nor behind the @ of a mail address.
    """
    if kind == "dns":
        value = value.lower()
    elif kind == "email":
        local, at, domain = value.rpartition("@")
        value = f"{local}{at}{domain.lower()}"
    return f"{kind}:{value}"


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address without its zone; one of IPv4 that is written as IPv6 is one of IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
