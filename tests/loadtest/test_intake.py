import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.intake import Intake
from loadtest.procedures import Storage
from proxyd.wire.failure import internal
from proxyd.wire.frame import Frame, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Keepalive, Program
from proxyd.wire.remote import call, keepalive
from proxyd.wire.xdr import MalformedFrame

SERIAL = 7
OF_STREAM = Header(
    Program.REMOTE, VERSION, Storage.VOL_DOWNLOAD, FrameType.STREAM, SERIAL, Status.CONTINUE
)
REPLY = Frame(call(Storage.VOL_DOWNLOAD, SERIAL).header.replied(Status.OK))
END = Frame(OF_STREAM)
EVENT = Frame(Header(Program.REMOTE, VERSION, 360, FrameType.MESSAGE, 1), b"what happened")
ERROR = Frame(
    Header(Program.REMOTE, VERSION, Storage.VOL_DOWNLOAD, FrameType.STREAM, SERIAL, Status.ERROR),
    internal("disk on fire").pack(),
)
OTHERS = [REPLY, EVENT, keepalive(Keepalive.PING), ERROR, END]


def data(size):
    return Frame(OF_STREAM, bytes(size))


def taken(wire, cuts=()):
    """The frames and the count that come out of bytes that are cut at these places."""
    intake, found, at = Intake(Storage.VOL_DOWNLOAD, SERIAL), [], 0
    for cut in [*sorted(cuts), len(wire)]:
        found += intake.take(memoryview(wire)[at:cut])
        at = cut
    return found, intake.moved


def test_data_is_counted_and_all_else_comes_out():
    wire = b"".join(frame.pack() for frame in (REPLY, data(1000), EVENT, data(1), END))
    assert taken(wire) == ([REPLY, EVENT, END], 1001)


def test_an_error_comes_out_whole():
    assert taken(ERROR.pack()) == ([ERROR], 0)


def test_data_of_another_stream_is_not_counted():
    other = Frame(Header(*[*_fields(OF_STREAM)[:4], SERIAL + 1, Status.CONTINUE]), b"data")
    assert taken(other.pack()) == ([other], 0)


def _fields(header):
    return [header.program, header.version, header.procedure, header.type]


@given(st.data())
def test_any_cut_gives_the_same(draw):
    frames = draw.draw(
        st.lists(st.one_of(st.sampled_from(OTHERS), st.integers(1, 300).map(data)), max_size=12)
    )
    wire = b"".join(frame.pack() for frame in frames)
    cuts = draw.draw(st.lists(st.integers(0, len(wire)), max_size=30))
    counted = [frame for frame in frames if frame.header == OF_STREAM and frame.payload]
    rest = [frame for frame in frames if frame not in counted]
    assert taken(wire, cuts) == (rest, sum(len(frame.payload) for frame in counted))


@pytest.mark.parametrize("length", [0, 27, 2**32 - 1])
def test_a_length_that_cannot_be_is_refused(length):
    with pytest.raises(MalformedFrame):
        taken(length.to_bytes(4, "big") + bytes(24))
