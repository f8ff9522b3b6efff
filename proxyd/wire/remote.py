"""The REMOTE calls that proxyd answers or makes: arguments and results as bytes.

Source: docs/protocol/frames.md, section 5, docs/protocol/streams.md, section 3,
docs/protocol/opening.md, section 2, and docs/protocol/identity.md, section 3; examples in
docs/protocol/worked-frames.md.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from proxyd.wire.frame import Frame, FrameType, Header, Status
from proxyd.wire.params import Param, read_params, write_params
from proxyd.wire.programs import VERSION, Keepalive, Program
from proxyd.wire.xdr import Reader, Writer

MAX_AUTH_METHODS: Final = 20
MAX_IDENTITY_PARAMS: Final = 20
MAX_SASL_DATA: Final = 65536  # bytes of a token; four times as many on the wire
OPEN_READONLY: Final = 1  # bit 0 of CONNECT_OPEN's flags; a server looks at no other


class SaslStart(NamedTuple):
    """Arguments of AUTH_SASL_START. None is a NULL, which in SASL is not the same as empty."""

    mechanism: str
    data: bytes | None

    def pack(self) -> bytes:
        return _write_token(Writer().string(self.mechanism), self.data).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "SaslStart":
        reader = Reader(payload)
        return cls(reader.string(), _read_token(reader))


class SaslReply(NamedTuple):
    """What AUTH_SASL_START and AUTH_SASL_STEP return."""

    complete: bool
    data: bytes | None

    def pack(self) -> bytes:
        return _write_token(Writer().i32(self.complete), self.data).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "SaslReply":
        reader = Reader(payload)
        return cls(reader.i32() != 0, _read_token(reader))


class OpenArguments(NamedTuple):
    """Arguments of CONNECT_OPEN. The flags are the remote driver's own, not virConnectFlags."""

    name: str | None
    flags: int

    def pack(self) -> bytes:
        return Writer().optional_string(self.name).u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "OpenArguments":
        reader = Reader(payload)
        return cls(reader.optional(reader.string), reader.u32())


def call(procedure: int, serial: int, payload: bytes = b"") -> Frame:
    """A call of the REMOTE program."""
    header = Header(Program.REMOTE, VERSION, procedure, FrameType.CALL, serial)
    return Frame(header, payload)


def reply(to: Header, payload: bytes = b"") -> Frame:
    """The reply that says OK."""
    return Frame(to.replied(Status.OK), payload)


def keepalive(procedure: Keepalive) -> Frame:
    return Frame(Header(Program.KEEPALIVE, VERSION, procedure, FrameType.MESSAGE, 0))


def is_keepalive(header: Header) -> bool:
    return (
        header.program == Program.KEEPALIVE
        and header.version == VERSION
        and header.type == FrameType.MESSAGE
    )


def pack_auth_methods(methods: list[int]) -> bytes:
    out = Writer().u32(len(methods))
    for method in methods:
        out.i32(method)
    return out.take()


def unpack_auth_methods(payload: bytes) -> list[int]:
    reader = Reader(payload)
    return reader.array(MAX_AUTH_METHODS, reader.i32)


def pack_int(value: int) -> bytes:
    """A lone 32-bit integer: a feature, whether it is supported, whether polkit is content."""
    return Writer().i32(value).take()


def unpack_int(payload: bytes) -> int:
    return Reader(payload).i32()


def pack_sasl_mechanisms(names: Sequence[str]) -> bytes:
    """What AUTH_SASL_INIT returns."""
    return Writer().string(",".join(names)).take()


def unpack_sasl_mechanisms(payload: bytes) -> list[str]:
    return [name for name in Reader(payload).string().split(",") if name]


def pack_sasl_step(data: bytes | None) -> bytes:
    """Arguments of AUTH_SASL_STEP."""
    return _write_token(Writer(), data).take()


def unpack_sasl_step(payload: bytes) -> bytes | None:
    return _read_token(Reader(payload))


def _write_token(out: Writer, data: bytes | None) -> Writer:
    return out.i32(data is None).chars(data or b"")


def _read_token(reader: Reader) -> bytes | None:
    """The bytes that come with a NULL count for nothing."""
    is_null = reader.i32() != 0
    data = reader.chars(MAX_SASL_DATA)
    return None if is_null else data


def pack_identity(params: list[Param]) -> bytes:
    """Arguments of CONNECT_SET_IDENTITY; its flags are always zero."""
    out = Writer()
    write_params(out, params)
    return out.u32(0).take()


def unpack_identity(payload: bytes) -> list[Param]:
    reader = Reader(payload)
    params = read_params(reader, MAX_IDENTITY_PARAMS)
    reader.u32()  # flags, which nobody looks at
    return params
