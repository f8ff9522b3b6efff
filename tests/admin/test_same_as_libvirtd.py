"""The same calls to a real libvirtd and to us: the same replies, the same errors but for texts."""

import socket
from contextlib import closing

import pytest

from proxyd.admin.view import Pool
from proxyd.wire import adminrpc, remote
from proxyd.wire.adminrpc import (
    ClientEntry,
    Flags,
    ListClients,
    ListServers,
    LookUpClient,
    OfClient,
    OfServer,
    SetLogging,
    SetParams,
    SetTimeout,
)
from proxyd.wire.failure import Failure
from proxyd.wire.frame import Frame, FrameBuffer, FrameType, Header, Status
from proxyd.wire.params import Param, ParamType
from proxyd.wire.programs import Admin, Program, Remote
from tests.admin.asking import counts
from tests.admin.live import live_admin
from tests.bed.daemon import short_directory
from tests.bed.libvirtd import Libvirtd

pytestmark = pytest.mark.system

DEADLINE_S = 10
MAIN = "libvirtd"
NOBODY = ClientEntry(MAIN, 77)
ELSEWHERE = ClientEntry("nowhere", 1)
UINT = ParamType.UINT


def answer(sock, frame):
    """What comes back: an error without its texts, or the payload; None is the end."""
    sock.sendall(frame.pack())
    buffer = FrameBuffer()
    while (said := buffer.next_frame()) is None:
        got = sock.recv(65536)
        if not got:
            return None
        buffer.feed(got)
    assert said.header in {frame.header.replied(Status.OK), frame.header.replied(Status.ERROR)}
    if said.header.status == Status.OK:
        return said.payload
    failure = Failure.unpack(said.payload)
    # str1 is the format, or the function of libvirt's that looked at flags.
    return failure.code, failure.domain, failure.int1, failure.int2, failure.str2 == "flags"


def of(procedure, arguments=None):
    return adminrpc.call(procedure, 7, b"" if arguments is None else arguments.pack())


def odd(*params):
    return SetParams(MAIN, tuple(Param(*fields) for fields in params))


def header(procedure, **more):
    return Header(
        more.get("program", Program.ADMIN),
        more.get("version", 1),
        procedure,
        FrameType.CALL,
        7,
        more.get("status", Status.OK),
    )


