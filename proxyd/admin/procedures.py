"""What each admin call does to the daemon (reference/admin.md, sections 2 and 4).

Each function takes the arguments as bytes and returns the result as bytes. They look for what the
call is about first, then at its flags, then at its parameters, as libvirt does: the first that is
wrong is the one that the client hears of. All raise Refused, and MalformedFrame.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from proxyd.admin.host import Client, Host, Refused, Server
from proxyd.admin.own import answer_own
from proxyd.admin.parameters import (
    asked_bounds,
    asked_limits,
    info_params,
    limit_params,
    pool_params,
)
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


async def answer(host: Host, procedure: Admin | Own, payload: bytes) -> bytes:
    """Carries out one call and returns its result. Raises Refused for whatever is not done."""
    try:
        if isinstance(procedure, Own):
            return await answer_own(host, procedure, payload)
        if procedure in WAITING:
            return await WAITING[procedure](host, payload)
        return AT_ONCE[procedure](host, payload)
    except MalformedFrame as error:
        raise Refused(failure.undecodable(str(error))) from error


def _lib_version(host: Host, _: bytes) -> bytes:
    return adminrpc.pack_version(host.lib_version)


def _list_servers(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.ListServers.unpack(payload)
    _no_flags(asked.flags, Admin.CONNECT_LIST_SERVERS)
    names = tuple(server.name for server in host.servers())
    return adminrpc.ServerList(names if asked.need_results else (), len(names)).pack()


def _lookup_server(host: Host, payload: bytes) -> bytes:
    # Its flags are not looked at: reference/admin.md, section 2.
    asked = adminrpc.OfServer.unpack(payload)
    return adminrpc.pack_server(_server(host, asked.server).name)


def _get_pool(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.OfServer.unpack(payload)
    server = _server(host, asked.server)
    _no_flags(asked.flags, Admin.SERVER_GET_THREADPOOL_PARAMETERS)
    return adminrpc.pack_params(pool_params(server.pool), adminrpc.MAX_POOL_PARAMS)


def _set_pool(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.SetParams.unpack(payload)
    server = _server(host, asked.server, Domain.ADMIN)
    _no_flags(asked.flags, Admin.SERVER_SET_THREADPOOL_PARAMETERS)
    bounds = asked_bounds(asked.params, server.pool)
    if asked.params:
        server.set_pool(bounds)
    return b""


async def _list_clients(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.ListClients.unpack(payload)
    server = _server(host, asked.server)
    _no_flags(asked.flags, Admin.SERVER_LIST_CLIENTS)
    clients = server.clients()
    if not asked.need_results:
        return adminrpc.pack_client_list((), len(clients))
    if len(clients) > adminrpc.MAX_CLIENTS:
        text = f"{len(clients)} clients are connected, a list has room for {adminrpc.MAX_CLIENTS}"
        raise Refused(failure.internal(text))
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


def _lookup_client(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.LookUpClient.unpack(payload)
    server = _server(host, asked.server)
    _no_flags(asked.flags, Admin.SERVER_LOOKUP_CLIENT)
    client = _client(server, asked.number)
    return adminrpc.ClientEntry(
        server.name, client.number, int(client.connected_s), client.transport
    ).pack()


def _client_info(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.OfClient.unpack(payload)
    server = _server(host, asked.client.server, Domain.ADMIN)
    client = _client(server, asked.client.number, Domain.ADMIN)
    _no_flags(asked.flags, Admin.CLIENT_GET_INFO)
    identity = client.known_identity
    if identity is None:
        text = f"who client {client.number} of {server.name} is, is not known yet"
        raise Refused(failure.internal(text))
    return adminrpc.pack_params(info_params(client, identity), adminrpc.MAX_INFO_PARAMS)


def _client_close(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.OfClient.unpack(payload)
    client = _client(_server(host, asked.client.server), asked.client.number)
    _no_flags(asked.flags, Admin.CLIENT_CLOSE)
    client.close()
    return b""


def _get_limits(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.OfServer.unpack(payload)
    server = _server(host, asked.server)
    _no_flags(asked.flags, Admin.SERVER_GET_CLIENT_LIMITS)
    return adminrpc.pack_params(limit_params(server), adminrpc.MAX_LIMIT_PARAMS)


def _set_limits(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.SetParams.unpack(payload)
    server = _server(host, asked.server, Domain.ADMIN)
    _no_flags(asked.flags, Admin.SERVER_SET_CLIENT_LIMITS)
    limits = asked_limits(asked.params, server.limits)
    if asked.params:
        server.set_limits(limits)
    return b""


def _get_outputs(host: Host, payload: bytes) -> bytes:
    _no_flags(adminrpc.Flags.unpack(payload).flags, Admin.CONNECT_GET_LOGGING_OUTPUTS)
    outputs = host.log_outputs
    return adminrpc.pack_outputs(format_outputs(outputs), len(outputs))


def _get_filters(host: Host, payload: bytes) -> bytes:
    _no_flags(adminrpc.Flags.unpack(payload).flags, Admin.CONNECT_GET_LOGGING_FILTERS)
    filters = host.log_filters
    return adminrpc.pack_filters(format_filters(filters) or None, len(filters))


async def _set_outputs(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.SetLogging.unpack(payload)
    _no_flags(asked.flags, Admin.CONNECT_SET_LOGGING_OUTPUTS)
    try:
        outputs = parse_outputs(asked.text or "")
    except LogStringError as error:
        raise Refused(failure.invalid_argument(str(error))) from error
    await host.set_log_outputs(outputs)
    return b""


async def _set_filters(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.SetLogging.unpack(payload)
    _no_flags(asked.flags, Admin.CONNECT_SET_LOGGING_FILTERS)
    try:
        filters = parse_filters(asked.text or "")
    except LogStringError as error:
        raise Refused(failure.invalid_argument(str(error))) from error
    await host.set_log_filters(filters)
    return b""


async def _update_tls(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.OfServer.unpack(payload)
    server = _server(host, asked.server)
    _no_flags(asked.flags, Admin.SERVER_UPDATE_TLS_FILES)
    await server.update_tls()
    return b""


def _set_timeout(host: Host, payload: bytes) -> bytes:
    asked = adminrpc.SetTimeout.unpack(payload)
    _no_flags(asked.flags, Admin.CONNECT_SET_DAEMON_TIMEOUT)
    host.set_idle_exit(asked.seconds)
    return b""


def _shut_down(host: Host, payload: bytes) -> bytes:
    flags = adminrpc.Flags.unpack(payload).flags
    _no_flags(flags & ~adminrpc.PRESERVE, Admin.CONNECT_DAEMON_SHUTDOWN)
    host.shut_down(preserve=bool(flags & adminrpc.PRESERVE))
    return b""


def _no_flags(flags: int, procedure: Admin) -> None:
    if flags:
        raise Refused(failure.unsupported_flags(flags, procedure.name))


def _server(host: Host, name: str, domain: Domain = Domain.RPC) -> Server:
    servers = host.servers()
    for server in servers:
        if server.name == name:
            return server
    known = " and ".join(server.name for server in servers)
    raise Refused(
        failure.no_server(f"no server is called {excerpt(name)}, there are {known}", domain)
    )


def _client(server: Server, number: int, domain: Domain = Domain.RPC) -> Client:
    client = server.find(number)
    if client is None:
        raise Refused(failure.no_client(f"{server.name} has no client {number}", domain))
    return client


# Both tables together have every procedure but CONNECT_OPEN and CONNECT_CLOSE (service.py).
AT_ONCE: Final[dict[Admin, Callable[[Host, bytes], bytes]]] = {
    Admin.CONNECT_GET_LIB_VERSION: _lib_version,
    Admin.CONNECT_LIST_SERVERS: _list_servers,
    Admin.CONNECT_LOOKUP_SERVER: _lookup_server,
    Admin.SERVER_GET_THREADPOOL_PARAMETERS: _get_pool,
    Admin.SERVER_SET_THREADPOOL_PARAMETERS: _set_pool,
    Admin.SERVER_LOOKUP_CLIENT: _lookup_client,
    Admin.CLIENT_GET_INFO: _client_info,
    Admin.CLIENT_CLOSE: _client_close,
    Admin.SERVER_GET_CLIENT_LIMITS: _get_limits,
    Admin.SERVER_SET_CLIENT_LIMITS: _set_limits,
    Admin.CONNECT_GET_LOGGING_OUTPUTS: _get_outputs,
    Admin.CONNECT_GET_LOGGING_FILTERS: _get_filters,
    Admin.CONNECT_SET_DAEMON_TIMEOUT: _set_timeout,
    Admin.CONNECT_DAEMON_SHUTDOWN: _shut_down,
}
WAITING: Final[dict[Admin, Callable[[Host, bytes], Awaitable[bytes]]]] = {
    Admin.SERVER_LIST_CLIENTS: _list_clients,
    Admin.CONNECT_SET_LOGGING_OUTPUTS: _set_outputs,
    Admin.CONNECT_SET_LOGGING_FILTERS: _set_filters,
    Admin.SERVER_UPDATE_TLS_FILES: _update_tls,
}
