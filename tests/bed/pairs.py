"""Connected sockets, and what comes out of an endpoint of theirs."""

import socket
import time


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


def take_all(sock, size):
    received = bytearray()
    sock.settimeout(5)
    while len(received) < size:
        more = sock.recv(1 << 20)
        assert more, "it ended too early"
        received += more
    return bytes(received)


TIMEOUT_S = 3


def closes(sock):
    """Takes what comes until the other side closes; how long that took."""
    began = time.monotonic()
    sock.settimeout(3 * TIMEOUT_S)
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass  # it closed with something of ours unread
    return time.monotonic() - began
