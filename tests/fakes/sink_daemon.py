"""A daemon that opens whatever it is asked to and from then on swallows what comes.

`python -m tests.fakes.sink_daemon PATH` serves until its stdin ends; `PATH deaf` reads nothing of
what it should swallow. It stands in two places:
behind proxyd, so that no hypervisor has a part in what an attack does, and in proxyd's place, to
see what an attacker's own work does to a machine.

Descriptors are left to the kernel, as libvirt's own receives leave them.
"""

import os
import select
import socket
import sys
from contextlib import suppress

from proxyd.wire import remote
from proxyd.wire.frame import FrameBuffer, FrameType
from proxyd.wire.programs import AuthMethod, Program, Remote
from proxyd.wire.xdr import MalformedFrame, Writer

ANSWERS = {
    Remote.AUTH_LIST: remote.pack_auth_methods([AuthMethod.NONE]),
    Remote.CONNECT_OPEN: b"",
    Remote.CONNECT_SUPPORTS_FEATURE: Writer().u32(0).take(),
    Remote.CONNECT_SET_IDENTITY: b"",
}


class Connection:
    """Answers what a session begins with; the first frame that is nothing of that ends it."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = FrameBuffer()
        self.swallows = False
        self.answered = set()

    def take(self):
        """False when the other side has gone."""
        received = self.sock.recv(65536)
        if received and not self.swallows:
            self.buffer.feed(received)
            with suppress(MalformedFrame):
                while not self.swallows and (frame := self.buffer.next_frame()) is not None:
                    self._answer(frame)
        return bool(received)

    @property
    def is_opened(self):
        return self.answered >= {Remote.CONNECT_OPEN, Remote.CONNECT_SET_IDENTITY}

    def _answer(self, frame):
        header = frame.header
        if (header.program, header.type) == (Program.REMOTE, FrameType.CALL):
            answer = ANSWERS.get(header.procedure)
            if answer is not None:
                self.sock.send(remote.reply(header, answer).pack())
                self.answered.add(header.procedure)
                return
        self.swallows = True
        self.buffer = FrameBuffer()


def serve(path, *how):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o777)
    listener.listen(4096)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    epoll.register(sys.stdin, select.EPOLLIN)
    connections = {}
    while True:
        for number, _ in epoll.poll():
            if number == sys.stdin.fileno():
                return
            if number == listener.fileno():
                with suppress(BlockingIOError):
                    sock, _ = listener.accept()
                    sock.setblocking(False)
                    connections[sock.fileno()] = Connection(sock)
                    epoll.register(sock, select.EPOLLIN)
                continue
            goes_on = False
            with suppress(ConnectionError):
                goes_on = connections[number].take()
            if goes_on and how and connections[number].is_opened:
                epoll.unregister(number)
            elif not goes_on:
                epoll.unregister(number)
                connections.pop(number).sock.close()


if __name__ == "__main__":
    serve(*sys.argv[1:])
