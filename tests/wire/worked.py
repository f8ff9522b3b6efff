"""Frames whose bytes are known, most of them taken from a real client.

Source: docs/protocol/worked-frames.md.
"""

from dataclasses import dataclass

from proxyd.wire import failure, remote
from proxyd.wire.frame import Frame, FrameType, Header, Status
from proxyd.wire.params import Param, ParamType
from proxyd.wire.programs import VERSION, AuthMethod, Feature, Keepalive, Program, Remote
from proxyd.wire.xdr import Writer

DOMAIN_OPEN_GRAPHICS_FD = 343
STORAGE_VOL_DOWNLOAD = 209
EVENT_CONNECTION_CLOSED = 362
ADMIN_LIST_SERVERS = 4

FRED = [
    Param("user-name", ParamType.STRING, "fred"),
    Param("unix-user-id", ParamType.ULLONG, 1000),
    Param("group-name", ParamType.STRING, "fred"),
    Param("unix-group-id", ParamType.ULLONG, 1000),
    Param("process-id", ParamType.LLONG, 4242),
    Param("process-time", ParamType.ULLONG, 123456),
]


@dataclass(frozen=True, slots=True)
class Worked:
    name: str
    wire: bytes
    frame: Frame

    def __str__(self):
        return self.name


def call_header(procedure, serial, program=Program.REMOTE):
    return Header(program, VERSION, procedure, FrameType.CALL, serial)


def stream(status, payload=b""):
    header = Header(Program.REMOTE, VERSION, STORAGE_VOL_DOWNLOAD, FrameType.STREAM, 12, status)
    return Frame(header, payload)


def _worked(name, groups, frame):
    return Worked(name, bytes.fromhex(groups), frame)


_OPEN = call_header(Remote.CONNECT_OPEN, 2)
_ADMIN = call_header(ADMIN_LIST_SERVERS, 1, Program.ADMIN)

