"""A daemon that never says what it was asked for, and goes on saying something else.

`python -m tests.fakes.pelting_daemon PATH events` sends events as fast as they are taken as soon as
somebody connects; with `descriptors` in place of `events`, the bytes of one long event, each in a
message of its own with as many descriptors as a message may carry. It serves until its stdin ends.
"""

import os
import select
import socket
import sys
from contextlib import suppress

from proxyd.wire.frame import Frame, FrameType, Header
from proxyd.wire.programs import VERSION, Program

EVENT_LIFECYCLE = 318
MOST_DESCRIPTORS = 253


def event(size):
    return Frame(
        Header(Program.REMOTE, VERSION, EVENT_LIFECYCLE, FrameType.MESSAGE, 0), bytes(size)
    ).pack()


def serve(path, what):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(4096)
    listener.setblocking(False)
    stream = event(100) * 400 if what == "events" else event(4096)
    null = os.open(os.devnull, os.O_RDONLY)
    passed = [null] * MOST_DESCRIPTORS
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(sys.stdin, select.EPOLLIN)
    connections = {}
    while True:
        for number, _ in poll.poll():
            if number == sys.stdin.fileno():
                return
            if number == listener.fileno():
                with suppress(BlockingIOError):
                    sock, _ = listener.accept()
                    sock.setblocking(False)
                    connections[sock.fileno()] = [sock, 0]
                    poll.register(sock, select.EPOLLOUT)
                continue
            connection = connections[number]
            sock, at = connection
            try:
                if what == "events":
                    connection[1] = (at + sock.send(stream[at:])) % len(stream)
                else:
                    socket.send_fds(sock, [stream[at : at + 1]], passed)
                    connection[1] = (at + 1) % len(stream)
            except BlockingIOError:
                pass
            except OSError as error:
                if isinstance(error, ConnectionError):
                    poll.unregister(number)
                    del connections[number]
                    sock.close()


if __name__ == "__main__":
    serve(*sys.argv[1:])
