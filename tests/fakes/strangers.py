"""Clients of a TLS listener that mean harm: the same handshake again and again, at a steady rate.

    python -m tests.fakes.strangers HOST PORT

Four clients share the rate. Each line of the input is a window: how many handshakes a second,
for how many seconds, and the directory with what they send. That is bytes made beforehand, `hello`
and, for the time when the server has said all of its own first, `flight`; or where there is a `key`
it is a TLS 1.3 client of OpenSSL's with the certificates `0`, `1` and so on. The answer is one
line: how many handshakes there were, and how many came as far as the client's certificates.
"""

import itertools
import socket
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from OpenSSL import SSL, crypto

from tests.bed.hellos import HANDSHAKE, HELLO_DONE, sized

CLIENTS: Final = 4
DEADLINE_S: Final = 10.0
DONE: Final = bytes([HELLO_DONE]) + sized(3, b"")


def main(host: str, port: str) -> None:
    for line in sys.stdin:
        rate, seconds, directory = line.split()
        window = Window(host, int(port), stranger_of(Path(directory)), float(rate), float(seconds))
        threads = [threading.Thread(target=window.knock, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(window.made, window.heard_out, flush=True)


def stranger_of(directory: Path) -> "Stranger":
    return Completer(directory) if (directory / "key").exists() else Teller(directory)


class Stranger(Protocol):
    def shake_hands(self, sock: socket.socket) -> bool:
        """Whether the server asked for certificates. Raises ConnectionError."""


class Window:
    def __init__(self, host: str, port: int, stranger: Stranger, rate: float, seconds: float):
        self._address = (host, port)
        self._stranger = stranger
        self._each_s = 1 / rate
        self._begin = time.monotonic()
        self._end = self._begin + seconds
        self._pause = threading.Event()  # never set
        self._counting = threading.Lock()
        self.made = 0
        self.heard_out = 0

    def knock(self, number: int) -> None:
        due = self._begin + number * self._each_s
        while due < self._end:
            self._pause.wait(max(0.0, due - time.monotonic()))
            heard_out = False
            with (
                suppress(ConnectionError),
                socket.create_connection(self._address, timeout=DEADLINE_S) as sock,
            ):
                heard_out = self._stranger.shake_hands(sock)
            with self._counting:
                self.made += 1
                self.heard_out += heard_out
            due += CLIENTS * self._each_s


class Teller:
    """Says what was made beforehand and computes nothing."""

    def __init__(self, directory: Path) -> None:
        self._hello = (directory / "hello").read_bytes()
        self._flight = (directory / "flight").read_bytes()
        self._in_pieces = (directory / "in pieces").exists()

    def shake_hands(self, sock: socket.socket) -> bool:
        self._send(sock, self._hello)
        asked = _hears_out(sock)
        if asked:
            with suppress(ConnectionError):  # it does not always wait for the end
                self._send(sock, self._flight)
                while sock.recv(65536):
                    pass
        return asked

    def _send(self, sock: socket.socket, content: bytes) -> None:
        if not self._in_pieces:
            sock.sendall(content)
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(content)):
            sock.sendall(content[at : at + 1])


class Completer:
    """Goes through the whole handshake."""

    def __init__(self, directory: Path) -> None:
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_3_VERSION)
        files = itertools.takewhile(Path.exists, (directory / str(n) for n in itertools.count()))
        leaf, *others = (
            crypto.load_certificate(crypto.FILETYPE_ASN1, file.read_bytes()) for file in files
        )
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            self._context.use_certificate(leaf)
            for each in others:
                self._context.add_extra_chain_cert(each)
        self._context.use_privatekey_file(str(directory / "key"))

    def shake_hands(self, sock: socket.socket) -> bool:
        sock.settimeout(None)
        connection = SSL.Connection(self._context, sock)
        connection.set_connect_state()
        with suppress(SSL.Error):
            connection.do_handshake()
            connection.recv(16)
        return True


def _hears_out(sock: socket.socket) -> bool:
    """Reads what the server says first; whether it is all of its flight, as TLS 1.2 has it."""
    held = b""
    while not (held[:1] == bytes([HANDSHAKE]) and held.endswith(DONE)):
        got = sock.recv(65536)
        held += got
        if not got or held[0] != HANDSHAKE or _speaks_1_3(held):
            return False
    return True


def _speaks_1_3(held: bytes) -> bool:
    """What follows its hello is then encrypted, and there is nothing to say to it."""
    return b"\0\x2b\0\x02\x03\x04" in held[:200]


if __name__ == "__main__":
    main(*sys.argv[1:])
