"""Every frame of docs/protocol/worked-frames.md, four ways, and lengths that cannot be."""

import tracemalloc

import pytest

from proxyd.wire.frame import (
    HEADER_SIZE,
    LENGTH_SIZE,
    MAX_FRAME,
    Frame,
    FrameBuffer,
    FrameType,
    Header,
    Status,
    check_length,
)
from proxyd.wire.programs import Program
from proxyd.wire.xdr import MalformedFrame
from tests.wire.worked import BY_NAME, WORKED

SMALL_LIMIT = 4096
PING = BY_NAME["PING"]

worked_frames = pytest.mark.parametrize("worked", WORKED, ids=str)


def length_word(length):
    return length.to_bytes(LENGTH_SIZE, "big")


@worked_frames
def test_a_frame_is_read_whole(worked):
    buffer = FrameBuffer()
    buffer.feed(worked.wire)
    assert buffer.next_frame() == worked.frame
    assert buffer.next_frame() is None
    assert buffer.held == 0


@worked_frames
def test_a_frame_is_read_byte_by_byte(worked):
    buffer, seen = FrameBuffer(), []
    for byte in worked.wire:
        seen.append(buffer.next_frame())
        buffer.feed(bytes([byte]))
    assert buffer.next_frame() == worked.frame
    assert seen == [None] * len(worked.wire)


@worked_frames
def test_a_frame_is_read_with_bytes_behind_it(worked):
    buffer = FrameBuffer()
    buffer.feed(worked.wire + PING.wire + b"\0\0")
    assert buffer.next_frame() == worked.frame
    assert buffer.next_frame() == PING.frame
    assert buffer.next_frame() is None
    assert buffer.held == 2


@worked_frames
def test_a_frame_is_written(worked):
    assert worked.frame.pack() == worked.wire


@worked_frames
def test_an_owner_who_reads_what_is_wanted_takes_nothing_behind_the_frame(worked):
    buffer, rest, asked = FrameBuffer(), worked.wire + PING.wire, []
    while buffer.wanted:
        asked.append(buffer.wanted)
        buffer.feed(rest[: asked[-1]])
        rest = rest[asked[-1] :]
    behind = len(worked.wire) - HEADER_SIZE
    assert asked == [HEADER_SIZE, behind] if behind else [HEADER_SIZE]
    assert rest == PING.wire
    assert buffer.next_frame() == worked.frame


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_bytes_may_be_fed(kind):
    buffer = FrameBuffer()
    buffer.feed(kind(PING.wire))
    assert buffer.next_frame() == PING.frame


def test_what_was_fed_may_be_overwritten_by_its_owner():
    buffer, scratch = FrameBuffer(), bytearray(PING.wire)
    buffer.feed(memoryview(scratch))
    scratch[:] = bytes(len(scratch))
    assert buffer.next_frame() == PING.frame


@pytest.mark.parametrize(
    "length", [0, 1, 3, 4, 5, 27, MAX_FRAME + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
)
def test_a_length_that_cannot_be_is_malformed(length):
    buffer = FrameBuffer()
    buffer.feed(length_word(length))
    with pytest.raises(MalformedFrame, match=f"length of {length}, allowed are 28 to 33554436"):
        buffer.next_frame()
    with pytest.raises(MalformedFrame, match=f"length of {length}, "):
        _ = buffer.wanted


@pytest.mark.parametrize("length", [HEADER_SIZE, HEADER_SIZE + 1, MAX_FRAME - 1, MAX_FRAME])
def test_a_length_at_the_edge_of_what_may_be_is_waited_for(length):
    buffer = FrameBuffer()
    buffer.feed(length_word(length))
    assert buffer.next_frame() is None
    assert buffer.wanted == HEADER_SIZE - LENGTH_SIZE
    buffer.feed(bytes(HEADER_SIZE - LENGTH_SIZE))
    assert buffer.wanted == length - HEADER_SIZE


def test_a_claimed_length_alone_takes_no_memory():
    buffer = FrameBuffer()
    tracemalloc.start()
    buffer.feed(length_word(MAX_FRAME) + bytes(HEADER_SIZE - LENGTH_SIZE))
    waiting = buffer.next_frame(), buffer.wanted
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert waiting == (None, MAX_FRAME - HEADER_SIZE)
    assert peak < 65536


def test_the_largest_frame_of_all_is_read():
    header = Header(Program.REMOTE, 1, 209, FrameType.STREAM, 12, Status.CONTINUE)
    frame = Frame(header, bytes(MAX_FRAME - HEADER_SIZE))
    buffer = FrameBuffer()
    buffer.feed(frame.pack())
    assert buffer.next_frame() == frame


def test_a_smaller_limit_counts_the_length_word():
    header = Header(Program.REMOTE, 1, 1, FrameType.CALL, 0)
    fits = Frame(header, bytes(SMALL_LIMIT - HEADER_SIZE))
    buffer = FrameBuffer(SMALL_LIMIT)
    buffer.feed(fits.pack() + length_word(SMALL_LIMIT + 1))
    assert buffer.next_frame() == fits
    with pytest.raises(MalformedFrame, match="length of 4097, allowed are 28 to 4096 bytes"):
        buffer.next_frame()


def test_a_malformed_length_stays_malformed():
    buffer = FrameBuffer()
    buffer.feed(length_word(0))
    for _ in range(2):
        with pytest.raises(MalformedFrame):
            buffer.next_frame()
        buffer.feed(PING.wire)


@pytest.mark.parametrize("length", [HEADER_SIZE, SMALL_LIMIT])
def test_a_length_within_its_limit_passes(length):
    check_length(length, SMALL_LIMIT)


@pytest.mark.parametrize("length", [-1, HEADER_SIZE - 1, SMALL_LIMIT + 1])
def test_a_length_outside_its_limit_does_not_pass(length):
    with pytest.raises(MalformedFrame):
        check_length(length, SMALL_LIMIT)


def test_a_header_that_means_nothing_is_kept_as_it_came():
    wire = bytes.fromhex("0000001c ffffffff fffffffe ffffffff 80000000 ffffffff 7fffffff")
    buffer = FrameBuffer()
    buffer.feed(wire)
    frame = buffer.next_frame()
    assert frame == Frame(Header(0xFFFFFFFF, 0xFFFFFFFE, -1, -(1 << 31), 0xFFFFFFFF, 0x7FFFFFFF))
    assert frame.pack() == wire


def test_a_reply_echoes_all_but_type_and_status():
    header = Header(0x12345678, 7, -3, FrameType.CALL_WITH_FDS, 99, 5)
    replied = header.replied(Status.ERROR)
    assert replied == Header(0x12345678, 7, -3, FrameType.REPLY, 99, Status.ERROR)
