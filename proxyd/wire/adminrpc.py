"""The ADMIN calls: arguments and results as bytes, both ways.

Source: docs/protocol/admin.md, section 2. Where two procedures have the same shape they share a
class. Reading raises MalformedFrame, for a count above its bound too; writing more than a bound
allows raises ValueError.
"""

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, NamedTuple

from proxyd.wire.frame import Frame, FrameType, Header
from proxyd.wire.params import Param, read_params, write_params
from proxyd.wire.programs import VERSION, Admin, Program
from proxyd.wire.xdr import Reader, Writer

MAX_SERVERS: Final = 16384
MAX_CLIENTS: Final = 16384
MAX_POOL_PARAMS: Final = 32
MAX_LIMIT_PARAMS: Final = 32
MAX_INFO_PARAMS: Final = 64

PRESERVE: Final = 1  # bit 0 of CONNECT_DAEMON_SHUTDOWN's flags

_COUNT: Final = Struct(">I")
_CLIENT: Final = Struct(">QqI")  # number, timestamp, transport, behind the server's name


def call(procedure: Admin, serial: int, payload: bytes = b"") -> Frame:
    """A call of the ADMIN program."""
    return Frame(Header(Program.ADMIN, VERSION, procedure, FrameType.CALL, serial), payload)


class Flags(NamedTuple):
    """Arguments of CONNECT_OPEN, both CONNECT_GET_LOGGING_… and CONNECT_DAEMON_SHUTDOWN."""

    flags: int = 0

    def pack(self) -> bytes:
        return Writer().u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "Flags":
        return cls(Reader(payload).u32())


class ListServers(NamedTuple):
    """Arguments of CONNECT_LIST_SERVERS. Without `need_results` only the count is wanted."""

    need_results: bool = True
    flags: int = 0

    def pack(self) -> bytes:
        return Writer().u32(self.need_results).u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "ListServers":
        reader = Reader(payload)
        return cls(reader.u32() != 0, reader.u32())


class OfServer(NamedTuple):
    """Arguments of the calls about one server: CONNECT_LOOKUP_SERVER, both SERVER_GET_… and
    SERVER_UPDATE_TLS_FILES."""

    server: str
    flags: int = 0

    def pack(self) -> bytes:
        return Writer().string(self.server).u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "OfServer":
        reader = Reader(payload)
        return cls(reader.string(), reader.u32())


class SetParams(NamedTuple):
    """Arguments of both SERVER_SET_…; the limit of either list is the same."""

    server: str
    params: tuple[Param, ...]
    flags: int = 0

    def pack(self) -> bytes:
        out = Writer().string(self.server)
        _write_params(out, self.params, MAX_POOL_PARAMS)
        return out.u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "SetParams":
        reader = Reader(payload)
        server = reader.string()
        return cls(server, tuple(read_params(reader, MAX_POOL_PARAMS)), reader.u32())


class ListClients(NamedTuple):
    """Arguments of SERVER_LIST_CLIENTS."""

    server: str
    need_results: bool = True
    flags: int = 0

    def pack(self) -> bytes:
        return Writer().string(self.server).u32(self.need_results).u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "ListClients":
        reader = Reader(payload)
        return cls(reader.string(), reader.u32() != 0, reader.u32())


class LookUpClient(NamedTuple):
    """Arguments of SERVER_LOOKUP_CLIENT."""

    server: str
    number: int
    flags: int = 0

    def pack(self) -> bytes:
        return Writer().string(self.server).u64(self.number).u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "LookUpClient":
        reader = Reader(payload)
        return cls(reader.string(), reader.u64(), reader.u32())


class ClientEntry(NamedTuple):
    """A client as lists and look-ups tell of it. `timestamp` is in seconds since 1970.

    In arguments only the server and the number count.
    """

    server: str
    number: int
    timestamp: int = 0
    transport: int = 0

    def pack(self) -> bytes:
        return client_packer(self.server)(self.number, self.timestamp, self.transport)

    @classmethod
    def unpack(cls, payload: bytes) -> "ClientEntry":
        return cls.read(Reader(payload))

    @classmethod
    def read(cls, reader: Reader) -> "ClientEntry":
        return cls(reader.string(), reader.u64(), reader.i64(), reader.u32())


class OfClient(NamedTuple):
    """Arguments of CLIENT_GET_INFO and CLIENT_CLOSE."""

    client: ClientEntry
    flags: int = 0

    def pack(self) -> bytes:
        return self.client.pack() + Writer().u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "OfClient":
        reader = Reader(payload)
        return cls(ClientEntry.read(reader), reader.u32())


