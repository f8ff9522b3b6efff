"""What strangers may send a TLS listener to cost it more than a small handshake does.

A row says what is particular about it and how it is made: a hello and the certificates behind it,
sent as they are, up to TLS 1.2 in the clear; or the certificates of a client that goes through a
whole handshake by TLS 1.3. They are made when they are needed. `test_hostile_handshakes.py` holds
each row's cost to others against that of a small certificate.
"""

import datetime as dt
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bed.hellos import (
    AES128_GCM,
    ALPN,
    ECDHE_ECDSA_AES128_GCM,
    GROUPS,
    KEY_SHARE,
    LONGEST_RECORD,
    PSK,
    PSK_MODES,
    SERVER_NAME,
    SIGNATURE_SCHEMES,
    SIGNATURES,
    SPEAKS_1_3,
    TICKET,
    TLS_1_3,
    VERSIONS,
    X25519,
    Hello,
    certificates,
    records,
    sized,
    words,
)
from tests.bed.minting import BITS, NULL, SEQUENCE, dotted, integer, tlv
from tests.bed.odd_certificates import (
    OCTETS,
    attribute,
    certificate,
    extension,
    name,
    part,
)

UNKNOWN = "1.3.6.1.4.1.99999"
FIRST_FLIGHT: Final = Hello().pack()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`hello` and `flight` are records; `chain` instead is a whole handshake's.

    `in_pieces`: each byte goes out by itself. `always`: among those that are tried each time.
    """

    what: str
    make: Callable[[], "Sent"]
    always: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    hello: bytes = b""
    flight: bytes = b""
    in_pieces: bool = False
    chain: Sequence[bytes] = ()


def shows(what, make, *, always=False, size=LONGEST_RECORD) -> Row:
    """Certificates, one or a list, behind an ordinary hello."""

    def sent() -> Sent:
        made = make()
        ders = [made] if isinstance(made, bytes) else made
        return Sent(hello=records(FIRST_FLIGHT), flight=records(certificates(ders), size=size))

    return Row(what=what, make=sent, always=always)


def says(what, hello, *, always=False, size=LONGEST_RECORD, in_pieces=False) -> Row:
    """A hello, with a small certificate behind it where the server asks for one."""

    def sent() -> Sent:
        return Sent(
            hello=records(hello().pack(), size=size),
            flight=records(certificates([certificate()])),
            in_pieces=in_pieces,
        )

    return Row(what=what, make=sent, always=always)


def completes(what, chain, *, always=False) -> Row:
    return Row(what=what, make=lambda: Sent(chain=chain()), always=always)


# Certificates


def names(kind: int, content: bytes, count: int) -> bytes:
    return extension("2.5.29.17", tlv(SEQUENCE, *[tlv(kind, content)] * count))


def nested(depth: int) -> bytes:
    content = NULL
    for _ in range(depth):
        content = tlv(SEQUENCE, content)
    return content


def rsa_key(bits: int, exponent: int = 65537) -> bytes:
    """One that nobody has the private half of."""
    modulus = random.Random(bits).getrandbits(bits) | 1 << (bits - 1) | 1
    key = tlv(SEQUENCE, integer(modulus), integer(exponent))
    return tlv(SEQUENCE, tlv(SEQUENCE, dotted("1.2.840.113549.1.1.1"), NULL), tlv(BITS, b"\0", key))


def dsa_key(bits: int) -> bytes:
    number = integer(1 << (bits - 1) | 1)
    parameters = tlv(SEQUENCE, number, integer(1 << 255 | 1), integer(2))
    algorithm = tlv(SEQUENCE, dotted("1.2.840.10040.4.1"), parameters)
    return tlv(SEQUENCE, algorithm, tlv(BITS, b"\0", number))


def ec_key_with_own_parameters(bits: int) -> bytes:
    """A curve of a prime field that long, in full instead of by its name."""
    prime = (1 << bits) - 1
    field = tlv(SEQUENCE, dotted("1.2.840.10045.1.1"), integer(prime))
    point = b"\4" + bytes(bits // 4)
    curve = tlv(SEQUENCE, tlv(OCTETS, bytes(bits // 8)), tlv(OCTETS, bytes(bits // 8)))
    parameters = tlv(SEQUENCE, integer(1), field, curve, tlv(OCTETS, point), integer(prime))
    algorithm = tlv(SEQUENCE, dotted("1.2.840.10045.2.1"), parameters)
    return tlv(SEQUENCE, algorithm, tlv(BITS, b"\0", point))


def common(text: str) -> bytes:
    return name(part(attribute(text.encode())))


def strangers(count: int) -> list[bytes]:
    """Each is the next one's subject, so that they make a chain."""
    return [certificate(common(f"n{n}"), issuer=common(f"n{n + 1}")) for n in range(count)]


