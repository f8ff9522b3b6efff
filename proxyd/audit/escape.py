"""Values from outside, made fit for a record: one line, nothing hidden, no longer than it may be.

What would not be seen is spelled out so that it can be told from what was sent: a byte that is no
UTF-8 as `\\x85`, a control character as `\\n` or `\\u0085`, and a backslash as two. Of a value that
is too long the end is gone, and `…` stands there.
"""

from typing import Final

_FIRST_ESCAPED_BYTE: Final = 0xDC80  # where surrogateescape puts byte 0x80
_LAST_ESCAPED_BYTE: Final = 0xDCFF
_ESCAPED_BY: Final = 0xDC00
_ASCII: Final = 0x80
_WIDE: Final = 0x10000
_SHORT: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_CUT: Final = "…"
_CUT_SIZE: Final = len(_CUT.encode())


def plain(value: str | bytes, longest: int) -> str:
    """The value in at most `longest` bytes of UTF-8."""
    # A character takes a byte or more, so nothing behind this is looked at.
    begin = value[: longest + 1]
    text = begin.decode("utf-8", "surrogateescape") if isinstance(begin, bytes) else begin
    if text.isprintable() and "\\" not in text and len(text.encode()) <= longest:
        return text
    spelled = [_spelled(each) for each in text]
    sizes = [len(each.encode()) for each in spelled]
    if sum(sizes) <= longest:
        return "".join(spelled)
    kept, room = 0, longest - _CUT_SIZE
    while room >= sizes[kept]:
        room -= sizes[kept]
        kept += 1
    return "".join(spelled[:kept]) + _CUT


def _spelled(character: str) -> str:
    if character.isprintable() and character != "\\":
        return character
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if _FIRST_ESCAPED_BYTE <= code <= _LAST_ESCAPED_BYTE:
        return f"\\x{code - _ESCAPED_BY:02x}"
    if code < _ASCII:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < _WIDE else f"\\U{code:08x}"
