"""A client that speaks frames itself, for what no real client would do."""

import array
import os
import select
import socket
import ssl
import struct
from contextlib import contextmanager, nullcontext

from proxyd.wire import remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import Frame, FrameBuffer, FrameType, Status
from proxyd.wire.programs import Remote
from proxyd.wire.remote import OpenArguments
from tests.bed.command import effective
from tests.bed.libvirt_reader import LibvirtReader

DEADLINE_S = 30


class RpcClient:
    """Blocking, with a deadline on every wait. Serials count from zero.

    `where` is a UNIX socket's path, to be connected to as `user`, or a connected socket, or what
    behaves like one. Over TLS it reads as libvirt does, and no record may hold bytes of two frames.
    """

    def __init__(self, where, *, user=0):
        if hasattr(where, "recv"):
            self.sock = where
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            # Blocking: one with a timeout fails at a full backlog instead of waiting its turn.
            with effective(user, user) if user else nullcontext():
                self.sock.connect(os.fspath(where))
        self.sock.settimeout(DEADLINE_S)
        self.buffer = FrameBuffer()
        self.reader = LibvirtReader(self.sock) if isinstance(self.sock, ssl.SSLSocket) else None
        self.serial = -1
        self.ahead = []

    def close(self):
        self.sock.close()

    def frame(self, procedure, payload=b""):
        """A call with the next serial, packed."""
        self.serial += 1
        return remote.call(procedure, self.serial, payload).pack()

    def send(self, wire):
        self.sock.sendall(wire)

    def receive(self) -> Frame | None:
        """The next frame, or None at the end."""
        return self.ahead.pop(0) if self.ahead else self._receive()

    def _receive(self):
        if self.reader is not None:
            return self._read_as_libvirt(self.reader)
        while (frame := self.buffer.next_frame()) is None:
            try:
                got = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not got:
                return None
            self.buffer.feed(got)
        return frame

    def _read_as_libvirt(self, reader):
        frame = reader.take(DEADLINE_S)
        if frame is None and not reader.ended:
            raise TimeoutError(f"no frame within {DEADLINE_S} s; {len(reader.held)} bytes of one")
        return frame

    def call(self, procedure, payload=b""):
        """Its answer. A stream's packets are sent by another thread of the daemon's, which may
        come first: what is ahead of the answer is the next to be received.
        """
        self.send(self.frame(procedure, payload))
        passed = []
        while (frame := self.receive()) is not None and self._is_packet_of_it(frame.header):
            passed.append(frame)
        self.ahead = passed + self.ahead
        return frame

    def _is_packet_of_it(self, header):
        return header.type == FrameType.STREAM and header.serial == self.serial

    def open(self, uri, flags=0):
        self.call(Remote.AUTH_LIST)
        return self.call(Remote.CONNECT_OPEN, OpenArguments(uri, flags).pack())

    def ended(self):
        """Whether the other side has closed."""
        readable = select.select([self.sock], [], [], DEADLINE_S)[0]
        return bool(readable) and self.receive() is None


@contextmanager
def rpc_client(path, **options):
    client = RpcClient(path, **options)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def opened(path, uri="test:///default", **options):
    with rpc_client(path, **options) as client:
        reply = client.open(uri)
        assert reply is not None
        assert reply.header.status == Status.OK, Failure.unpack(reply.payload)
        yield client


def send_descriptor(sock, descriptor):
    """One NUL with one descriptor, as libvirt sends it behind a frame."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
    sock.sendmsg([b"\0"], [rights])


def reset(sock):
    """Makes the close a reset where the transport knows one."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
