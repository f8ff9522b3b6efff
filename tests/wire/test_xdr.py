"""XDR primitives as data: both ways, with bytes behind them, and cut short."""

import math
import tracemalloc

import pytest

from proxyd.wire.xdr import MAX_STRING, MalformedFrame, Reader, Writer

LIMIT = 64
NO_LIMIT = 0xFFFFFFFF
BEHIND = b"\xde\xad\xbe\xef\x01"

# method of both Reader and Writer, what Reader takes beside, the value, the bytes
CASES = [
    ("u32", (), 0, "00000000"),
    ("u32", (), 0xFFFFFFFF, "ffffffff"),
    ("i32", (), -1, "ffffffff"),
    ("i32", (), -(1 << 31), "80000000"),
    ("i32", (), (1 << 31) - 1, "7fffffff"),
    ("u64", (), (1 << 64) - 1, "ffffffff ffffffff"),
    ("u64", (), 123456, "00000000 0001e240"),
    ("i64", (), -1, "ffffffff ffffffff"),
    ("i64", (), -(1 << 63), "80000000 00000000"),
    ("double", (), 1.5, "3ff80000 00000000"),
    ("double", (), -math.inf, "fff00000 00000000"),
    ("opaque", (LIMIT,), b"", "00000000"),
    ("opaque", (LIMIT,), b"\0\xff", "00000002 00ff0000"),
    ("opaque", (LIMIT,), b"1234", "00000004 31323334"),
    ("fixed_opaque", (16,), bytes(range(16)), "00010203 04050607 08090a0b 0c0d0e0f"),
    ("fixed_opaque", (5,), b"12345", "31323334 35000000"),
    ("string", (), "", "00000000"),
    ("string", (), "a", "00000001 61000000"),
    ("string", (), "qemu:///system", "0000000e 71656d75 3a2f2f2f 73797374 656d0000"),
    ("string", (), "é", "00000002 c3a90000"),
    ("string", (), "\udcff", "00000001 ff000000"),
    ("string", (5,), "12345", "00000005 31323334 35000000"),
    ("chars", (LIMIT,), b"", "00000000"),
    ("chars", (LIMIT,), b"\x41\x80\xff\0", "00000004 00000041 ffffff80 ffffffff 00000000"),
    ("chars", (LIMIT,), b"\x60\x82\x01", "00000003 00000060 ffffff82 00000001"),
]
primitives = pytest.mark.parametrize(("method", "beside", "value", "groups"), CASES)


@primitives
def test_a_primitive_is_read_whole(method, beside, value, groups):
    reader = Reader(bytes.fromhex(groups))
    assert getattr(reader, method)(*beside) == value
    assert reader.left == 0


@primitives
def test_a_primitive_is_read_with_bytes_behind_it(method, beside, value, groups):
    reader = Reader(bytes.fromhex(groups) + BEHIND)
    assert getattr(reader, method)(*beside) == value
    assert reader.left == len(BEHIND)


@primitives
def test_a_primitive_is_written(method, beside, value, groups):
    assert getattr(Writer(), method)(value).take() == bytes.fromhex(groups)


@primitives
def test_a_primitive_cut_anywhere_is_malformed(method, beside, value, groups):
    wire = bytes.fromhex(groups)
    for end in range(len(wire)):
        with pytest.raises(MalformedFrame, match=r"\d+ bytes expected, \d+ are left"):
            getattr(Reader(wire[:end]), method)(*beside)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_bytes_may_be_read(kind):
    reader = Reader(kind(bytes.fromhex("00000002 68690000 00000002 ffffff80 00000001")))
    assert (reader.string(), reader.chars(LIMIT)) == ("hi", b"\x80\x01")


def test_what_was_read_does_not_hold_the_buffer_that_it_came_from():
    scratch = bytearray.fromhex("00000004 31323334")
    value = Reader(scratch).opaque(LIMIT)
    scratch[:] = bytes(len(scratch))
    assert value == b"1234"


def test_pad_bytes_are_not_looked_at():
    reader = Reader(bytes.fromhex("00000001 61ffffff 00000001 62aabbcc"))
    assert [reader.string(), reader.string()] == ["a", "b"]


def test_of_a_char_only_the_low_eight_bits_count():
    assert Reader(bytes.fromhex("00000002 00000080 12345641")).chars(LIMIT) == b"\x80\x41"


def test_a_string_ends_at_its_first_nul_and_its_bytes_are_still_used_up():
    reader = Reader(bytes.fromhex("00000006 61620063 64650000 00000007"))
    assert reader.string() == "ab"
    assert reader.u32() == 7


@pytest.mark.parametrize("flag", ["00000001", "00000002", "ffffffff", "80000000"])
def test_any_flag_but_zero_means_present(flag):
    reader = Reader(bytes.fromhex(f"{flag} 00000001 61000000"))
    assert reader.optional(reader.string) == "a"


def test_null_and_the_empty_string_differ_both_ways():
    null, empty = bytes(4), bytes.fromhex("00000001 00000000")
    reader = Reader(null + empty)
    assert [reader.optional(reader.string), reader.optional(reader.string)] == [None, ""]
    assert Writer().optional_string(None).take() == null
    assert Writer().optional_string("").take() == empty


def test_an_array_stands_back_to_back():
    reader = Reader(bytes.fromhex("00000003 00000001 00000002 ffffffff 00000009"))
    assert reader.array(3, reader.i32) == [1, 2, -1]
    assert reader.left == 4


@pytest.mark.parametrize("count", [LIMIT + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.count(LIMIT),
        lambda reader: reader.opaque(LIMIT),
        lambda reader: reader.string(LIMIT),
        lambda reader: reader.chars(LIMIT),
        lambda reader: reader.array(LIMIT, reader.u32),
    ],
    ids=["count", "opaque", "string", "chars", "array"],
)
def test_a_length_above_its_bound_is_named_in_the_refusal(read, count):
    reader = Reader(count.to_bytes(4, "big") + bytes(2 * LIMIT))
    with pytest.raises(MalformedFrame, match=f"a length of {count} where at most 64 is allowed"):
        read(reader)


def test_a_string_is_bounded_by_itself():
    reader = Reader((MAX_STRING + 1).to_bytes(4, "big"))
    with pytest.raises(MalformedFrame, match="4194305 where at most 4194304 is allowed"):
        reader.string()


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        (lambda reader: reader.opaque(NO_LIMIT), "4294967295 bytes expected, 4 are left"),
        (lambda reader: reader.string(NO_LIMIT), "4294967295 bytes expected, 4 are left"),
        (lambda reader: reader.chars(NO_LIMIT), "17179869180 bytes expected, 4 are left"),
        (lambda reader: reader.array(NO_LIMIT, reader.u32), "4 bytes expected, 0 are left"),
        (lambda reader: reader.array(NO_LIMIT, reader.u64), "8 bytes expected, 4 are left"),
    ],
    ids=["opaque", "string", "chars", "array of u32", "array of u64"],
)
def test_a_claim_of_four_gibibytes_takes_no_memory(read, complaint):
    reader = Reader(bytes.fromhex("ffffffff 00000001"))
    tracemalloc.start()
    with pytest.raises(MalformedFrame, match=complaint):
        read(reader)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 65536


def test_a_failed_read_of_a_word_takes_nothing():
    reader = Reader(b"\0\0\0")
    with pytest.raises(MalformedFrame):
        reader.u32()
    assert reader.left == 3


def test_writes_chain_in_their_order():
    wire = Writer().u32(1).string("ab").i64(-1).take()
    assert wire == bytes.fromhex("00000001 00000002 61620000 ffffffff ffffffff")
