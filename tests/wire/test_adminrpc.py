"""Arguments and results of the ADMIN calls, as bytes and back."""

import pytest

from proxyd.wire import adminrpc
from proxyd.wire.adminrpc import (
    ClientEntry,
    ClientList,
    Flags,
    ListClients,
    ListServers,
    LookUpClient,
    OfClient,
    OfServer,
    ServerList,
    SetLogging,
    SetParams,
    SetTimeout,
)
from proxyd.wire.names import NAMES
from proxyd.wire.params import Param, ParamType
from proxyd.wire.programs import Admin, Program
from proxyd.wire.xdr import MalformedFrame
from tests.wire.worked import BY_NAME

PROXYD = "0000000a 76697274 70726f78 79640000"
ADMIN = "00000005 61646d69 6e000000"
LIBVIRTD = "00000008 6c696276 69727464"
# What a libvirtd 9.0.0 said of its limits and of its one client.
LIMITS = """00000004
    0000000c 6e636c69 656e7473 5f6d6178 00000002 00000000
    00000008 6e636c69 656e7473 00000002 00000000
    00000013 6e636c69 656e7473 5f756e61 7574685f 6d617800 00000002 00000000
    0000000f 6e636c69 656e7473 5f756e61 75746800 00000002 00000000"""
ONE_CLIENT = f"00000001 {LIBVIRTD} 00000000 00000003 00000000 6b017a15 00000000 00000001"

NO_LIMITS = [
    Param(field, ParamType.UINT, 0)
    for field in ("nclients_max", "nclients", "nclients_unauth_max", "nclients_unauth")
]


def params_of(payload):
    return adminrpc.unpack_params(payload, adminrpc.MAX_LIMIT_PARAMS)


def pack_params(params):
    return adminrpc.pack_params(params, adminrpc.MAX_LIMIT_PARAMS)


def of(kind, value, groups):
    return kind.unpack, kind.pack, value, groups


# unpack, pack, value, the payload
CASES = {
    "flags": of(Flags, Flags(1), "00000001"),
    "LIST_SERVERS": of(
        ListServers, ListServers(), BY_NAME["admin LIST_SERVERS call"].frame.payload.hex()
    ),
    "LIST_SERVERS, the count": of(
        ListServers, ListServers(need_results=False, flags=2), "00000000 00000002"
    ),
    "servers": of(
        ServerList,
        ServerList(("virtproxyd", "admin"), 2),
        BY_NAME["admin LIST_SERVERS reply"].frame.payload.hex(),
    ),
    "a count of servers": of(ServerList, ServerList((), 2), "00000000 00000002"),
    "LOOKUP_SERVER": of(OfServer, OfServer("virtproxyd"), f"{PROXYD} 00000000"),
    "a server": (adminrpc.unpack_server, adminrpc.pack_server, "admin", ADMIN),
    "SET_THREADPOOL_PARAMETERS": of(
        SetParams,
        SetParams("admin", (Param("maxWorkers", ParamType.UINT, 9),), 4),
        f"{ADMIN} 00000001 0000000a 6d617857 6f726b65 72730000 00000002 00000009 00000004",
    ),
    "limits": (params_of, pack_params, NO_LIMITS, LIMITS),
    "LIST_CLIENTS": of(ListClients, ListClients("admin"), f"{ADMIN} 00000001 00000000"),
    "clients": of(
        ClientList, ClientList((ClientEntry("libvirtd", 3, 0x6B017A15, 0),), 1), ONE_CLIENT
    ),
    "LOOKUP_CLIENT": of(
        LookUpClient, LookUpClient("admin", 2**40, 1), f"{ADMIN} 00000100 00000000 00000001"
    ),
    "a client": of(
        ClientEntry,
        ClientEntry("admin", 7, -1, 2),
        f"{ADMIN} 00000000 00000007 ffffffff ffffffff 00000002",
    ),
    "CLIENT_GET_INFO": of(
        OfClient,
        OfClient(ClientEntry("virtproxyd", 7, 0x6553F100, 1)),
        f"{PROXYD} 00000000 00000007 00000000 6553f100 00000001 00000000",
    ),
    "SET_LOGGING": of(
        SetLogging, SetLogging("1:rpc"), "00000001 00000005 313a7270 63000000 00000000"
    ),
    "SET_LOGGING to nothing": of(SetLogging, SetLogging("", 1), "00000001 00000000 00000001"),
    "SET_LOGGING to NULL": of(SetLogging, SetLogging(None), "00000000 00000000"),
    "SET_DAEMON_TIMEOUT": of(SetTimeout, SetTimeout(30), "0000001e 00000000"),
    "outputs": (
        adminrpc.unpack_outputs,
        lambda said: adminrpc.pack_outputs(*said),
        ("3:stderr", 1),
        "00000008 333a7374 64657272 00000001",
    ),
    "filters": (
        adminrpc.unpack_filters,
        lambda said: adminrpc.pack_filters(*said),
        ("1:*a* ", 1),
        "00000001 00000006 313a2a61 2a200000 00000001",
    ),
    "no filters": (
        adminrpc.unpack_filters,
        lambda said: adminrpc.pack_filters(*said),
        (None, 0),
        "00000000 00000000",
    ),
    "a version": (
        adminrpc.unpack_version,
        adminrpc.pack_version,
        11003000,
        "00000000 00a7e478",
    ),
}
payloads = pytest.mark.parametrize(
    ("unpack", "pack", "value", "groups"), CASES.values(), ids=CASES.keys()
)


