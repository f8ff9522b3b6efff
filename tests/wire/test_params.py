"""Typed parameters: every type, and everything that does not decode."""

import struct

import pytest

from proxyd.wire.params import Param, ParamType, read_params, write_params
from proxyd.wire.xdr import MalformedFrame, Reader, Writer
from tests.wire.worked import FRED

LIMIT = 20
ONE_PARAM = "00000001 00000001 61000000"

# type, value, the bytes of the value
VALUES = [
    (ParamType.INT, -2, "fffffffe"),
    (ParamType.UINT, 0xFFFFFFFE, "fffffffe"),
    (ParamType.LLONG, -2, "ffffffff fffffffe"),
    (ParamType.ULLONG, (1 << 64) - 1, "ffffffff ffffffff"),
    (ParamType.DOUBLE, 0.5, "3fe00000 00000000"),
    (ParamType.BOOLEAN, True, "00000001"),
    (ParamType.BOOLEAN, False, "00000000"),
    (ParamType.STRING, "fred", "00000004 66726564"),
    (ParamType.STRING, "", "00000000"),
    (ParamType.STRING, "\udcff", "00000001 ff000000"),
]
typed_values = pytest.mark.parametrize(("kind", "value", "groups"), VALUES)


def wire_of(kind, groups):
    return bytes.fromhex(f"{ONE_PARAM} {kind:08x} {groups}")


def written(params):
    out = Writer()
    write_params(out, params)
    return out.take()


@typed_values
def test_a_parameter_is_read_with_bytes_behind_it(kind, value, groups):
    reader = Reader(wire_of(kind, groups) + b"\xff\xff")
    (param,) = read_params(reader, LIMIT)
    assert param == Param("a", kind, value)
    assert type(param.value) is type(value)
    assert reader.left == 2


@typed_values
def test_a_parameter_is_written(kind, value, groups):
    assert written([Param("a", kind, value)]) == wire_of(kind, groups)


@typed_values
def test_a_parameter_cut_anywhere_is_malformed(kind, value, groups):
    wire = wire_of(kind, groups)
    for end in range(len(wire)):
        with pytest.raises(MalformedFrame, match="bytes expected"):
            read_params(Reader(wire[:end]), LIMIT)


def test_no_parameters_at_all_are_a_count_of_zero():
    assert written([]) == bytes(4)
    assert read_params(Reader(bytes(4)), LIMIT) == []


def test_order_and_duplicates_are_kept():
    twice = [*FRED, *reversed(FRED)]
    assert read_params(Reader(written(twice)), LIMIT) == twice


@pytest.mark.parametrize("tag", [0, 8, -1, (1 << 31) - 1])
def test_a_type_that_does_not_exist_is_malformed(tag):
    wire = bytes.fromhex(ONE_PARAM) + struct.pack(">i", tag) + bytes(16)
    with pytest.raises(MalformedFrame, match=f"type {tag} does not exist"):
        read_params(Reader(wire), LIMIT)


@pytest.mark.parametrize("count", [21, 0x80000000, 0xFFFFFFFF])
def test_more_parameters_than_may_be_are_malformed(count):
    reader = Reader(count.to_bytes(4, "big") + bytes(400))
    with pytest.raises(MalformedFrame, match=f"length of {count} where at most 20 is allowed"):
        read_params(reader, LIMIT)


def test_as_many_parameters_as_may_be_are_read():
    twenty = [Param("a", ParamType.INT, number) for number in range(LIMIT)]
    assert read_params(Reader(written(twenty)), LIMIT) == twenty


@pytest.mark.parametrize("field", ["f" * 79, "é" * 39, ""])
def test_a_name_that_fits_the_c_side_is_read(field):
    params = [Param(field, ParamType.INT, 1)]
    assert read_params(Reader(written(params)), LIMIT) == params


@pytest.mark.parametrize("field", ["f" * 80, "é" * 40, "\udcff" * 80])
def test_a_name_too_long_for_the_c_side_is_malformed(field):
    wire = written([Param(field, ParamType.INT, 1)])
    with pytest.raises(MalformedFrame, match="name of more than 79 bytes"):
        read_params(Reader(wire), LIMIT)


@pytest.mark.parametrize("word", ["00000002", "ffffffff"])
def test_any_word_but_zero_is_true(word):
    (param,) = read_params(Reader(wire_of(ParamType.BOOLEAN, word)), LIMIT)
    assert param.value is True


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ParamType.INT, 1 << 31),
        (ParamType.UINT, -1),
        (ParamType.LLONG, 1 << 63),
        (ParamType.ULLONG, -1),
    ],
)
def test_a_value_outside_its_type_cannot_be_written(kind, value):
    with pytest.raises(struct.error):
        written([Param("a", kind, value)])
