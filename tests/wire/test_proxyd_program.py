"""proxyd's own program: what goes in comes out, and any bytes are read or MalformedFrame."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.wire import proxyd_program
from proxyd.wire.frame import FrameType, Header, Status
from proxyd.wire.programs import OWN_PROGRAM, Own, Program
from proxyd.wire.proxyd_program import AskDrain, AskPage, AskStatus
from proxyd.wire.xdr import MalformedFrame
from tests.wire.strategies import TEXTS, U32, U64

CASES = [
    (AskStatus(0).pack(), "00000000"),
    (AskStatus(proxyd_program.ASK_DAEMONS).pack(), "00000001"),
    (AskDrain(0).pack(), "00000000"),
    (AskDrain(proxyd_program.LET_IN).pack(), "00000001"),
    (AskPage(0, 256).pack(), "0000000000000000 00000100"),
    (AskPage(2**40, 7).pack(), "0000010000000000 00000007"),
    (proxyd_program.pack_number(17), "0000000000000011"),
    (proxyd_program.pack_text("[]"), "00000002 5b5d0000"),
]
UNPACKS = [
    AskStatus.unpack,
    AskDrain.unpack,
    AskPage.unpack,
    proxyd_program.unpack_number,
    proxyd_program.unpack_text,
]


@pytest.mark.parametrize(("packed", "wire"), CASES)
def test_arguments_and_results_are_these_bytes(packed, wire):
    assert packed == bytes.fromhex(wire)


@pytest.mark.parametrize("procedure", Own)
def test_a_call_is_framed_like_any_other(procedure):
    frame = proxyd_program.call(procedure, 9, b"abcd")
    assert frame.header == Header(OWN_PROGRAM, 1, procedure, FrameType.CALL, 9, Status.OK)
    assert frame.payload == b"abcd"


def test_the_program_is_none_of_libvirts():
    assert OWN_PROGRAM not in {*Program}


@given(st.builds(AskStatus, U32) | st.builds(AskPage, U64, U32), st.binary(max_size=9))
def test_arguments_read_back(value, behind):
    assert type(value).unpack(value.pack() + behind) == value


@given(U64, TEXTS, st.binary(max_size=9))
def test_numbers_and_texts_read_back(number, text, behind):
    assert proxyd_program.unpack_number(proxyd_program.pack_number(number) + behind) == number
    assert proxyd_program.unpack_text(proxyd_program.pack_text(text) + behind) == text


@given(TEXTS)
def test_names_in_no_encoding_survive_as_json(text):
    packed = proxyd_program.pack_text(json.dumps([text]))
    assert json.loads(proxyd_program.unpack_text(packed)) == [text]


@pytest.mark.parametrize("unpack", UNPACKS, ids=lambda unpack: unpack.__qualname__)
@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_malformed(unpack, payload):
    with contextlib.suppress(MalformedFrame):
        assert unpack(payload) is not None


@pytest.mark.parametrize("packed", [packed for packed, _ in CASES])
def test_what_is_cut_short_is_malformed(packed):
    unpack = {4: AskStatus.unpack, 12: AskPage.unpack}.get(
        len(packed), proxyd_program.unpack_number
    )
    with pytest.raises(MalformedFrame):
        unpack(packed[:-1])
