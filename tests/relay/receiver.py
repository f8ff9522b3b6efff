"""A receiver as strict as libvirt: 4 bytes, then the rest, then one recvmsg a descriptor."""

import os
import socket
import struct

from proxyd.wire.frame import HEADER_SIZE, LENGTH_SIZE, MAX_DESCRIPTORS, MAX_FRAME, FrameType
from tests.relay.frames import Arrived

AT_ONCE = 1 << 20


class OutOfStep(Exception):
    """What arrived is no frame, or a descriptor is not where it was announced."""


class Receiver:
    """Takes whole frames from a socket without ever asking for a byte behind one."""

    def __init__(self, sock, carrier):
        sock.setblocking(False)
        self.sock = sock
        self.carrier = carrier
        self.arrived = []
        self.taken = 0
        self.ended = False
        self.reset = False
        self._held = bytearray()
        self._length = 0
        self._due = 0
        self._files = ()

    @classmethod
    def at_client(cls, sock):
        return cls(sock, FrameType.REPLY_WITH_FDS)

    @classmethod
    def at_daemon(cls, sock):
        return cls(sock, FrameType.CALL_WITH_FDS)

    @property
    def cut_off(self):
        """The bytes of a frame that is not complete."""
        return bytes(self._held)

    @property
    def wires(self):
        return [each.wire for each in self.arrived]

    @property
    def serials(self):
        return [each.serial for each in self.arrived]

    def take(self, limit=1 << 62):
        """Takes what is there, at most about `limit` bytes; nothing once its socket is closed."""
        if self.sock.fileno() == -1:
            return
        stop = self.taken + limit
        while self.taken < stop and not (self.ended or self.reset) and self._step(stop):
            pass

    def _step(self, stop):
        try:
            return self._take_descriptor() if self._due else self._take_bytes(stop)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            self.reset = True
            return False

    def _take_bytes(self, stop):
        wanted = (self._length or LENGTH_SIZE) - len(self._held)
        got = self.sock.recv(min(wanted, AT_ONCE, stop - self.taken))
        if not got:
            self.ended = True
            return False
        self._held += got
        self.taken += len(got)
        if len(self._held) == LENGTH_SIZE:
            self._length = struct.unpack(">I", self._held)[0]
            if not HEADER_SIZE <= self._length <= MAX_FRAME:
                raise OutOfStep(f"length {self._length}")
        elif len(self._held) == self._length:
            self._whole()
        return True

    def _whole(self):
        wire = bytes(self._held)
        if Arrived(wire).header.type == self.carrier:
            (self._due,) = struct.unpack_from(">I", wire, HEADER_SIZE)
            if self._due > MAX_DESCRIPTORS:
                raise OutOfStep(f"{self._due} descriptors")
        if not self._due:
            self._finish()

    def _take_descriptor(self):
        content, descriptors, _, _ = socket.recv_fds(self.sock, 1, 1)
        if not content:
            self.ended = True
            return False
        self.taken += 1
        if content != b"\0" or len(descriptors) != 1:
            for each in descriptors:
                os.close(each)
            raise OutOfStep(f"{content!r} with {len(descriptors)} descriptors")
        self._files += (os.fstat(descriptors[0]).st_ino,)
        os.close(descriptors[0])
        self._due -= 1
        if not self._due:
            self._finish()
        return True

    def _finish(self):
        self.arrived.append(Arrived(bytes(self._held), self._files))
        self._held.clear()
        self._length, self._files = 0, ()
