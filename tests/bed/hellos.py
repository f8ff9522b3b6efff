"""The first messages of a TLS client, of any content: made by hand, because no library makes these.

They go over the wire in the clear, up to TLS 1.2 the client's certificates too. So a client that
sends these bytes and computes nothing says everything that a stranger can say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

HANDSHAKE, HELLO, CERTIFICATE, HELLO_DONE = 22, 1, 11, 14
TLS_1_2, TLS_1_3 = 0x0303, 0x0304
LONGEST_RECORD: Final = 16384
LONGEST_HELLO: Final = 131_396  # what OpenSSL takes
LONGEST_CERTIFICATES: Final = 102_400  # likewise

SERVER_NAME, GROUPS, POINT_FORMATS, SIGNATURES, ALPN = 0, 10, 11, 13, 16
PADDING, MASTER_SECRET, TICKET, PSK = 21, 23, 35, 41
VERSIONS, PSK_MODES, KEY_SHARE = 43, 45, 51
ECDHE_ECDSA_AES128_GCM: Final = 0xC02B
AES128_GCM: Final = 0x1301
X25519, P256 = 0x001D, 0x0017
SIGNATURE_SCHEMES: Final = (0x0403, 0x0503, 0x0804, 0x0401)


def sized(width: int, content: bytes) -> bytes:
    """Behind its length, which has so many bytes."""
    return len(content).to_bytes(width, "big") + content


def words(values: Iterable[int]) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


@dataclass(frozen=True, slots=True)
class Hello:
    """A ClientHello. `extensions` come behind the usual ones, or in the place of one of a kind."""

    extensions: Sequence[tuple[int, bytes]] = ()
    ciphers: bytes = words((ECDHE_ECDSA_AES128_GCM, AES128_GCM))
    session: bytes = b""

    def pack(self) -> bytes:
        kinds = {kind for kind, _ in self.extensions}
        listed = [each for each in USUAL if each[0] not in kinds]
        body = b"".join(
            kind.to_bytes(2, "big") + sized(2, content)
            for kind, content in (*listed, *self.extensions)
        )
        return message(
            HELLO,
            TLS_1_2.to_bytes(2, "big")
            + bytes(range(32))
            + sized(1, self.session)
            + sized(2, self.ciphers)
            + sized(1, b"\0")
            + sized(2, body),
        )


USUAL: Final = (
    (GROUPS, sized(2, words((X25519, P256)))),
    (POINT_FORMATS, sized(1, b"\0")),
    (SIGNATURES, sized(2, words(SIGNATURE_SCHEMES))),
    (MASTER_SECRET, b""),
)
SPEAKS_1_3: Final = (VERSIONS, sized(1, words((TLS_1_3,))))


def message(kind: int, body: bytes) -> bytes:
    """A handshake message."""
    return bytes([kind]) + sized(3, body)


def certificates(ders: Iterable[bytes]) -> bytes:
    """The message with a client's certificates as TLS 1.2 has it."""
    return message(CERTIFICATE, sized(3, b"".join(sized(3, der) for der in ders)))


def records(content: bytes, *, size: int = LONGEST_RECORD) -> bytes:
    """Handshake messages, cut into records of that size."""
    head = bytes([HANDSHAKE]) + TLS_1_2.to_bytes(2, "big")
    return b"".join(head + sized(2, content[at : at + size]) for at in range(0, len(content), size))
