"""Listening sockets that belong to another process, as far as the kernel tells a client.

SO_PEERCRED names the process that called listen(). A daemon played inside the test's own process
would therefore look like a route that leads back to proxyd; so another process calls listen() and
hands the socket over.
"""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager

LISTENER = """
import os, socket, sys
control = socket.socket(fileno=int(sys.argv[1]))
while path := control.recv(4096):
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(int(control.recv(100)))
    socket.send_fds(control, [b"."], [listening.fileno()])
    listening.close()
"""


class Elsewhere:
    """The other process. `pid` is what a client sees."""

    def __init__(self, process, control):
        self.pid = process.pid
        self._control = control

    def listen(self, path, backlog=100):
        """A listening socket, non-blocking; the caller closes it."""
        self._control.send(os.fsencode(path))
        self._control.send(str(backlog).encode())
        _, (descriptor,), _, _ = socket.recv_fds(self._control, 1, 1)
        listening = socket.socket(fileno=descriptor)
        listening.setblocking(False)
        return listening


@contextmanager
def elsewhere():
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near:
        with far:
            command = [sys.executable, "-S", "-c", LISTENER, str(far.fileno())]
            process = subprocess.Popen(command, pass_fds=[far.fileno()])
        with process:
            yield Elsewhere(process, near)
            near.shutdown(socket.SHUT_RDWR)
