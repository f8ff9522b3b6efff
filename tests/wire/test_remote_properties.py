"""Arguments and results survive the way there and back; any bytes are read or MalformedFrame."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.wire import remote
from proxyd.wire.failure import Failure
from proxyd.wire.remote import OpenArguments
from proxyd.wire.xdr import MalformedFrame
from tests.wire.strategies import I32, PARAMS, TEXTS, U32

UNPACKS = [
    OpenArguments.unpack,
    Failure.unpack,
    remote.unpack_auth_methods,
    remote.unpack_identity,
    remote.unpack_int,
]
WORDY = st.lists(
    st.integers(0, 8).map(lambda word: word.to_bytes(4, "big")) | st.binary(max_size=8)
).map(b"".join)


@given(st.builds(OpenArguments, st.none() | TEXTS, U32), st.binary(max_size=9))
def test_arguments_of_open_read_back(arguments, behind):
    assert OpenArguments.unpack(arguments.pack() + behind) == arguments


@given(st.lists(PARAMS, max_size=remote.MAX_IDENTITY_PARAMS), st.binary(max_size=9))
def test_an_identity_reads_back(params, behind):
    assert remote.unpack_identity(remote.pack_identity(params) + behind) == params


@given(st.lists(I32, max_size=remote.MAX_AUTH_METHODS), st.binary(max_size=9))
def test_authentication_methods_read_back(methods, behind):
    assert remote.unpack_auth_methods(remote.pack_auth_methods(methods) + behind) == methods


@given(I32, st.binary(max_size=9))
def test_an_integer_reads_back(value, behind):
    assert remote.unpack_int(remote.pack_int(value) + behind) == value


@pytest.mark.parametrize("unpack", UNPACKS, ids=lambda unpack: unpack.__qualname__)
@given(WORDY | st.binary())
def test_any_bytes_are_read_or_malformed(unpack, payload):
    with contextlib.suppress(MalformedFrame):
        assert unpack(payload) is not None
