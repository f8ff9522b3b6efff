"""A socket whose close waits."""

import socket
import struct
from contextlib import suppress

LINGERS_S = 4


def lingering():
    """A TCP socket that nobody reads: its last close waits for as long as it says.

    Returns the one that does not read, and the socket.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        reader, _ = listener.accept()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, LINGERS_S))
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536))
    sock.setblocking(True)
    return reader, sock
