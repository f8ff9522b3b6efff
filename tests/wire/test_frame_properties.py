"""Any cut gives the same frames; any bytes give frames or MalformedFrame, nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from proxyd.wire.frame import HEADER_SIZE, LENGTH_SIZE, FrameBuffer
from proxyd.wire.xdr import MalformedFrame
from tests.bed.examples import examples
from tests.wire.strategies import FRAMES, pieces

LIMIT = 128
SEEDS = st.integers(0, 2**32 - 1)
# Half of them begin with a length that may be, so that more than the first check is reached.
STREAMS = st.lists(
    st.binary(max_size=200)
    | st.integers(0, LIMIT + 8).map(lambda length: length.to_bytes(LENGTH_SIZE, "big"))
    | FRAMES.map(lambda frame: frame.pack())
).map(b"".join)


def frames_in(buffer):
    while (frame := buffer.next_frame()) is not None:
        yield frame


@given(st.lists(FRAMES, max_size=6), SEEDS)
def test_any_cut_gives_the_same_frames(frames, seed):
    buffer, seen = FrameBuffer(), []
    for piece in pieces(b"".join(frame.pack() for frame in frames), seed):
        buffer.feed(piece)
        seen += frames_in(buffer)
    assert seen == frames
    assert buffer.held == 0


@given(FRAMES, st.binary(max_size=80), SEEDS)
def test_any_cut_leaves_what_is_behind_a_frame(frame, behind, seed):
    buffer, seen = FrameBuffer(), None
    for piece in pieces(frame.pack() + behind, seed):
        buffer.feed(piece)
        seen = seen or buffer.next_frame()
    assert seen == frame
    assert buffer.held == len(behind)


@given(st.lists(FRAMES, min_size=1, max_size=4), SEEDS)
def test_reading_at_most_what_is_wanted_never_passes_the_end_of_a_frame(frames, seed):
    buffer = FrameBuffer()
    for frame in frames:
        wire = frame.pack()
        while wire:
            size = 1 + seed % buffer.wanted
            buffer.feed(wire[:size])
            wire = wire[size:]
        assert buffer.wanted == 0
        assert buffer.next_frame() == frame
        assert buffer.held == 0


@given(STREAMS, SEEDS)
@examples(300)
def test_any_bytes_give_frames_or_malformed_frame_and_nothing_piles_up(stream, seed):
    buffer, fed, taken = FrameBuffer(LIMIT), 0, 0
    for piece in pieces(stream, seed):
        fed += len(piece)
        buffer.feed(piece)
        try:
            taken += sum(len(frame.pack()) for frame in frames_in(buffer))
            assert buffer.held == fed - taken
            assert 0 < buffer.wanted < LIMIT
            assert buffer.held < LIMIT
        except MalformedFrame:
            return


@given(STREAMS)
def test_frames_that_were_read_are_the_bytes_that_were_fed(stream):
    buffer, read = FrameBuffer(LIMIT), b""
    buffer.feed(stream)
    try:
        for frame in frames_in(buffer):
            assert HEADER_SIZE <= len(frame.pack()) <= LIMIT
            read += frame.pack()
    except MalformedFrame:
        pass  # what stands before the nonsense was read all the same
    assert stream.startswith(read)
    assert buffer.held == len(stream) - len(read)