def policies(count: int) -> list[bytes]:
    kinds = [dotted(f"{UNKNOWN}.{n}") for n in range(count)]
    return [
        extension("2.5.29.32", tlv(SEQUENCE, *[tlv(SEQUENCE, kind) for kind in kinds])),
        extension(
            "2.5.29.33",
            tlv(SEQUENCE, *[tlv(SEQUENCE, kind, kinds[0]) for kind in kinds]),
        ),
    ]


CERTIFICATES = (
    shows(
        "a subject of 8000 parts",
        lambda: certificate(name(*[part()] * 8000), issuer=name()),
        always=True,
    ),
    shows(
        "a subject of 2700 parts",
        lambda: certificate(name(*[part()] * 2700), issuer=name()),
        always=True,
    ),
    shows(
        "a subject as large as is spelled", lambda: certificate(name(*[part()] * 82)), always=True
    ),
    shows("a subject of one value", lambda: certificate(common("a" * 7000))),
    shows("a subject of one set", lambda: certificate(name(part(*[attribute()] * 1500)))),
    shows(
        "attributes that nobody knows",
        lambda: certificate(
            name(part(*[attribute(kind=dotted(f"{UNKNOWN}.{n}")) for n in range(900)]))
        ),
    ),
    shows(
        "attributes with long identifiers",
        lambda: certificate(name(*[part(attribute(kind=dotted("1.2" + ".99" * 40)))] * 200)),
    ),
    shows(
        "values in UTF-16",
        lambda: certificate(name(*[part(attribute(b"\x20\x2e" * 30, tag=0x1E))] * 100)),
    ),
    shows(
        "values that are no UTF-8",
        lambda: certificate(name(part(attribute(b"\xff" * 900, tag=0x14)))),
    ),
    shows(
        "values that turn the line round",
        lambda: certificate(name(part(attribute("\u202e".encode() * 300)))),
    ),
    shows("an issuer of 2700 parts", lambda: certificate(issuer=name(*[part()] * 2700))),
    shows(
        "5000 host names", lambda: certificate(extensions=[names(0x82, b"a", 5000)]), always=True
    ),
    shows(
        "4000 directory names",
        lambda: certificate(extensions=[names(0xA4, tlv(SEQUENCE), 4000)]),
    ),
    shows("2500 addresses", lambda: certificate(extensions=[names(0x87, b"\1\2\3\4", 2500)])),
    shows(
        "1000 extensions that nobody knows",
        lambda: certificate(extensions=[extension(f"{UNKNOWN}.{n}", b"") for n in range(1000)]),
    ),
    shows(
        "a critical one of 30 KiB",
        lambda: certificate(extensions=[extension(UNKNOWN, bytes(30_000), critical=True)]),
    ),
    shows(
        "one extension 1500 times",
        lambda: certificate(extensions=[extension("2.5.29.15", b"\x03\x02\x05\xa0")] * 1500),
    ),
    shows(
        "1500 places of revocation lists",
        lambda: certificate(
            extensions=[
                extension(
                    "2.5.29.31",
                    tlv(
                        SEQUENCE,
                        *[tlv(SEQUENCE, tlv(0xA0, tlv(0xA0, tlv(0x86, b"http://a"))))] * 1500,
                    ),
                )
            ]
        ),
    ),
    shows("600 policies, mapped", lambda: certificate(extensions=policies(600))),
    shows(
        "2000 name constraints",
        lambda: certificate(
            extensions=[
                extension(
                    "2.5.29.30",
                    tlv(SEQUENCE, tlv(0xA0, *[tlv(SEQUENCE, tlv(0x82, b"a.b"))] * 2000)),
                    critical=True,
                )
            ]
        ),
    ),
    shows(
        "1500 places of the issuer",
        lambda: certificate(
            extensions=[
                extension(
                    "1.3.6.1.5.5.7.1.1",
                    tlv(
                        SEQUENCE,
                        *[tlv(SEQUENCE, dotted("1.3.6.1.5.5.7.48.2"), tlv(0x86, b"a"))] * 1500,
                    ),
                )
            ]
        ),
    ),
    shows(
        "5000 purposes",
        lambda: certificate(
            extensions=[extension("2.5.29.37", tlv(SEQUENCE, *[b"\x06\x01*"] * 5000))]
        ),
    ),
    shows(
        "an extension of 5000 levels",
        lambda: certificate(extensions=[extension("2.5.29.17", nested(5000))]),
    ),
    shows(
        "a value of 3000 levels",
        lambda: certificate(name(part(tlv(SEQUENCE, dotted("2.5.4.3"), nested(3000))))),
    ),
    shows("a serial number of 15 KiB", lambda: certificate(serial=b"\x7f" * 15_000)),
    shows("a key of RSA 8192", lambda: certificate(public_key=rsa_key(8192))),
    shows("a key of RSA 16384", lambda: certificate(public_key=rsa_key(16384, 2**64 - 1))),
    shows("a key of RSA 100000", lambda: certificate(public_key=rsa_key(100_000))),
    shows("a key of DSA 10000", lambda: certificate(public_key=dsa_key(10_000))),
    shows("a curve of its own", lambda: certificate(public_key=ec_key_with_own_parameters(521))),
    shows("a chain of 100", lambda: strangers(100), always=True),
    shows("100 of one name", lambda: [certificate(serial=bytes([n + 1])) for n in range(100)]),
    shows(
        "50 that issued each other",
        lambda: [
            certificate(common("ab"[n % 2]), issuer=common("ba"[n % 2]), serial=bytes([n + 1]))
            for n in range(50)
        ],
    ),
    shows("a chain of 300", lambda: strangers(300)),
    shows(
        "16 with subjects as large as are spelled",
        lambda: [
            certificate(name(*[part()] * 82), serial=bytes([n + 1]), age=dt.timedelta(days=90))
            for n in range(16)
        ],
    ),
    shows("30 KiB of nothing", lambda: bytes(30_000)),
    shows(
        "a certificate that ends too early", lambda: certificate(name(*[part()] * 1000))[:12_000]
    ),
    shows("9000 certificates of no bytes", lambda: [b""] * 9000),
    shows("certificates in records of one byte", lambda: [certificate(common("a" * 1000))], size=1),
    shows("as many records of one byte as fit", lambda: [certificate(common("a" * 2700))], size=1),
    shows("records of 8 bytes", lambda: [certificate(common("a" * 6000))], size=8),
    shows("as many records as are read", lambda: [certificate(common("a" * 7000))], size=120),
)

