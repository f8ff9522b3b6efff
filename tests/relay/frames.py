"""Frames for the relay's tests, ready for the wire."""

import random
import socket
from dataclasses import dataclass

from proxyd.wire import params, remote
from proxyd.wire.frame import HEADER, HEADER_SIZE, Frame, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Program, Remote
from proxyd.wire.xdr import Writer

NODE_GET_INFO = 6
VOL_DOWNLOAD = 209
DOMAIN_OPEN_GRAPHICS_FD = 343

IDENTITY = [params.Param("unix-user-id", params.ParamType.ULLONG, 0)]


def frame(
    kind=FrameType.CALL,
    serial=1,
    payload=b"",
    *,
    procedure=NODE_GET_INFO,
    program=Program.REMOTE,
    status=Status.OK,
):
    return Frame(Header(program, VERSION, procedure, kind, serial, status), payload).pack()


def call(serial=1, payload=b"", **header):
    return frame(FrameType.CALL, serial, payload, **header)


def reply(serial=1, payload=b"", **header):
    return frame(FrameType.REPLY, serial, payload, **header)


def noise(size, seed=0):
    """The same bytes for the same seed; no span of them looks like another."""
    return random.Random(seed).randbytes(size)


def packet(size, serial=1):
    """A stream packet of `size` bytes, its header included."""
    return frame(
        FrameType.STREAM,
        serial,
        noise(size - HEADER_SIZE, serial),
        procedure=VOL_DOWNLOAD,
        status=Status.CONTINUE,
    )


def counted(kind, descriptors, serial=1, payload=b"", **header):
    """A frame that announces descriptors; they are sent apart."""
    return frame(kind, serial, Writer().u32(descriptors).take() + payload, **header)


def call_with_descriptors(descriptors, serial=1, payload=b"", **header):
    return counted(FrameType.CALL_WITH_FDS, descriptors, serial, payload, **header)


def reply_with_descriptors(descriptors, serial=1, payload=b"", **header):
    return counted(FrameType.REPLY_WITH_FDS, descriptors, serial, payload, **header)


def set_identity(serial=1, *, size=None):
    """The call that the relay takes out."""
    payload = remote.pack_identity(IDENTITY)
    if size is not None:
        payload = payload.ljust(size - HEADER_SIZE, b"\0")
    return call(serial, payload, procedure=Remote.CONNECT_SET_IDENTITY)


def set_identity_with_descriptors(descriptors, serial=1):
    payload = remote.pack_identity(IDENTITY)
    return call_with_descriptors(
        descriptors, serial, payload, procedure=Remote.CONNECT_SET_IDENTITY
    )


def second_open(serial=1, kind=FrameType.CALL, status=Status.OK):
    """The other call that the relay takes out, with the name that would do the most harm."""
    payload = remote.OpenArguments("qemu+ssh://x/system?command=/bin/false", 0).pack()
    if kind == FrameType.CALL_WITH_FDS:
        payload = Writer().u32(0).take() + payload
    return frame(kind, serial, payload, procedure=Remote.CONNECT_OPEN, status=status)


def send_descriptor(sock, descriptor, content=b"\0"):
    """As libvirt does: one byte, one descriptor, one sendmsg."""
    assert socket.send_fds(sock, [content], [descriptor]) == len(content)


@dataclass(frozen=True)
class Arrived:
    """A frame as a receiver got it, and which files came behind it."""

    wire: bytes
    files: tuple = ()

    @property
    def header(self):
        return Header(*HEADER.unpack_from(self.wire)[1:])

    @property
    def serial(self):
        return self.header.serial
