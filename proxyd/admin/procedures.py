"""What each admin call does to the daemon (docs/protocol/admin.md, sections 2 and 4).

Each function takes the arguments as bytes and returns the result as bytes. They look for what the
call is about first, then at its flags, then at its parameters, as libvirt does: the first that is
wrong is the one that the client hears of. All raise CallRefused, and MalformedFrame.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import trio

from proxyd.admin.act import Act
from proxyd.admin.parameters import (
    asked_bounds,
    asked_limits,
    info_params,
    limit_params,
    pool_params,
)
from proxyd.admin.proxyd_program import OWN_ACTS
from proxyd.admin.view import CallRefused, Client, DaemonView, Server
from proxyd.config.logstrings import (
    LogStringError,
    format_filters,
    format_outputs,
    parse_filters,
    parse_outputs,
)
from proxyd.config.quoting import excerpt
from proxyd.wire import adminrpc, failure
from proxyd.wire.failure import Domain
from proxyd.wire.programs import Admin, Own
from proxyd.wire.xdr import MalformedFrame

# While clients are packed no session moves: so many take 0.5 to 0.9 ms. The pause has to be a real
# one: after a mere checkpoint this thread runs on before the relay's has woken. Measured with a
# ping-pong in another thread while 5,000 clients are listed over and over, p99.99: 4.3 ms in one
# piece, 1.5 ms in these.
_PACKED_AT_ONCE: Final = 1000
_PAUSE_S: Final = 0.0005

T = TypeVar("T")


def act_of(procedure: Admin | Own) -> Act:
    """Its row. The programs' numbers are the same, so each has a table of its own."""
    return OWN_ACTS[procedure] if isinstance(procedure, Own) else ACTS[procedure]


def closed_by(view: DaemonView, procedure: Admin | Own, payload: bytes) -> str:
    """Whom a call is about to close, for the log; "" where nobody is."""
    closes = act_of(procedure).closes
    if closes is None:
        return ""
    try:
        name, number = closes(payload)
    except MalformedFrame:
        return ""
    server = next((each for each in view.servers() if each.name == name), None)
    # What `proxyd kick` names are clients of the first server, whatever that is called.
    client = (server or view.servers()[0]).find(number) if server or not name else None
    return "" if client is None else f"client {number}: {client}"


async def answer(view: DaemonView, procedure: Admin | Own, payload: bytes) -> bytes:
    """Carries out one call and returns its result. Raises CallRefused for whatever is not done."""
    try:
        result = act_of(procedure).carry_out(view, payload)
        return result if isinstance(result, bytes) else await result
    except MalformedFrame as error:
        raise CallRefused(failure.undecodable(str(error))) from error


def _lib_version(view: DaemonView, _: bytes) -> bytes:
    return adminrpc.pack_version(view.lib_version)


