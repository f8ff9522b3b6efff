"""Typed parameters: named values with a type tag (docs/protocol/xdr.md, section 4)."""

from enum import IntEnum
from typing import Final, NamedTuple

from proxyd.wire.xdr import MalformedFrame, Reader, Writer

MAX_FIELD: Final = 79  # the C side keeps the name in a buffer of 80 with its NUL

Value = int | float | bool | str


class ParamType(IntEnum):
    INT = 1
    UINT = 2
    LLONG = 3
    ULLONG = 4
    DOUBLE = 5
    BOOLEAN = 6
    STRING = 7


class Param(NamedTuple):
    """One parameter. A value outside its type's range raises struct.error when it is written."""

    field: str
    type: ParamType
    value: Value


def write_params(out: Writer, params: list[Param]) -> None:
    out.u32(len(params))
    for param in params:
        out.string(param.field).i32(param.type)
        _write_value(out, param)


def read_params(reader: Reader, limit: int) -> list[Param]:
    """At most `limit` parameters, in wire order; duplicates and unknown names are the caller's."""
    return reader.array(limit, lambda: _read_param(reader))


def _read_param(reader: Reader) -> Param:
    field = reader.string()
    if len(field.encode("utf-8", "surrogateescape")) > MAX_FIELD:
        raise MalformedFrame(f"a parameter name of more than {MAX_FIELD} bytes")
    tag = reader.i32()
    try:
        kind = ParamType(tag)
    except ValueError:
        raise MalformedFrame(f"parameter type {tag} does not exist") from None
    return Param(field, kind, _read_value(reader, kind))


def _read_value(reader: Reader, kind: ParamType) -> Value:
    match kind:
        case ParamType.INT:
            return reader.i32()
        case ParamType.UINT:
            return reader.u32()
        case ParamType.LLONG:
            return reader.i64()
        case ParamType.ULLONG:
            return reader.u64()
        case ParamType.DOUBLE:
            return reader.double()
        case ParamType.BOOLEAN:
            return bool(reader.i32())
        case ParamType.STRING:
            return reader.string()


def _write_value(out: Writer, param: Param) -> None:
    value = param.value
    match param.type:
        case ParamType.STRING:
            out.string(str(value))
        case ParamType.DOUBLE:
            out.double(float(value))
        case ParamType.UINT:
            out.u32(int(value))
        case ParamType.LLONG:
            out.i64(int(value))
        case ParamType.ULLONG:
            out.u64(int(value))
        case ParamType.INT | ParamType.BOOLEAN:
            out.i32(int(value))
