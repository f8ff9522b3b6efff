"""Whatever the bytes are, a reader gives a value or MalformedFrame; what was written reads back."""

import math
import struct

from hypothesis import given
from hypothesis import strategies as st

from proxyd.wire.xdr import MalformedFrame, Reader, Writer
from tests.bed.examples import examples
from tests.wire.strategies import I32, I64, TEXTS, U32, U64

LIMITS = st.sampled_from([0, 1, 3, 64, 2**32 - 1])
# Words that are often lengths that fit, or nearly do: random ones would all be too large.
PAYLOADS = st.lists(
    st.integers(0, 9).map(lambda word: word.to_bytes(4, "big")) | st.binary(max_size=9)
).map(b"".join)
READS = st.one_of(
    st.sampled_from(["u32", "i32", "u64", "i64", "double", "string"]).map(lambda name: (name,)),
    st.tuples(st.sampled_from(["opaque", "string", "chars", "count"]), LIMITS),
    st.tuples(st.just("fixed_opaque"), st.integers(0, 40)),
    st.tuples(st.just("optional"), st.sampled_from(["u32", "string"])),
    st.tuples(st.just("array"), LIMITS, st.sampled_from(["u32", "i64", "string"])),
)
VALUES = st.one_of(
    st.tuples(st.just("u32"), U32),
    st.tuples(st.just("i32"), I32),
    st.tuples(st.just("u64"), U64),
    st.tuples(st.just("i64"), I64),
    st.tuples(st.just("double"), st.floats()),
    st.tuples(st.just("string"), TEXTS),
    st.tuples(st.just("opaque"), st.binary(max_size=40)),
    st.tuples(st.just("chars"), st.binary(max_size=40)),
    st.tuples(st.just("optional_string"), st.none() | TEXTS),
)


def perform(reader, read):
    name, *beside = read
    if name in {"optional", "array"}:
        beside[-1] = getattr(reader, beside[-1])
    return getattr(reader, name)(*beside)


def read_back(reader, kind):
    if kind in {"opaque", "chars"}:
        return getattr(reader, kind)(40)
    if kind == "optional_string":
        return reader.optional(reader.string)
    return getattr(reader, kind)()


def alike(one, other):
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return one == other


@given(PAYLOADS, st.lists(READS, max_size=6))
@examples(300)
def test_any_bytes_give_values_or_malformed_frame(payload, reads):
    reader = Reader(payload)
    for read in reads:
        before = reader.left
        try:
            value = perform(reader, read)
        except MalformedFrame:
            assert 0 <= reader.left <= before
        else:
            size = len(value) if isinstance(value, bytes | str | list) else 0
            assert size <= before - reader.left <= before


@given(st.lists(VALUES, max_size=8), st.binary(max_size=9))
def test_what_was_written_reads_back_with_anything_behind_it(values, behind):
    out = Writer()
    for kind, value in values:
        getattr(out, kind)(value)
    reader = Reader(out.take() + behind)
    for kind, value in values:
        assert alike(value, read_back(reader, kind))
    assert reader.left == len(behind)


@given(st.lists(VALUES, min_size=1, max_size=4), st.data())
def test_what_was_written_and_then_cut_is_malformed(values, data):
    out = Writer()
    for kind, value in values:
        getattr(out, kind)(value)
    wire = out.take()
    reader = Reader(wire[: data.draw(st.integers(0, len(wire) - 1))])
    try:
        for kind, _ in values:
            read_back(reader, kind)
    except MalformedFrame:
        return
    raise AssertionError("it was read although a part is missing")


@given(VALUES)
def test_everything_written_is_a_whole_number_of_words(written):
    kind, value = written
    assert len(getattr(Writer(), kind)(value).take()) % 4 == 0


@given(st.binary(max_size=60))
def test_a_char_array_is_sign_extended_words(raw):
    words = struct.unpack(f">I{len(raw)}i", Writer().chars(raw).take())
    assert words == (len(raw), *struct.unpack(f"{len(raw)}b", raw))
