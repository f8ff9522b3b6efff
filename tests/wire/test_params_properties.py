"""Parameters survive the way there and back; any bytes give parameters or MalformedFrame."""

from hypothesis import given
from hypothesis import strategies as st

from proxyd.wire.params import read_params, write_params
from proxyd.wire.xdr import MalformedFrame, Reader, Writer
from tests.bed.examples import examples
from tests.wire.strategies import PARAMS

LIMIT = 20
# Words that are often a count, a short length or a type: most random ones end at the first word.
WORDY = st.lists(
    st.integers(0, 8).map(lambda word: word.to_bytes(4, "big")) | st.binary(max_size=8)
).map(b"".join)


def written(params):
    out = Writer()
    write_params(out, params)
    return out.take()


@given(st.lists(PARAMS, max_size=LIMIT), st.binary(max_size=9))
def test_parameters_read_back_with_anything_behind_them(params, behind):
    reader = Reader(written(params) + behind)
    assert read_params(reader, LIMIT) == params
    assert reader.left == len(behind)


@given(st.lists(PARAMS, min_size=1, max_size=4), st.data())
def test_cut_parameters_are_malformed(params, data):
    wire = written(params)
    reader = Reader(wire[: data.draw(st.integers(0, len(wire) - 1))])
    try:
        read_params(reader, LIMIT)
    except MalformedFrame:
        return
    raise AssertionError("they were read although a part is missing")


@given(WORDY | st.binary())
@examples(300)
def test_any_bytes_give_parameters_or_malformed_frame(payload):
    try:
        params = read_params(Reader(payload), LIMIT)
    except MalformedFrame:
        return
    assert len(params) <= LIMIT
    assert len(written(params)) <= len(payload)
