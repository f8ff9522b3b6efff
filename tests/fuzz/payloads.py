"""Every payload that proxyd decodes: it decodes, and then reads the same after being written
again, or it is malformed."""

from collections.abc import Callable
from dataclasses import dataclass

from proxyd.wire import adminrpc, proxyd_program, remote
from proxyd.wire.failure import Failure
from proxyd.wire.params import read_params, write_params
from proxyd.wire.xdr import MalformedFrame, Reader, Writer

WORDS = (b"\0\0\0\1", b"\0\0\0\7", b"\0\0\0\4abc\0", b"\0\1\0\0", b"\0\1\0\1", b"\xff\xff\xff\xff")
MOST_PARAMS = 64


@dataclass(frozen=True)
class Codec:
    unpack: Callable
    pack: Callable


def of_class(kind):
    return Codec(kind.unpack, kind.pack)


def unpack_params(payload):
    return read_params(Reader(payload), MOST_PARAMS)


def pack_params(params):
    out = Writer()
    write_params(out, params)
    return out.take()


def unpack_primitives(payload):
    reader = Reader(payload)
    return (
        reader.u64(),
        reader.i64(),
        reader.u32(),
        reader.i32(),
        reader.fixed_opaque(3),
        reader.opaque(10),
        reader.chars(10),
        reader.string(10),
        reader.optional(reader.string),
    )


def pack_primitives(values):
    u64, i64, u32, i32, fixed, opaque, chars, string, optional = values
    out = Writer().u64(u64).i64(i64).u32(u32).i32(i32).fixed_opaque(fixed).opaque(opaque)
    return out.chars(chars).string(string).optional_string(optional).take()


CODECS = (
    Codec(unpack_primitives, pack_primitives),
    Codec(unpack_params, pack_params),
    of_class(Failure),
    of_class(remote.SaslStart),
    of_class(remote.SaslReply),
    of_class(remote.OpenArguments),
    Codec(remote.unpack_auth_methods, remote.pack_auth_methods),
    Codec(remote.unpack_int, remote.pack_int),
    Codec(remote.unpack_sasl_mechanisms, remote.pack_sasl_mechanisms),
    Codec(remote.unpack_sasl_step, remote.pack_sasl_step),
    Codec(remote.unpack_identity, remote.pack_identity),
    of_class(adminrpc.Flags),
    of_class(adminrpc.ListServers),
    of_class(adminrpc.OfServer),
    of_class(adminrpc.SetParams),
    of_class(adminrpc.ListClients),
    of_class(adminrpc.LookUpClient),
    of_class(adminrpc.ClientEntry),
    of_class(adminrpc.OfClient),
    of_class(adminrpc.SetLogging),
    of_class(adminrpc.SetTimeout),
    of_class(adminrpc.ServerList),
    of_class(adminrpc.ClientList),
    Codec(adminrpc.unpack_outputs, lambda both: adminrpc.pack_outputs(*both)),
    Codec(adminrpc.unpack_filters, lambda both: adminrpc.pack_filters(*both)),
    Codec(adminrpc.unpack_version, adminrpc.pack_version),
    of_class(proxyd_program.AskStatus),
    of_class(proxyd_program.AskPage),
    Codec(proxyd_program.unpack_number, proxyd_program.pack_number),
    Codec(proxyd_program.unpack_text, proxyd_program.pack_text),
)


def one_input(data):
    if not data:
        return
    codec = CODECS[data[0] % len(CODECS)]
    try:
        value = codec.unpack(data[1:])
    except MalformedFrame:
        return
    wire = codec.pack(value)
    # As bytes: a NaN is not equal to itself.
    assert codec.pack(codec.unpack(wire)) == wire
