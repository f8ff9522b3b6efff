"""A daemon for thousands of connections: one epoll loop that answers every call at once.

`python -m tests.fakes.prompt_daemon PATH` serves until its stdin ends. A real daemon polls all its
connections and slows down by itself, so what a proxy adds beside thousands could not be seen.

A call of the procedure HELD is answered when a line comes on stdin, and not before.
"""

import os
import select
import socket
import sys
from struct import Struct

from proxyd.wire.programs import Remote
from proxyd.wire.remote import pack_auth_methods

HEADER = Struct(">IIIIIII")
REPLY = 1
HELD = 60000
NO_PROOF = pack_auth_methods([0])


def answers(wire):
    """A reply to each whole call in these bytes, now and later. No call here is ever cut: small."""
    now, later = [], []
    at = 0
    while at < len(wire):
        length, program, version, procedure, _, serial, _ = HEADER.unpack_from(wire, at)
        at += length
        payload = NO_PROOF if procedure == Remote.AUTH_LIST else b""
        size = HEADER.size + len(payload)
        reply = HEADER.pack(size, program, version, procedure, REPLY, serial, 0) + payload
        (later if procedure == HELD else now).append(reply)
    return b"".join(now), b"".join(later)


def serve(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(4096)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    epoll.register(sys.stdin, select.EPOLLIN)
    clients = {}
    held = []
    while True:
        for number, _ in epoll.poll():
            if number == sys.stdin.fileno():
                if not os.read(number, 1):
                    return
                for client, reply in held:
                    client.sendall(reply)
                held.clear()
                continue
            if number == listener.fileno():
                client, _ = listener.accept()
                clients[client.fileno()] = client
                epoll.register(client, select.EPOLLIN)
                continue
            try:
                got = clients[number].recv(65536)
                now, later = answers(got)
                clients[number].sendall(now)
            except (BrokenPipeError, ConnectionResetError):
                got = b""
            if got:
                if later:
                    held.append((clients[number], later))
            else:
                epoll.unregister(number)
                clients.pop(number).close()


if __name__ == "__main__":
    serve(sys.argv[1])
