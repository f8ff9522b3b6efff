"""A daemon in the test's own process that keeps every frame that reaches it, and answers calls.

What opens a session, by proxyd's own calls, is answered and not kept. Every other call gets a reply
that says which one it was; nothing else is answered.
"""

import hashlib
import os
import socket
import threading
from contextlib import suppress

from proxyd.wire import remote
from proxyd.wire.frame import Frame, FrameBuffer, FrameType
from proxyd.wire.programs import AuthMethod, Remote

ANSWERS = {
    Remote.AUTH_LIST: remote.pack_auth_methods([AuthMethod.NONE]),
    Remote.CONNECT_OPEN: b"",
    Remote.CONNECT_SET_IDENTITY: b"",
}
CALLS = (FrameType.CALL, FrameType.CALL_WITH_FDS)


class OutOfStep(Exception):
    """Where a descriptor should be there is none."""


def answer(frame: Frame) -> Frame:
    """What a call is answered with, of a length that depends on all of it."""
    digest = hashlib.sha256(frame.pack()).digest()
    return remote.reply(frame.header, digest * (digest[0] % 20))


class Connection:
    """`arrived`: frames with the inodes of the files behind each; `failure` why it ended early."""

    def __init__(self, sock):
        self.sock = sock
        self.arrived = []
        self.failure = None
        self.thread = threading.Thread(target=self._attend)

    def _attend(self):
        try:
            with self.sock, suppress(ConnectionError):
                self._set_up()
                while (frame := self._receive()) is not None:
                    self.arrived.append((frame.pack(), self._files(frame)))
                    if frame.header.type in CALLS:
                        self.sock.sendall(answer(frame).pack())
        except Exception as failure:  # noqa: BLE001 (the test looks at it)
            self.failure = failure

    def _set_up(self):
        missing = set(ANSWERS)
        while missing:
            frame = self._receive()
            if frame is None:
                raise ConnectionError("ended before it was open")
            procedure = Remote(frame.header.procedure)
            missing.discard(procedure)
            self.sock.sendall(remote.reply(frame.header, ANSWERS[procedure]).pack())

    def _receive(self):
        """Never takes a byte behind the frame."""
        buffer = FrameBuffer()
        while (frame := buffer.next_frame()) is None:
            got = self.sock.recv(buffer.wanted)
            if not got:
                return None
            buffer.feed(got)
        return frame

    def _files(self, frame):
        if frame.header.type != FrameType.CALL_WITH_FDS:
            return ()
        found = ()
        for _ in range(int.from_bytes(frame.payload[:4], "big")):
            content, descriptors, _, _ = socket.recv_fds(self.sock, 1, 2)
            for each in descriptors:
                found += (os.fstat(each).st_ino,)
                os.close(each)
            if content != b"\0" or len(descriptors) != 1:
                raise OutOfStep(f"{content!r} with {len(descriptors)} descriptors")
        return found


class RecordingDaemon:
    """Listens at a path while the block lasts."""

    def __init__(self, path):
        self.path = os.fspath(path)
        self.connections = []

    def __enter__(self):
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(100)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in self.connections:
            with suppress(OSError):
                each.sock.shutdown(socket.SHUT_RDWR)
            each.thread.join()

    def _listen(self):
        with self._listener, suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections.append(Connection(sock))
                self.connections[-1].thread.start()  # from here on its client may look for it