POOL = Admin.SERVER_SET_THREADPOOL_PARAMETERS
LIMITS = Admin.SERVER_SET_CLIENT_LIMITS
CALLS = {
    # Each on a connection of its own that was never opened, which libvirt does not mind.
    "open": of(Admin.CONNECT_OPEN, Flags()),
    "open with flags": of(Admin.CONNECT_OPEN, Flags(4)),
    "close": of(Admin.CONNECT_CLOSE),
    "count servers": of(Admin.CONNECT_LIST_SERVERS, ListServers(need_results=False)),
    "list servers with flags": of(Admin.CONNECT_LIST_SERVERS, ListServers(flags=4)),
    "server": of(Admin.CONNECT_LOOKUP_SERVER, OfServer("admin")),
    "server with flags": of(Admin.CONNECT_LOOKUP_SERVER, OfServer("admin", 4)),
    "no server": of(Admin.CONNECT_LOOKUP_SERVER, OfServer("nowhere")),
    "pool": of(Admin.SERVER_GET_THREADPOOL_PARAMETERS, OfServer(MAIN)),
    "pool with flags": of(Admin.SERVER_GET_THREADPOOL_PARAMETERS, OfServer(MAIN, 4)),
    "pool of no server": of(Admin.SERVER_GET_THREADPOOL_PARAMETERS, OfServer("nowhere", 4)),
    "pool: nothing": of(POOL, counts(MAIN)),
    "pool: flags": of(POOL, counts(MAIN, 4, bogus=1)),
    "pool: no server": of(POOL, counts("nowhere", 4, bogus=1)),
    "pool: unknown": of(POOL, counts(MAIN, bogus=1)),
    "pool: not to be set": of(POOL, counts(MAIN, nWorkers=1)),
    "pool: a type": of(POOL, odd(("minWorkers", ParamType.INT, 1))),
    "pool: twice": of(POOL, odd(("minWorkers", UINT, 1), ("minWorkers", UINT, 1))),
    "pool: min above max": of(POOL, counts(MAIN, minWorkers=500)),
    "pool: max below min": of(POOL, counts(MAIN, maxWorkers=0)),
    "pool: to zero": of(POOL, counts(MAIN, minWorkers=0, maxWorkers=0)),
    "count clients": of(Admin.SERVER_LIST_CLIENTS, ListClients(MAIN, need_results=False)),
    "clients": of(Admin.SERVER_LIST_CLIENTS, ListClients(MAIN)),
    "clients with flags": of(Admin.SERVER_LIST_CLIENTS, ListClients(MAIN, flags=4)),
    "clients of no server": of(Admin.SERVER_LIST_CLIENTS, ListClients("nowhere", flags=4)),
    "client of no server": of(Admin.SERVER_LOOKUP_CLIENT, LookUpClient("nowhere", 1, 4)),
    "no client": of(Admin.SERVER_LOOKUP_CLIENT, LookUpClient(MAIN, 77)),
    "no client with flags": of(Admin.SERVER_LOOKUP_CLIENT, LookUpClient(MAIN, 77, 4)),
    "info of no client": of(Admin.CLIENT_GET_INFO, OfClient(NOBODY)),
    "info of no client with flags": of(Admin.CLIENT_GET_INFO, OfClient(NOBODY, 4)),
    "info of no server": of(Admin.CLIENT_GET_INFO, OfClient(ELSEWHERE, 4)),
    "close no client": of(Admin.CLIENT_CLOSE, OfClient(NOBODY, 4)),
    "close on no server": of(Admin.CLIENT_CLOSE, OfClient(ELSEWHERE)),
    "limits": of(Admin.SERVER_GET_CLIENT_LIMITS, OfServer(MAIN)),
    "limits with flags": of(Admin.SERVER_GET_CLIENT_LIMITS, OfServer(MAIN, 4)),
    "limits of no server": of(Admin.SERVER_GET_CLIENT_LIMITS, OfServer("nowhere")),
    "limits: nothing": of(LIMITS, counts(MAIN)),
    "limits: flags": of(LIMITS, counts(MAIN, 4)),
    "limits: no server": of(LIMITS, counts("nowhere", 4)),
    "limits: unknown": of(LIMITS, counts(MAIN, nclients=4)),
    "limits: a type": of(LIMITS, odd(("nclients_max", ParamType.STRING, "4"))),
    "limits: too few": of(LIMITS, counts(MAIN, nclients_max=19)),
    "limits: too many strangers": of(LIMITS, counts(MAIN, nclients_unauth_max=5001)),
    "limits: any number": of(LIMITS, counts(MAIN, nclients_max=2**32 - 1)),
    "outputs with flags": of(Admin.CONNECT_GET_LOGGING_OUTPUTS, Flags(4)),
    "filters": of(Admin.CONNECT_GET_LOGGING_FILTERS, Flags()),
    "filters with flags": of(Admin.CONNECT_GET_LOGGING_FILTERS, Flags(4)),
    "set outputs to nonsense": of(Admin.CONNECT_SET_LOGGING_OUTPUTS, SetLogging("bogus")),
    "set outputs with flags": of(Admin.CONNECT_SET_LOGGING_OUTPUTS, SetLogging("bogus", 4)),
    "set filters to nonsense": of(Admin.CONNECT_SET_LOGGING_FILTERS, SetLogging("bogus")),
    "set filters to nothing": of(Admin.CONNECT_SET_LOGGING_FILTERS, SetLogging(None)),
    "set filters with flags": of(Admin.CONNECT_SET_LOGGING_FILTERS, SetLogging("bogus", 4)),
    "TLS of admin": of(Admin.SERVER_UPDATE_TLS_FILES, OfServer("admin")),
    "TLS with flags": of(Admin.SERVER_UPDATE_TLS_FILES, OfServer("admin", 4)),
    "TLS of no server": of(Admin.SERVER_UPDATE_TLS_FILES, OfServer("nowhere")),
    "timeout with flags": of(Admin.CONNECT_SET_DAEMON_TIMEOUT, SetTimeout(1, 4)),
    "cut": Frame(header(Admin.CONNECT_LIST_SERVERS), b"\0\0"),
    "too many parameters": Frame(
        header(POOL), bytes.fromhex("00000005 61646d69 6e000000 00000021") + bytes(1000)
    ),
    "no procedure": Frame(header(0)),
    "unknown procedure": Frame(header(99)),
    "negative procedure": Frame(header(-1)),
    "a status": Frame(header(Admin.CONNECT_OPEN, status=Status.ERROR), bytes(4)),
    "another version": Frame(header(Admin.CONNECT_OPEN, version=2), bytes(4)),
    "REMOTE": remote.call(Remote.AUTH_LIST, 0),
    "QEMU": Frame(header(1, program=Program.QEMU)),
    "zero length": None,
}


@pytest.fixture(scope="module")
def theirs():
    with short_directory() as directory, Libvirtd(directory) as libvirtd:
        yield libvirtd.admin_sock


@pytest.fixture(scope="module")
def ours():
    with short_directory() as directory, live_admin(directory, name=MAIN) as live:
        live.host.main.pool = Pool(
            min_workers=5, max_workers=20, workers=5, free_workers=5, prio_workers=5, queued=0
        )
        yield live.path


def heard(path, frame):
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(DEADLINE_S)
        sock.connect(str(path))
        if frame is None:
            sock.sendall(bytes(4))
            return sock.recv(1)
        return answer(sock, frame)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_has_the_same_outcome(theirs, ours, name):
    assert heard(ours, CALLS[name]) == heard(theirs, CALLS[name])
