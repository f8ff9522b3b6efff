"""Arguments and results survive the way there and back; any bytes are read or MalformedFrame."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.wire import adminrpc
from proxyd.wire.adminrpc import ClientEntry
from proxyd.wire.xdr import MalformedFrame
from tests.wire.strategies import I64, PARAMS, TEXTS, U32, U64

CLIENTS = st.builds(ClientEntry, TEXTS, U64, I64, U32)
VALUES = st.one_of(
    st.builds(adminrpc.Flags, U32),
    st.builds(adminrpc.ListServers, st.booleans(), U32),
    st.builds(adminrpc.OfServer, TEXTS, U32),
    st.builds(adminrpc.SetParams, TEXTS, st.lists(PARAMS, max_size=32).map(tuple), U32),
    st.builds(adminrpc.ListClients, TEXTS, st.booleans(), U32),
    st.builds(adminrpc.LookUpClient, TEXTS, U64, U32),
    CLIENTS,
    st.builds(adminrpc.OfClient, CLIENTS, U32),
    st.builds(adminrpc.SetLogging, st.none() | TEXTS, U32),
    st.builds(adminrpc.SetTimeout, U32, U32),
    st.builds(adminrpc.ServerList, st.lists(TEXTS, max_size=9).map(tuple), U32),
    st.builds(adminrpc.ClientList, st.lists(CLIENTS, max_size=9).map(tuple), U32),
)
UNPACKS = [
    adminrpc.Flags.unpack,
    adminrpc.ListServers.unpack,
    adminrpc.OfServer.unpack,
    adminrpc.SetParams.unpack,
    adminrpc.ListClients.unpack,
    adminrpc.LookUpClient.unpack,
    adminrpc.ClientEntry.unpack,
    adminrpc.OfClient.unpack,
    adminrpc.SetLogging.unpack,
    adminrpc.SetTimeout.unpack,
    adminrpc.ServerList.unpack,
    adminrpc.ClientList.unpack,
    adminrpc.unpack_server,
    adminrpc.unpack_outputs,
    adminrpc.unpack_filters,
    adminrpc.unpack_version,
]
WORDY = st.lists(
    st.integers(0, 8).map(lambda word: word.to_bytes(4, "big")) | st.binary(max_size=8)
).map(b"".join)


@given(VALUES, st.binary(max_size=9))
def test_arguments_and_results_read_back(value, behind):
    assert type(value).unpack(value.pack() + behind) == value


@given(st.lists(PARAMS, max_size=64), st.binary(max_size=9))
def test_parameters_read_back(params, behind):
    assert adminrpc.unpack_params(adminrpc.pack_params(params, 64) + behind, 64) == params


@given(TEXTS, st.none() | TEXTS, U32)
def test_log_strings_read_back(outputs, filters, count):
    said = adminrpc.pack_outputs(outputs, count), adminrpc.pack_filters(filters, count)
    assert adminrpc.unpack_outputs(said[0]) == (outputs, count)
    assert adminrpc.unpack_filters(said[1]) == (filters, count)


@pytest.mark.parametrize("unpack", UNPACKS, ids=lambda unpack: unpack.__qualname__)
@given(WORDY | st.binary())
def test_any_bytes_are_read_or_malformed(unpack, payload):
    with contextlib.suppress(MalformedFrame):
        assert unpack(payload) is not None
