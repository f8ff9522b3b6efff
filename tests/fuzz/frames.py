"""The frame buffer: any bytes, in any cuts, under any limit."""

from proxyd.wire.frame import HEADER, HEADER_SIZE, MAX_FRAME, FrameBuffer
from proxyd.wire.xdr import MalformedFrame
from tests.fuzz.supply import Supply

LIMITS = (MAX_FRAME, 65536, 100, HEADER_SIZE)
WORDS = (b"\0\0\0\x1c", b"\0\0\0\x1b", b"\0\0\0\x1d", b"\x02\0\0\x04", b"\x02\0\0\x05")


def one_input(data):
    supply = Supply(data)
    limit = supply.choice(LIMITS)
    cuts = [1 + each for each in supply.bytes(supply.byte() % 8)] or [len(data)]
    stream = supply.rest()
    expected = cut_slowly(stream, limit)
    assert cut(stream, cuts, limit) == expected
    assert read_as_wanted(stream, limit) == expected


def cut_slowly(stream, limit):
    """Every whole frame as its bytes, and whether a length that cannot be ended it."""
    found, at = [], 0
    while at + 4 <= len(stream):
        length = int.from_bytes(stream[at : at + 4], "big")
        if length < HEADER_SIZE or length > limit:
            return found, True
        if at + length > len(stream):
            break
        found.append(stream[at : at + length])
        at += length
    return found, False


def cut(stream, cuts, limit):
    buffer, found, at, turn = FrameBuffer(limit), [], 0, 0
    while at < len(stream):
        piece = stream[at : at + cuts[turn % len(cuts)]]
        at, turn = at + len(piece), turn + 1
        buffer.feed(piece)
        try:
            while (frame := buffer.next_frame()) is not None:
                found.append(bytes_of(frame))
        except MalformedFrame:
            return found, True
    return found, False


def read_as_wanted(stream, limit):
    """As the negotiations read: never a byte behind the frame, never more held than one."""
    buffer, found, at = FrameBuffer(limit), [], 0
    try:
        while at < len(stream):
            wanted = buffer.wanted
            assert 0 < wanted <= limit
            piece = stream[at : at + wanted]
            buffer.feed(piece)
            at += len(piece)
            assert buffer.held <= limit
            frame = buffer.next_frame()
            if frame is not None:
                assert buffer.held == 0
                found.append(bytes_of(frame))
    except MalformedFrame:
        return found, True
    return found, False


def bytes_of(frame):
    wire = frame.pack()
    assert len(wire) == HEADER.unpack_from(wire)[0]
    return wire