WORKED = (
    _worked(
        "AUTH_LIST call",
        "0000001c 20008086 00000001 00000042 00000000 00000000 00000000",
        remote.call(Remote.AUTH_LIST, 0),
    ),
    _worked(
        "AUTH_LIST reply",
        "00000024 20008086 00000001 00000042 00000001 00000000 00000000 00000001 00000000",
        remote.reply(call_header(Remote.AUTH_LIST, 0), remote.pack_auth_methods([AuthMethod.NONE])),
    ),
    _worked(
        "SUPPORTS_FEATURE call",
        "00000020 20008086 00000001 0000003c 00000000 00000001 00000000 0000000a",
        remote.call(Remote.CONNECT_SUPPORTS_FEATURE, 1, remote.pack_int(Feature.PROGRAM_KEEPALIVE)),
    ),
    _worked(
        "SUPPORTS_FEATURE reply",
        "00000020 20008086 00000001 0000003c 00000001 00000001 00000000 00000001",
        remote.reply(call_header(Remote.CONNECT_SUPPORTS_FEATURE, 1), remote.pack_int(1)),
    ),
    _worked(
        "OPEN call",
        """00000038 20008086 00000001 00000001 00000000 00000002 00000000
           00000001 0000000e 71656d75 3a2f2f2f 73797374 656d0000 00000000""",
        remote.call(Remote.CONNECT_OPEN, 2, remote.OpenArguments("qemu:///system", 0).pack()),
    ),
    _worked(
        "OPEN reply",
        "0000001c 20008086 00000001 00000001 00000001 00000002 00000000",
        remote.reply(_OPEN),
    ),
    _worked(
        "authentication required",
        """00000088 20008086 00000001 00000001 00000001 00000002 00000001
           00000027 00000007
           00000001 00000017 61757468 656e7469 63617469 6f6e2072 65717569 72656400
           00000002 00000000
           00000001 00000002 25730000
           00000001 00000017 61757468 656e7469 63617469 6f6e2072 65717569 72656400
           00000000 ffffffff ffffffff 00000000""",
        failure.authentication_required().reply_to(_OPEN),
    ),
    _worked(
        "SASL failure",
        """000000b4 20008086 00000001 00000044 00000001 00000002 00000001
           0000002d 00000007 00000001 0000002c 61757468 656e7469 63617469 6f6e2066 61696c65
           643a2061 75746865 6e746963 6174696f 6e206661 696c6564 00000002 00000000
           00000001 0000001b 61757468 656e7469 63617469 6f6e2066 61696c65 643a2025 31247300
           00000001 00000015 61757468 656e7469 63617469 6f6e2066 61696c65 64000000
           00000000 ffffffff ffffffff 00000000""",
        failure.authentication_failed().reply_to(call_header(Remote.AUTH_SASL_START, 2)),
    ),
    _worked(
        "PING",
        "0000001c 6b656570 00000001 00000001 00000002 00000000 00000000",
        remote.keepalive(Keepalive.PING),
    ),
    _worked(
        "PONG",
        "0000001c 6b656570 00000001 00000002 00000002 00000000 00000000",
        remote.keepalive(Keepalive.PONG),
    ),
    _worked(
        "SET_IDENTITY call",
        """000000d0 20008086 00000001 000001a3 00000000 00000004 00000000
           00000006
           00000009 75736572 2d6e616d 65000000 00000007 00000004 66726564
           0000000c 756e6978 2d757365 722d6964 00000004 00000000 000003e8
           0000000a 67726f75 702d6e61 6d650000 00000007 00000004 66726564
           0000000d 756e6978 2d67726f 75702d69 64000000 00000004 00000000 000003e8
           0000000a 70726f63 6573732d 69640000 00000003 00000000 00001092
           0000000c 70726f63 6573732d 74696d65 00000004 00000000 0001e240
           00000000""",
        remote.call(Remote.CONNECT_SET_IDENTITY, 4, remote.pack_identity(FRED)),
    ),
    _worked(
        "SASL_START call",
        """0000003c 20008086 00000001 00000044 00000000 00000002 00000000
           00000006 47535341 50490000 00000000 00000003 00000060 ffffff82 00000001""",
        remote.call(
            Remote.AUTH_SASL_START,
            2,
            Writer().string("GSSAPI").i32(0).chars(b"\x60\x82\x01").take(),
        ),
    ),
    _worked(
        "SASL_STEP reply",
        "00000028 20008086 00000001 00000045 00000001 00000004 00000000 00000001 00000001 00000000",
        remote.reply(
            call_header(Remote.AUTH_SASL_STEP, 4), Writer().i32(1).i32(1).chars(b"").take()
        ),
    ),
    _worked(
        "a reply with a descriptor",
        "00000020 20008086 00000001 00000157 00000005 00000009 00000000 00000001",
        Frame(
            Header(Program.REMOTE, VERSION, DOMAIN_OPEN_GRAPHICS_FD, FrameType.REPLY_WITH_FDS, 9),
            Writer().u32(1).take(),
        ),
    ),
    _worked(
        "stream data, unpadded",
        """00000021 20008086 00000001 000000d1 00000003 0000000c 00000002
           68656c6c 6f""",
        stream(Status.CONTINUE, b"hello"),
    ),
    _worked(
        "stream end of data",
        "0000001c 20008086 00000001 000000d1 00000003 0000000c 00000002",
        stream(Status.CONTINUE),
    ),
    _worked(
        "stream finish",
        "0000001c 20008086 00000001 000000d1 00000003 0000000c 00000000",
        stream(Status.OK),
    ),
    _worked(
        "event CONNECTION_CLOSED",
        "00000020 20008086 00000001 0000016a 00000002 00000001 00000000 00000001",
        Frame(
            Header(Program.REMOTE, VERSION, EVENT_CONNECTION_CLOSED, FrameType.MESSAGE, 1),
            remote.pack_int(1),
        ),
    ),
    _worked(
        "admin LIST_SERVERS call",
        "00000024 06900690 00000001 00000004 00000000 00000001 00000000 00000001 00000000",
        Frame(_ADMIN, Writer().u32(1).u32(0).take()),
    ),
    _worked(
        "admin LIST_SERVERS reply",
        """00000040 06900690 00000001 00000004 00000001 00000001 00000000
           00000002 0000000a 76697274 70726f78 79640000 00000005 61646d69 6e000000 00000002""",
        remote.reply(_ADMIN, Writer().u32(2).string("virtproxyd").string("admin").u32(2).take()),
    ),
)
BY_NAME = {worked.name: worked for worked in WORKED}
