"""A UNIX socket before a daemon's that passes everything on and keeps what clients sent."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Tap:
    """`seen` holds the bytes of every connection, in the order of their coming."""

    def __init__(self, path: Path, daemon: Path) -> None:
        self.path = path
        self.seen: list[bytearray] = []
        self._daemon = daemon
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._open: list[socket.socket] = []

    def serve(self) -> None:
        """Accepts until it is closed; in a thread of its own."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                daemon = socket.socket(socket.AF_UNIX)
                daemon.connect(str(self._daemon))
                self._open += [client, daemon]
                sent = bytearray()
                self.seen.append(sent)
                for source, target, keep in ((client, daemon, sent), (daemon, client, bytearray())):
                    threading.Thread(
                        target=_pass_on, args=(source, target, keep), daemon=True
                    ).start()

    def close(self) -> None:
        for each in (self._listener, *self._open):
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
    """A tap that listens on `path` for as long as the block lasts."""
    tap = Tap(path, daemon)
    thread = threading.Thread(target=tap.serve, daemon=True)
    thread.start()
    try:
        yield tap
    finally:
        tap.close()
        thread.join()
