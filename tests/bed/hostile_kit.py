"""What a hostile user's script is made of: frames, descriptors, sockets; nothing but Python's own.

It is copied to where that user can read it and runs under the distribution's interpreter, so it
imports nothing of the project. What it says goes to the test as one JSON value a line.
"""

import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
from array import array
from contextlib import suppress

HEADER = struct.Struct(">IIIiiIi")
REMOTE, KEEPALIVE, VERSION = 0x20008086, 0x6B656570, 1
CALL, REPLY, MESSAGE, STREAM, CALL_WITH_FDS, REPLY_WITH_FDS, STREAM_HOLE = range(7)
OK, ERROR, CONTINUE = range(3)
CONNECT_OPEN, CONNECT_GET_LIB_VERSION, AUTH_LIST, SET_IDENTITY = 1, 157, 66, 419
VOL_UPLOAD = 208
READONLY = 1
PATIENCE_S = 20
PR_SET_PDEATHSIG = 1
MOST_DESCRIPTORS = 253  # of one message: SCM_MAX_FD


def die_with_the_test():
    """SIGKILL when the test's thread ends, however that comes, and although we may be stopped.

    To be called again after a change of credentials, and in children.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


die_with_the_test()


def say(value):
    """One line for the test."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def hear():
    """The next value from the test; when it has gone, this process goes too."""
    line = sys.stdin.readline()
    if not line:
        os._exit(0)
    return json.loads(line)


def get_ready():
    """Everything is in place; returns when the test says go."""
    say("ready")
    hear()


def frame(
    procedure,
    payload=b"",
    *,
    kind=CALL,
    serial=0,
    status=OK,
    program=REMOTE,
    version=VERSION,
    length=None,
):
    """Packed. `length` is what it says of itself, if that is to be another than the true one."""
    length = HEADER.size + len(payload) if length is None else length
    return HEADER.pack(length, program, version, procedure, kind, serial, status) + payload


def string(text):
    data = text.encode()
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def opening(uri, flags=0):
    """What CONNECT_OPEN carries."""
    return struct.pack(">I", 1) + string(uri) + struct.pack(">I", flags)


def ping(kind=1):
    return frame(kind, kind=MESSAGE, program=KEEPALIVE)


def connected(path):
    sock = socket.socket(socket.AF_UNIX)
    # Of a blocking socket, which waits its turn where the backlog is full.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", PATIENCE_S, 0))
    sock.connect(path)
    sock.settimeout(PATIENCE_S)
    return sock


def exactly(sock, count):
    """So many bytes; ConnectionError when fewer come."""
    got = bytearray()
    while len(got) < count:
        more = sock.recv(count - len(got))
        if not more:
            raise ConnectionError("closed")
        got += more
    return bytes(got)


def receive(sock):
    """The next frame: its seven header words and its payload."""
    fields = HEADER.unpack(exactly(sock, HEADER.size))
    return fields, exactly(sock, fields[0] - HEADER.size)


def open_session(path, uri="test:///default", flags=None):
    """A connected socket whose session is open; at a read-only address it says that it is one."""
    if flags is None:
        flags = READONLY if path.endswith("-ro") else 0
    sock = connected(path)
    for serial, (procedure, payload) in enumerate(
        ((AUTH_LIST, b""), (CONNECT_OPEN, opening(uri, flags)))
    ):
        sock.sendall(frame(procedure, payload, serial=serial))
        fields, said = receive(sock)
        if fields[6] != OK:
            raise ConnectionError(f"procedure {procedure} was refused: {said!r}")
    return sock


def send_descriptors(sock, descriptors, content=b"\0"):
    """One message with all of them; returns how many of its bytes went."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))
    return sock.sendmsg([content], [rights])


def handful(count=MOST_DESCRIPTORS):
    """So many descriptors of something harmless."""
    with open("/dev/null", "rb") as null:
        return [os.dup(null.fileno()) for _ in range(count)]


def lingering(seconds=60):
    """A TCP socket with unsent bytes, whose last close waits for so long, and who reads nothing.

    Returns the one that does not read, and the socket.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        reader, _ = listener.accept()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, seconds))
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536))
    return reader, sock


class Peer:
    """One connection of a crowd; `sent` counts what it has sent since it was made."""

    def __init__(self, sock):
        sock.setblocking(False)
        self.sock = sock
        self.sent = 0

    def send(self, wire):
        self.sock.send(wire)
        self.sent += 1

    def send_byte_of(self, stream, descriptors=()):
        """The next byte of a stream that begins anew at its end, with these descriptors on it."""
        at = self.sent % len(stream)
        if descriptors:
            send_descriptors(self.sock, descriptors, stream[at : at + 1])
        else:
            self.sock.send(stream[at : at + 1])
        self.sent += 1


class Crowd:
    """Connections that are each made anew when they end; nobody waits for one that is full.

    `make` returns a connected socket.
    """

    def __init__(self, count, make):
        self.make = make
        self.peers = [Peer(make()) for _ in range(count)]

    def each(self, act):
        """Calls `act` with every one of them in turn; pauses when none of them can do anything."""
        blocked = 0
        for at, peer in enumerate(self.peers):
            try:
                act(peer)
            except ConnectionError:
                self.replace(at)
            except OSError:  # full, too many descriptors in flight, or not let through at all
                blocked += 1
        if blocked == len(self.peers):
            select.select([], [], [], 0.001)

    def drain(self):
        """Takes whatever has come."""
        for at, peer in enumerate(self.peers):
            try:
                if not peer.sock.recv(65536):
                    self.replace(at)
            except BlockingIOError:
                pass
            except ConnectionError:
                self.replace(at)

    def replace(self, at):
        self.peers[at].sock.close()
        # Whoever is not let in now tries again the next time round.
        with suppress(OSError):
            self.peers[at] = Peer(self.make())
