"""XDR primitives, both ways, every bound checked before use (docs/protocol/xdr.md, section 1).

The reader is a cursor over one payload. It never copies more than the peer really sent: a
length or count is compared with what is left before anything of that size is made.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final, TypeVar

MAX_STRING: Final = 4194304  # every bounded string of REMOTE, ADMIN and error payloads

_U32: Final = Struct(">I")
_I32: Final = Struct(">i")
_U64: Final = Struct(">Q")
_I64: Final = Struct(">q")
_DOUBLE: Final = Struct(">d")

_SIGNS: Final = bytes(128) + b"\xff" * 128  # of a byte as a C char, in each byte of its extension

Item = TypeVar("Item")


class MalformedFrame(Exception):
    """The bytes are no frame, or a payload does not decode as what it claims to be."""


class Reader:
    """A cursor over an XDR payload; every method raises MalformedFrame when the bytes run out."""

    __slots__ = ("_at", "_view")

    def __init__(self, payload: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(payload)
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not read yet; what trails a fully decoded payload is ignored, as libvirt does."""
        return len(self._view) - self._at

    def u32(self) -> int:
        return int(_U32.unpack(self._take(4))[0])

    def i32(self) -> int:
        return int(_I32.unpack(self._take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack(self._take(8))[0])

    def i64(self) -> int:
        return int(_I64.unpack(self._take(8))[0])

    def double(self) -> float:
        return float(_DOUBLE.unpack(self._take(8))[0])

    def fixed_opaque(self, size: int) -> bytes:
        """Raw bytes without a length word (a UUID), padded to a multiple of four."""
        taken = bytes(self._take(size))
        self._take(-size % 4)
        return taken

    def opaque(self, limit: int) -> bytes:
        """A length word, that many bytes, padding; pad bytes are not looked at."""
        return self.fixed_opaque(self.count(limit))

    def string(self, limit: int = MAX_STRING) -> str:
        """A string, cut at its first NUL as the C side does; undecodable bytes survive as escapes.

        `surrogateescape` keeps a name that is no UTF-8 intact on its way through.
        """
        raw = self.opaque(limit)
        return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")

    def chars(self, limit: int) -> bytes:
        """A `char<>` array: rpcgen spends four bytes on each char; the low eight bits count."""
        words = self._take(4 * self.count(limit))
        return bytes(words)[3::4]  # twenty times as fast as a memoryview's slice

    def count(self, limit: int) -> int:
        """A length or count word, refused above `limit`."""
        value = self.u32()
        if value > limit:
            raise MalformedFrame(f"a length of {value} where at most {limit} is allowed")
        return value

    def optional(self, read: Callable[[], Item]) -> Item | None:
        """A pointer: any flag but zero means present."""
        return read() if self.u32() else None

    def array(self, limit: int, read: Callable[[], Item]) -> list[Item]:
        # No list is made ahead of its items: each item must be paid for with bytes, so a count
        # that the payload cannot hold ends at the first missing one.
        return [read() for _ in range(self.count(limit))]

    def _take(self, size: int) -> memoryview:
        end = self._at + size
        if end > len(self._view):
            raise MalformedFrame(f"{size} bytes expected, {self.left} are left")
        taken = self._view[self._at : end]
        self._at = end
        return taken


class Writer:
    """Collects an XDR payload; methods return the writer, so that calls chain."""

    __slots__ = ("_out",)

    def __init__(self) -> None:
        self._out = bytearray()

    def u32(self, value: int) -> "Writer":
        self._out += _U32.pack(value)
        return self

    def i32(self, value: int) -> "Writer":
        self._out += _I32.pack(value)
        return self

    def u64(self, value: int) -> "Writer":
        self._out += _U64.pack(value)
        return self

    def i64(self, value: int) -> "Writer":
        self._out += _I64.pack(value)
        return self

    def double(self, value: float) -> "Writer":
        self._out += _DOUBLE.pack(value)
        return self

    def fixed_opaque(self, value: bytes) -> "Writer":
        self._out += value
        self._out += bytes(-len(value) % 4)
        return self

    def opaque(self, value: bytes) -> "Writer":
        return self.u32(len(value)).fixed_opaque(value)

    def string(self, value: str) -> "Writer":
        return self.opaque(value.encode("utf-8", "surrogateescape"))

    def chars(self, value: bytes) -> "Writer":
        """Each byte as a sign-extended 32-bit word, which is how rpcgen sends a `char<>`."""
        words = bytearray(4 * len(value))
        words[3::4] = value
        words[0::4] = words[1::4] = words[2::4] = value.translate(_SIGNS)
        self.u32(len(value))
        self._out += words
        return self

    def optional_string(self, value: str | None) -> "Writer":
        """NULL, or a string that may be empty."""
        return self.u32(0) if value is None else self.u32(1).string(value)

    def take(self) -> bytes:
        return bytes(self._out)
