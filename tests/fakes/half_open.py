"""Strangers of the network who keep so many TLS connections half open, from many addresses.

`python -m tests.fakes.half_open HOST PORT COUNT ADDRESS…` runs until its stdin ends. A third of
them says nothing, a third sends the beginning of a ClientHello, a third a whole one and then no
more. Whichever is closed is opened again at once. A line on stdout says that all have been begun.

They come from these addresses in turn.
"""

import contextlib
import resource
import select
import socket
import ssl
import sys

KINDS = 3


def client_hello():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


class Strangers:
    def __init__(self, where, addresses):
        hello = client_hello()
        self.where = where
        self.addresses = addresses
        self.words = [b"", hello[:100], hello]
        self.epoll = select.epoll()
        self.epoll.register(sys.stdin, select.EPOLLIN)
        self.connections = {}
        self.begun = self.closed = 0

    def begin(self, number):
        """Connects without waiting; what it has to say is said when it is connected."""
        sock = socket.socket()
        sock.setblocking(False)
        # The port is chosen when it connects: otherwise the few of one address would run out.
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        sock.bind((self.addresses[number % len(self.addresses)], 0))
        with contextlib.suppress(BlockingIOError):
            sock.connect(self.where)
        words = self.words[number % KINDS]
        wanted = (select.EPOLLOUT if words else 0) | select.EPOLLRDHUP
        self.epoll.register(sock, wanted)
        self.connections[sock.fileno()] = (sock, number, words)
        self.begun += 1

    def turn(self):
        """One look at all of them; false when it is over."""
        for descriptor, events in self.epoll.poll(1):
            if descriptor == sys.stdin.fileno():
                return False
            sock, number, words = self.connections[descriptor]
            if events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
                self.epoll.unregister(descriptor)
                del self.connections[descriptor]
                sock.close()
                self.closed += 1
                self.begin(number)
            elif events & select.EPOLLOUT:
                with contextlib.suppress(OSError):
                    sock.send(words)
                self.epoll.modify(descriptor, select.EPOLLRDHUP)
        return True


def main(host, port, count, *addresses):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    strangers = Strangers((host, int(port)), addresses)
    for number in range(int(count)):
        strangers.begin(number)
        if number % 100 == 0:
            strangers.epoll.poll(0, 1)
    print("begun", flush=True)
    while strangers.turn():
        pass
    print(strangers.begun, strangers.closed, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
