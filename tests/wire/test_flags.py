"""Where the flags of calls stand: found by the same way as a daemon goes, or not at all."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.wire.flags import SHAPES, flags_of
from proxyd.wire.names import NAMES
from proxyd.wire.params import Param, ParamType, write_params
from proxyd.wire.programs import Program
from proxyd.wire.xdr import MalformedFrame, Writer

words = st.integers(0, (1 << 32) - 1)
parameters = st.lists(
    st.one_of(
        st.builds(Param, st.text(max_size=9), st.just(ParamType.INT), st.integers(-9, 9)),
        st.builds(Param, st.text(max_size=9), st.just(ParamType.UINT), st.integers(0, 9)),
        st.builds(Param, st.text(max_size=9), st.just(ParamType.LLONG), st.integers(-9, 9)),
        st.builds(Param, st.text(max_size=9), st.just(ParamType.ULLONG), st.integers(0, 9)),
        st.builds(Param, st.text(max_size=9), st.just(ParamType.DOUBLE), st.just(0.5)),
        st.builds(Param, st.text(max_size=9), st.just(ParamType.BOOLEAN), st.booleans()),
        st.builds(Param, st.text(max_size=9), st.just(ParamType.STRING), st.text(max_size=9)),
    ),
    max_size=5,
)


@st.composite
def calls(draw):
    """A procedure, arguments of its shape, and the word that is looked for."""
    procedure = draw(st.sampled_from(sorted(SHAPES)))
    flags, wire = draw(words), b""
    for each in SHAPES[procedure]:
        out = Writer()
        if each == "F":
            out.u32(flags)
        elif each == "w":
            out.u32(draw(words))
        elif each == "h":
            out.u64(draw(words))
        elif each == "u":
            out.fixed_opaque(draw(st.binary(min_size=16, max_size=16)))
        elif each == "s":
            out.opaque(draw(st.binary(max_size=20)))
        elif each == "o":
            out.optional_string(draw(st.none() | st.text(max_size=20)))
        else:
            write_params(out, draw(parameters))
        wire += out.take()
    return procedure, wire, flags


@given(calls())
def test_they_are_found_in_whatever_a_client_may_send(call):
    procedure, wire, flags = call
    assert flags_of(procedure, memoryview(wire)) == flags


@given(calls(), st.data())
def test_what_ends_early_has_none(call, data):
    procedure, wire, _ = call
    cut = data.draw(st.integers(0, len(wire) - 1))
    with pytest.raises(MalformedFrame):
        flags_of(procedure, memoryview(wire)[:cut])


@given(calls(), st.binary(min_size=1, max_size=40))
def test_what_goes_on_behind_its_arguments_has_none(call, more):
    """A daemon does not look at what is left, so another word at the end says nothing."""
    procedure, wire, _ = call
    with pytest.raises(MalformedFrame):
        flags_of(procedure, memoryview(wire + more))


@given(st.sampled_from(sorted(SHAPES)), st.binary(max_size=200))
def test_whatever_comes_it_is_understood_or_is_malformed(procedure, wire):
    with suppress(MalformedFrame):
        assert 0 <= flags_of(procedure, memoryview(wire)) < 1 << 32


def test_a_length_that_is_a_lie_costs_nothing():
    wire = Writer().u32(0xFFFFFFFF).take() + bytes(64)
    with pytest.raises(MalformedFrame):
        flags_of(14, memoryview(wire))


def test_more_parameters_than_any_call_takes_are_not_counted():
    procedure = NAMES[Program.REMOTE].index("DOMAIN_SET_MEMORY_PARAMETERS")
    domain = Writer().string("x").fixed_opaque(bytes(16)).i32(1).take()
    wire = domain + Writer().u32(65).take() + bytes(12) * 65 + bytes(4)
    with pytest.raises(MalformedFrame, match="65 parameters"):
        flags_of(procedure, memoryview(wire))
