"""A listener that passes everything on to another one and keeps all bytes."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Connect = Callable[[], socket.socket]


class Tap:
    """`seen` holds what came of each client, `answers` what it got, in their order."""

    def __init__(self, listener: socket.socket, connect: Connect) -> None:
        self.seen: list[bytearray] = []
        self.answers: list[bytearray] = []
        self.listener = listener
        self._connect = connect
        self._open: list[socket.socket] = []

    @property
    def path(self) -> Path:
        """Of a tap on a UNIX socket."""
        return Path(self.listener.getsockname())

    @property
    def address(self) -> str:
        """Of a tap on a port, HOST:PORT."""
        host, port = self.listener.getsockname()
        return f"{host}:{port}"

    def serve(self) -> None:
        """Accepts until it is closed; in a thread of its own."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = self._connect()
                self._open += [client, server]
                sent, got = bytearray(), bytearray()
                self.seen.append(sent)
                self.answers.append(got)
                for ends in ((client, server, sent), (server, client, got)):
                    threading.Thread(target=_pass_on, args=ends, daemon=True).start()

    def close(self) -> None:
        for each in (self.listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _pass_on(source: socket.socket, target: socket.socket, keep: bytearray) -> None:
    with contextlib.suppress(OSError):
        while got := source.recv(65536):
            keep += got
            target.sendall(got)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def tapped(path: Path, daemon: Path) -> Iterator[Tap]:
    """A tap that listens on `path` before a daemon's UNIX socket, while the block lasts."""

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(daemon))
        return sock

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    with _serving(Tap(listener, connect)) as tap:
        yield tap


@contextmanager
def tapped_port(address: str) -> Iterator[Tap]:
    """A tap on a free port before another port of 127.0.0.1, while the block lasts."""
    port = int(address.rpartition(":")[2])
    listener = socket.create_server(("127.0.0.1", 0))
    with _serving(Tap(listener, lambda: socket.create_connection(("127.0.0.1", port)))) as tap:
        yield tap


@contextmanager
def _serving(tap: Tap) -> Iterator[Tap]:
    thread = threading.Thread(target=tap.serve, daemon=True)
    thread.start()
    try:
        yield tap
    finally:
        tap.close()
        thread.join()