class SetLogging(NamedTuple):
    """Arguments of both CONNECT_SET_LOGGING_…; None stands for the default, as "" does."""

    text: str | None
    flags: int = 0

    def pack(self) -> bytes:
        return Writer().optional_string(self.text).u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "SetLogging":
        reader = Reader(payload)
        return cls(reader.optional(reader.string), reader.u32())


class SetTimeout(NamedTuple):
    """Arguments of CONNECT_SET_DAEMON_TIMEOUT; 0 seconds are for ever."""

    seconds: int
    flags: int = 0

    def pack(self) -> bytes:
        return Writer().u32(self.seconds).u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "SetTimeout":
        reader = Reader(payload)
        return cls(reader.u32(), reader.u32())


class ServerList(NamedTuple):
    """What CONNECT_LIST_SERVERS returns. `total` counts them all, listed or not."""

    names: tuple[str, ...]
    total: int

    def pack(self) -> bytes:
        _check(len(self.names), MAX_SERVERS)
        out = Writer().u32(len(self.names))
        for name in self.names:
            out.string(name)
        return out.u32(self.total).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "ServerList":
        reader = Reader(payload)
        return cls(tuple(reader.array(MAX_SERVERS, reader.string)), reader.u32())


class ClientList(NamedTuple):
    """What SERVER_LIST_CLIENTS returns. `total` counts them all, listed or not."""

    clients: tuple[ClientEntry, ...]
    total: int

    def pack(self) -> bytes:
        return pack_client_list([client.pack() for client in self.clients], self.total)

    @classmethod
    def unpack(cls, payload: bytes) -> "ClientList":
        reader = Reader(payload)
        clients = reader.array(MAX_CLIENTS, lambda: ClientEntry.read(reader))
        return cls(tuple(clients), reader.u32())


def client_packer(server: str) -> Callable[[int, int, int], bytes]:
    """What packs number, timestamp and transport of one server's clients, many of them.

    A quarter of what a Writer takes (0.3 µs instead of 1.1 µs a client): lists can be long.
    """
    name = Writer().string(server).take()
    pack = _CLIENT.pack
    return lambda number, timestamp, transport: name + pack(number, timestamp, transport)


def pack_client_list(entries: Sequence[bytes], total: int) -> bytes:
    """What SERVER_LIST_CLIENTS returns, from entries that are packed already."""
    _check(len(entries), MAX_CLIENTS)
    return b"".join((_COUNT.pack(len(entries)), *entries, _COUNT.pack(total)))


def pack_server(name: str) -> bytes:
    """What CONNECT_LOOKUP_SERVER returns."""
    return Writer().string(name).take()


def unpack_server(payload: bytes) -> str:
    return Reader(payload).string()


def pack_params(params: Sequence[Param], limit: int) -> bytes:
    """What CLIENT_GET_INFO and both SERVER_GET_… return."""
    out = Writer()
    _write_params(out, params, limit)
    return out.take()


def unpack_params(payload: bytes, limit: int) -> list[Param]:
    return read_params(Reader(payload), limit)


def pack_outputs(text: str, count: int) -> bytes:
    """What CONNECT_GET_LOGGING_OUTPUTS returns: a string, unlike the filters never absent."""
    return Writer().string(text).u32(count).take()


def unpack_outputs(payload: bytes) -> tuple[str, int]:
    reader = Reader(payload)
    return reader.string(), reader.u32()


def pack_filters(text: str | None, count: int) -> bytes:
    """What CONNECT_GET_LOGGING_FILTERS returns."""
    return Writer().optional_string(text).u32(count).take()


def unpack_filters(payload: bytes) -> tuple[str | None, int]:
    reader = Reader(payload)
    return reader.optional(reader.string), reader.u32()


def pack_version(version: int) -> bytes:
    """What CONNECT_GET_LIB_VERSION returns: 11003000 is 11.3.0."""
    return Writer().u64(version).take()


def unpack_version(payload: bytes) -> int:
    return Reader(payload).u64()


def _write_params(out: Writer, params: Sequence[Param], limit: int) -> None:
    _check(len(params), limit)
    write_params(out, list(params))


def _check(count: int, limit: int) -> None:
    if count > limit:
        raise ValueError(f"a list of {count} where at most {limit} may be sent")
