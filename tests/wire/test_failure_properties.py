"""A failure reads back as it was; whatever a daemon sends as one is read or MalformedFrame."""

from hypothesis import given
from hypothesis import strategies as st

from proxyd.wire.failure import Failure
from proxyd.wire.frame import FrameBuffer, FrameType, Status
from proxyd.wire.xdr import MalformedFrame
from tests.bed.examples import examples
from tests.wire.strategies import FAILURES, HEADERS


@given(FAILURES, st.binary(max_size=9))
def test_a_failure_reads_back_with_anything_behind_it(said, behind):
    assert Failure.unpack(said.pack() + behind) == said


@given(FAILURES, HEADERS)
def test_an_error_reply_to_any_call_is_one_whole_frame(said, header):
    buffer = FrameBuffer()
    buffer.feed(said.reply_to(header).pack())
    frame = buffer.next_frame()
    assert frame is not None
    assert buffer.held == 0
    assert frame.header.type == FrameType.REPLY
    assert frame.header.status == Status.ERROR
    assert (frame.header.serial, frame.header.procedure) == (header.serial, header.procedure)
    assert (frame.header.program, frame.header.version) == (header.program, header.version)
    assert Failure.unpack(frame.payload) == said


@given(FAILURES, st.data())
@examples(300)
def test_a_damaged_body_is_read_or_malformed(said, data):
    body = bytearray(said.pack())
    at = data.draw(st.integers(0, len(body) - 4))
    body[at : at + 4] = data.draw(st.binary(min_size=0, max_size=8))
    try:
        again = Failure.unpack(bytes(body))
    except MalformedFrame:
        return
    # What was read can be sent on, however strange it is.
    assert Failure.unpack(again.pack()) == again