@payloads
def test_a_payload_is_read(unpack, pack, value, groups):
    assert unpack(bytes.fromhex(groups)) == value


@payloads
def test_a_payload_is_read_with_bytes_behind_it(unpack, pack, value, groups):
    assert unpack(bytes.fromhex(groups) + b"\xff\xff\xff\xff\xff") == value


@payloads
def test_a_payload_is_written(unpack, pack, value, groups):
    assert pack(value) == bytes.fromhex(groups)


@payloads
def test_a_payload_cut_anywhere_is_malformed(unpack, pack, value, groups):
    wire = bytes.fromhex(groups)
    for end in range(len(wire)):
        with pytest.raises(MalformedFrame, match="bytes expected"):
            unpack(wire[:end])


@pytest.mark.parametrize(
    ("unpack", "before", "limit"),
    [
        (ServerList.unpack, "", 16384),
        (ClientList.unpack, "", 16384),
        (SetParams.unpack, ADMIN, 32),
        (params_of, "", 32),
        (lambda payload: adminrpc.unpack_params(payload, adminrpc.MAX_INFO_PARAMS), "", 64),
        (OfServer.unpack, "", 4194304),
        (SetLogging.unpack, "00000001", 4194304),
    ],
)
@pytest.mark.parametrize("count", ["one more", 0x80000000, 0xFFFFFFFF])
def test_a_count_above_its_bound_is_malformed(unpack, before, limit, count):
    count = limit + 1 if count == "one more" else count
    payload = bytes.fromhex(before) + count.to_bytes(4, "big") + bytes(1000)
    with pytest.raises(MalformedFrame, match=f"length of {count} where at most {limit} is allowed"):
        unpack(payload)


@pytest.mark.parametrize(
    "pack",
    [
        ServerList(("x",) * 16385, 0).pack,
        ClientList((ClientEntry("x", 1),) * 16385, 0).pack,
        SetParams("x", (Param("p", ParamType.UINT, 1),) * 33).pack,
        lambda: adminrpc.pack_params([Param("p", ParamType.UINT, 1)] * 65, 64),
    ],
)
def test_more_than_a_bound_allows_is_never_sent(pack):
    with pytest.raises(ValueError, match="may be sent"):
        pack()


def test_the_longest_lists_may_be_sent_and_read():
    servers = ServerList(("x",) * 16384, 16384)
    clients = ClientList(tuple(ClientEntry("x", n) for n in range(16384)), 16384)
    assert ServerList.unpack(servers.pack()) == servers
    assert ClientList.unpack(clients.pack()) == clients


def test_any_word_but_zero_wants_results():
    assert ListServers.unpack(bytes.fromhex("80000000 00000000")).need_results


def test_a_call_is_one_of_the_admin_program():
    worked = BY_NAME["admin LIST_SERVERS call"]
    assert adminrpc.call(Admin.CONNECT_LIST_SERVERS, 1, ListServers().pack()).pack() == worked.wire


def test_the_procedures_are_those_of_the_table():
    assert ["", *(procedure.name for procedure in Admin)] == list(NAMES[Program.ADMIN])
    assert [*Admin] == list(range(1, 21))
