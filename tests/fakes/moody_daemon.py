"""A daemon in the test's own process that behaves as it is told, from one moment to the next.

It proves nothing, opens whatever it is asked to and answers every other call with the call's own
payload. A call of the procedure RESETS, which has a payload, is not answered but reset; one of the
procedure PLAYS is answered with what `script` holds, whatever that is.
"""

import os
import socket
import struct
import threading
from contextlib import suppress

from proxyd.wire import remote
from proxyd.wire.frame import HEADER, HEADER_SIZE, Header
from proxyd.wire.programs import AuthMethod, Remote

ECHOES = 3
RESETS = 4
PLAYS = 5
SET_UP = {
    Remote.AUTH_LIST: remote.pack_auth_methods([AuthMethod.NONE]),
    Remote.CONNECT_OPEN: b"",
    Remote.CONNECT_SET_IDENTITY: b"",
}


class MoodyDaemon:
    """One thread listens and one attends to each connection.

    `accepts` False: whoever connects is reset. `chunk` is the most that one send holds. With
    `late_s` each ordinary call is answered so long after it came.
    """

    def __init__(self, path):
        self.path = os.fspath(path)
        self.accepts = True
        self.chunk = 1 << 20
        self.late_s = 0
        self.script = b""
        self._listener = None
        self._threads = []
        self._sockets = []
        self._over = threading.Event()  # set when a wait is to end before its time

    def __enter__(self):
        self.rise()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.fall()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def rise(self):
        """Listens."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(100)
        self._start(self._listen, self._listener)

    def fall(self):
        """Nobody is there any more; who is connected stays so."""
        if self._listener is not None:
            os.unlink(self.path)
            self._listener.shutdown(socket.SHUT_RDWR)  # which ends an accept that waits
            self._listener = None

    def _start(self, work, sock):
        thread = threading.Thread(target=work, args=(sock,))
        self._threads.append(thread)
        thread.start()

    def _listen(self, listener):
        with listener, suppress(OSError):
            while True:
                sock, _ = listener.accept()
                self._sockets.append(sock)
                self._start(self._attend, sock)

    def _attend(self, sock):
        with sock, suppress(ConnectionError):
            if not self.accepts:
                sock.recv(1, socket.MSG_PEEK)
                return  # closed with something unread, which is a reset
            while len(wire := sock.recv(HEADER_SIZE, socket.MSG_WAITALL)) == HEADER_SIZE:
                header = Header(*HEADER.unpack(wire)[1:])
                if header.procedure == RESETS:
                    return  # with the payload unread
                size = struct.unpack_from(">I", wire)[0] - HEADER_SIZE
                payload = sock.recv(size, socket.MSG_WAITALL) if size else b""
                if len(payload) < size:
                    return  # cut off
                if header.procedure == PLAYS:
                    self._send(sock, self.script)
                elif header.procedure in SET_UP:
                    self._send(sock, remote.reply(header, SET_UP[header.procedure]).pack())
                else:
                    self._over.wait(self.late_s)
                    self._send(sock, remote.reply(header, payload).pack())

    def _send(self, sock, wire):
        for at in range(0, len(wire), self.chunk):
            sock.sendall(wire[at : at + self.chunk])