def _list_servers(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.ListServers.unpack(payload)
    _no_flags(asked.flags, Admin.CONNECT_LIST_SERVERS)
    names = tuple(server.name for server in view.servers())
    return adminrpc.ServerList(names if asked.need_results else (), len(names)).pack()


def _lookup_server(view: DaemonView, payload: bytes) -> bytes:
    # Its flags are not looked at: docs/protocol/admin.md, section 2.
    asked = adminrpc.OfServer.unpack(payload)
    return adminrpc.pack_server(_server(view, asked.server).name)


def _get_pool(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.OfServer.unpack(payload)
    server = _server(view, asked.server)
    _no_flags(asked.flags, Admin.SERVER_GET_THREADPOOL_PARAMETERS)
    return adminrpc.pack_params(pool_params(server.pool), adminrpc.MAX_POOL_PARAMS)


def _set_pool(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.SetParams.unpack(payload)
    server = _server(view, asked.server, Domain.ADMIN)
    _no_flags(asked.flags, Admin.SERVER_SET_THREADPOOL_PARAMETERS)
    bounds = asked_bounds(asked.params, server.pool)
    if asked.params:
        server.set_pool(bounds)
    return b""


async def _list_clients(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.ListClients.unpack(payload)
    server = _server(view, asked.server)
    _no_flags(asked.flags, Admin.SERVER_LIST_CLIENTS)
    clients = server.clients()
    if not asked.need_results:
        return adminrpc.pack_client_list((), len(clients))
    if len(clients) > adminrpc.MAX_CLIENTS:
        text = f"{len(clients)} clients are connected, a list has room for {adminrpc.MAX_CLIENTS}"
        raise CallRefused(failure.internal(text))
    pack = adminrpc.client_packer(server.name)
    entries: list[bytes] = []
    for start in range(0, len(clients), _PACKED_AT_ONCE):
        if start:
            await trio.sleep(_PAUSE_S)
        entries += [
            pack(client.number, int(client.connected_s), client.transport)
            for client in clients[start : start + _PACKED_AT_ONCE]
        ]
    return adminrpc.pack_client_list(entries, len(entries))


def _lookup_client(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.LookUpClient.unpack(payload)
    server = _server(view, asked.server)
    _no_flags(asked.flags, Admin.SERVER_LOOKUP_CLIENT)
    client = _client(server, asked.number)
    return adminrpc.ClientEntry(
        server.name, client.number, int(client.connected_s), client.transport
    ).pack()


def _client_info(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.OfClient.unpack(payload)
    server = _server(view, asked.client.server, Domain.ADMIN)
    client = _client(server, asked.client.number, Domain.ADMIN)
    _no_flags(asked.flags, Admin.CLIENT_GET_INFO)
    identity = client.known_identity
    if identity is None:
        text = f"who client {client.number} of {server.name} is, is not known yet"
        raise CallRefused(failure.internal(text))
    return adminrpc.pack_params(info_params(client, identity), adminrpc.MAX_INFO_PARAMS)


def _client_close(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.OfClient.unpack(payload)
    client = _client(_server(view, asked.client.server), asked.client.number)
    _no_flags(asked.flags, Admin.CLIENT_CLOSE)
    client.close()
    return b""


def _closes(payload: bytes) -> tuple[str, int]:
    entry = adminrpc.OfClient.unpack(payload).client
    return entry.server, entry.number


def _get_limits(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.OfServer.unpack(payload)
    server = _server(view, asked.server)
    _no_flags(asked.flags, Admin.SERVER_GET_CLIENT_LIMITS)
    return adminrpc.pack_params(limit_params(server), adminrpc.MAX_LIMIT_PARAMS)


def _set_limits(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.SetParams.unpack(payload)
    server = _server(view, asked.server, Domain.ADMIN)
    _no_flags(asked.flags, Admin.SERVER_SET_CLIENT_LIMITS)
    limits = asked_limits(asked.params, server.limits)
    if asked.params:
        server.set_limits(limits)
    return b""


def _get_outputs(view: DaemonView, payload: bytes) -> bytes:
    _no_flags(adminrpc.Flags.unpack(payload).flags, Admin.CONNECT_GET_LOGGING_OUTPUTS)
    outputs = view.log_outputs
    return adminrpc.pack_outputs(format_outputs(outputs), len(outputs))


def _get_filters(view: DaemonView, payload: bytes) -> bytes:
    _no_flags(adminrpc.Flags.unpack(payload).flags, Admin.CONNECT_GET_LOGGING_FILTERS)
    filters = view.log_filters
    return adminrpc.pack_filters(format_filters(filters) or None, len(filters))


async def _set_outputs(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.SetLogging.unpack(payload)
    _no_flags(asked.flags, Admin.CONNECT_SET_LOGGING_OUTPUTS)
    await view.set_log_outputs(_parsed(parse_outputs, asked.text))
    return b""


async def _set_filters(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.SetLogging.unpack(payload)
    _no_flags(asked.flags, Admin.CONNECT_SET_LOGGING_FILTERS)
    await view.set_log_filters(_parsed(parse_filters, asked.text))
    return b""


async def _update_tls(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.OfServer.unpack(payload)
    server = _server(view, asked.server)
    _no_flags(asked.flags, Admin.SERVER_UPDATE_TLS_FILES)
    await server.update_tls()
    return b""


def _set_timeout(view: DaemonView, payload: bytes) -> bytes:
    asked = adminrpc.SetTimeout.unpack(payload)
    _no_flags(asked.flags, Admin.CONNECT_SET_DAEMON_TIMEOUT)
    view.set_idle_exit(asked.seconds)
    return b""


def _shut_down(view: DaemonView, payload: bytes) -> bytes:
    flags = adminrpc.Flags.unpack(payload).flags
    _no_flags(flags & ~adminrpc.PRESERVE, Admin.CONNECT_DAEMON_SHUTDOWN)
    view.shut_down(preserve=bool(flags & adminrpc.PRESERVE))
    return b""


def _parsed(parse: Callable[[str], T], text: str | None) -> T:
    try:
        return parse(text or "")
    except LogStringError as error:
        raise CallRefused(failure.invalid_argument(str(error))) from error


def _no_flags(flags: int, procedure: Admin) -> None:
    if flags:
        raise CallRefused(failure.unsupported_flags(flags, procedure.name))


def _server(view: DaemonView, name: str, domain: Domain = Domain.RPC) -> Server:
    servers = view.servers()
    for server in servers:
        if server.name == name:
            return server
    known = " and ".join(server.name for server in servers)
    raise CallRefused(
        failure.no_server(f"no server is called {excerpt(name)}, there are {known}", domain)
    )


def _client(server: Server, number: int, domain: Domain = Domain.RPC) -> Client:
    client = server.find(number)
    if client is None:
        raise CallRefused(failure.no_client(f"{server.name} has no client {number}", domain))
    return client


# Every procedure but CONNECT_OPEN and CONNECT_CLOSE, which are negotiation/admin.py's.
ACTS: Final[dict[Admin, Act]] = {
    Admin.CONNECT_GET_LIB_VERSION: Act(_lib_version),
    Admin.CONNECT_LIST_SERVERS: Act(_list_servers),
    Admin.CONNECT_LOOKUP_SERVER: Act(_lookup_server),
    Admin.SERVER_GET_THREADPOOL_PARAMETERS: Act(_get_pool),
    Admin.SERVER_SET_THREADPOOL_PARAMETERS: Act(_set_pool, changes=True),
    Admin.SERVER_LIST_CLIENTS: Act(_list_clients),
    Admin.SERVER_LOOKUP_CLIENT: Act(_lookup_client),
    Admin.CLIENT_GET_INFO: Act(_client_info),
    Admin.CLIENT_CLOSE: Act(_client_close, changes=True, closes=_closes),
    Admin.SERVER_GET_CLIENT_LIMITS: Act(_get_limits),
    Admin.SERVER_SET_CLIENT_LIMITS: Act(_set_limits, changes=True),
    Admin.CONNECT_GET_LOGGING_OUTPUTS: Act(_get_outputs),
    Admin.CONNECT_GET_LOGGING_FILTERS: Act(_get_filters),
    Admin.CONNECT_SET_LOGGING_OUTPUTS: Act(_set_outputs, changes=True),
    Admin.CONNECT_SET_LOGGING_FILTERS: Act(_set_filters, changes=True),
    Admin.SERVER_UPDATE_TLS_FILES: Act(_update_tls, changes=True),
    Admin.CONNECT_SET_DAEMON_TIMEOUT: Act(_set_timeout, changes=True),
    Admin.CONNECT_DAEMON_SHUTDOWN: Act(_shut_down, changes=True),
}
