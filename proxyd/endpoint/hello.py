"""What a TLS client's first message offers, as far as somebody here asks: its signatures.

Nothing is decided by it, and whoever sends it may say anything: what cannot be read is None, and no
list or loop is longer than the bytes that a handshake may have (handshake.py).
"""

from typing import Final

_HANDSHAKE: Final = 22
_HEADER_SIZE: Final = 5  # of a record: type, version, length
_CLIENT_HELLO: Final = 1
_FIXED_SIZE: Final = 4 + 2 + 32  # type and length of the message, version, random
_SIGNATURE_ALGORITHMS: Final = 13
# GnuTLS and OpenSSL send 20 to 30 of either; the rest of a longer list is nobody's in earnest.
_MOST_EXTENSIONS: Final = 64
_MOST_SIGNATURES: Final = 128


def offered_signatures(records: bytes | bytearray) -> tuple[int, ...] | None:
    """The client's signature_algorithms (RFC 8446, section 4.2.3), in its order, by number.

    `records` are those with the ClientHello and perhaps more. None where there is no such list, or
    where it is too long to be of interest.
    """
    message = _message_in(records)
    if message[:1] != bytes([_CLIENT_HELLO]):
        return None
    try:
        at = _FIXED_SIZE
        at += 1 + message[at]  # session
        at += 2 + _number(message, at)  # ciphers
        at += 1 + message[at]  # compressions
        return _signatures_in(message, at + 2)
    except IndexError:
        return None


def _signatures_in(message: bytes, at: int) -> tuple[int, ...] | None:
    for _ in range(_MOST_EXTENSIONS):
        kind, size = _number(message, at), _number(message, at + 2)
        at += 4
        if kind == _SIGNATURE_ALGORITHMS:
            count = _number(message, at) // 2
            if count > _MOST_SIGNATURES:
                return None
            return tuple(_number(message, at + 2 + 2 * each) for each in range(count))
        at += size
    return None


def _message_in(records: bytes | bytearray) -> bytes:
    """The content of handshake records up to the first of another kind."""
    content, at = bytearray(), 0
    while at + _HEADER_SIZE <= len(records) and records[at] == _HANDSHAKE:
        start = at + _HEADER_SIZE
        at = start + int.from_bytes(records[at + 3 : start], "big")
        content += records[start:at]
    return bytes(content)


def _number(message: bytes, at: int) -> int:
    return message[at] << 8 | message[at + 1]