# Hellos


def listed(kind: int, content: bytes) -> Hello:
    return Hello(extensions=[(kind, content)])


def modern(*extensions: tuple[int, bytes]) -> Hello:
    return Hello(extensions=[SPEAKS_1_3, *extensions], session=bytes(32))


HELLOS = (
    says(
        "15000 ciphers",
        lambda: Hello(ciphers=words((*range(0x1000, 0x1000 + 15_000), ECDHE_ECDSA_AES128_GCM))),
    ),
    says(
        "32000 ciphers",
        lambda: Hello(ciphers=words((*[0x5A5A] * 32_000, ECDHE_ECDSA_AES128_GCM, AES128_GCM))),
    ),
    says("an extension of 30 KiB", lambda: listed(0x5A5A, bytes(30_000))),
    says("8000 extensions", lambda: Hello(extensions=[(0x8000 + n, b"") for n in range(8000)])),
    says("15000 protocols", lambda: listed(ALPN, sized(2, sized(1, b"a") * 15_000))),
    says(
        "a server's name of 30 KiB",
        lambda: listed(SERVER_NAME, sized(2, b"\0" + sized(2, b"a" * 30_000))),
    ),
    says(
        "15000 groups",
        lambda: listed(GROUPS, sized(2, words((*[0x5A5A] * 15_000, X25519)))),
    ),
    says(
        "3000 groups and 3000 shares",
        lambda: modern(
            (GROUPS, sized(2, words((*range(0x4000, 0x4000 + 3000), X25519)))),
            (
                KEY_SHARE,
                sized(2, b"".join(words((0x4000 + n,)) + sized(2, b"a") for n in range(3000))),
            ),
        ),
        always=True,
    ),
    says(
        "15000 kinds of signatures",
        lambda: listed(SIGNATURES, sized(2, words((*[0x5A5A] * 15_000, *SIGNATURE_SCHEMES)))),
    ),
    says("127 versions", lambda: Hello(extensions=[(VERSIONS, sized(1, words([TLS_1_3] * 127)))])),
    says("a ticket of 30 KiB", lambda: listed(TICKET, bytes(30_000))),
    says(
        "700 keys shared beforehand",
        lambda: modern(
            (PSK_MODES, sized(1, b"\1")),
            (KEY_SHARE, sized(2, words((X25519,)) + sized(2, bytes(31) + b"\x09"))),
            (
                PSK,
                sized(2, (sized(2, b"a") + bytes(4)) * 700) + sized(2, sized(1, bytes(32)) * 700),
            ),
        ),
    ),
    says("a hello in records of one byte", Hello, size=1),
    says("a hello in packets of one byte", Hello, in_pieces=True),
    says(
        "a hello of 128 KiB",
        lambda: Hello(extensions=[(0x5A5A, bytes(64_000))], ciphers=words([0x5A5A] * 32_000)),
    ),
)

COMPLETE = (
    completes(
        "TLS 1.3: a subject of 8000 parts",
        lambda: [certificate(name(*[part()] * 8000), issuer=name())],
    ),
    completes(
        "TLS 1.3: a subject of 2700 parts",
        lambda: [certificate(name(*[part()] * 2700), issuer=name())],
    ),
    completes("TLS 1.3: a chain of 100", lambda: strangers(100)),
)

SMALL = shows("a small one", certificate)
SMALL_COMPLETE = completes("TLS 1.3: a small one", lambda: [certificate()])
