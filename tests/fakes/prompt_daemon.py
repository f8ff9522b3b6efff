"""A daemon for thousands of connections: one epoll loop that answers every call at once.

`python -m tests.fakes.prompt_daemon PATH` serves until its stdin ends. A real daemon polls all its
connections and slows down by itself, so what a proxy adds beside thousands could not be seen.
"""

import select
import socket
import sys
from struct import Struct

from proxyd.wire.programs import Remote
from proxyd.wire.remote import pack_auth_methods

HEADER = Struct(">IIIIIII")
REPLY = 1
NO_PROOF = pack_auth_methods([0])


def answer(wire):
    """A reply to each whole call in these bytes. Calls here are never cut: they are small."""
    replies = []
    at = 0
    while at < len(wire):
        length, program, version, procedure, _, serial, _ = HEADER.unpack_from(wire, at)
        at += length
        payload = NO_PROOF if procedure == Remote.AUTH_LIST else b""
        replies.append(
            HEADER.pack(HEADER.size + len(payload), program, version, procedure, REPLY, serial, 0)
            + payload
        )
    return b"".join(replies)


def serve(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(4096)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    epoll.register(sys.stdin, select.EPOLLIN)
    clients = {}
    while True:
        for number, _ in epoll.poll():
            if number == sys.stdin.fileno():
                return
            if number == listener.fileno():
                client, _ = listener.accept()
                clients[client.fileno()] = client
                epoll.register(client, select.EPOLLIN)
                continue
            got = clients[number].recv(65536)
            if got:
                clients[number].sendall(answer(got))
            else:
                epoll.unregister(number)
                clients.pop(number).close()


if __name__ == "__main__":
    serve(sys.argv[1])
