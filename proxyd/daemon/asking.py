"""The commands' end of the admin socket: one blocking connection to the daemon that runs."""

import errno
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

from proxyd.config.listening import ADMIN_SOCKETS
from proxyd.config.quoting import one_line
from proxyd.wire import ownrpc
from proxyd.wire.failure import Failure, unknown_program
from proxyd.wire.frame import Frame, FrameBuffer, FrameType, Status
from proxyd.wire.programs import OWN_PROGRAM, VERSION, Own
from proxyd.wire.xdr import MalformedFrame

_PATIENCE_S: Final = 10.0
_LARGEST_REPLY: Final = 4 << 20
_CHUNK: Final = 65536


class NoAnswer(Exception):
    """The daemon was not reached, or refused; one line that says what to do."""


class Refusal(NoAnswer):
    """It answered, and does not do it."""


@dataclass(slots=True)
class Connection:
    """To the daemon at `path`. Its own program alone is spoken here."""

    path: str
    sock: socket.socket
    _serial: int = 0

    @classmethod
    def open(cls, path: str) -> Self:
        """Raises NoAnswer."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(_PATIENCE_S)
        try:
            sock.connect(path)
        except OSError as error:
            sock.close()
            raise NoAnswer(_why_not(path, error)) from error
        return cls(path, sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def status(self, *, ask_daemons: bool) -> dict[str, Any]:
        flags = ownrpc.ASK_DAEMONS if ask_daemons else 0
        found: dict[str, Any] = self._json(Own.STATUS, ownrpc.AskStatus(flags).pack())
        return found

    def clients(self) -> list[dict[str, Any]]:
        return [client for page in self._pages() for client in page]

    def kick(self, number: int) -> None:
        self._call(Own.CLOSE_CLIENT, ownrpc.pack_number(number))

    def _pages(self) -> Iterator[list[dict[str, Any]]]:
        """Up to the first that is not full: who comes meanwhile would make more without end."""
        after = 0
        while True:
            asked = ownrpc.AskPage(after)
            page = self._json(Own.LIST_CLIENTS, asked.pack())
            yield page
            if len(page) < asked.most:
                return
            after = page[-1]["id"]

    def _json(self, procedure: Own, payload: bytes) -> Any:
        """The value that the call returns. Raises NoAnswer."""
        said = self._call(procedure, payload)
        try:
            return json.loads(ownrpc.unpack_text(said))
        except (MalformedFrame, ValueError, RecursionError) as error:
            raise NoAnswer(f"{self.path}: its answer cannot be read: {error}") from error

    def _call(self, procedure: Own, payload: bytes) -> bytes:
        """What the call returns. Raises NoAnswer."""
        self._serial += 1
        try:
            self.sock.sendall(ownrpc.call(procedure, self._serial, payload).pack())
            frame = self._reply()
            refusal = Failure.unpack(frame.payload) if frame.header.status != Status.OK else None
        except TimeoutError:
            text = f"it is silent for {_PATIENCE_S:g} s: look at its log"
            raise NoAnswer(f"{self.path}: {text}") from None
        except OSError as error:
            raise NoAnswer(f"{self.path}: {error.strerror}; look at its log") from error
        except MalformedFrame as error:
            raise NoAnswer(f"{self.path}: no libvirt daemon answers there: {error}") from error
        if refusal is not None:
            raise Refusal(self._refusal(refusal))
        return frame.payload

    def _reply(self) -> Frame:
        buffer = FrameBuffer(_LARGEST_REPLY)
        while True:
            frame = buffer.next_frame()
            if frame is not None and frame.header.type == FrameType.REPLY:
                return frame
            received = self.sock.recv(min(buffer.wanted, _CHUNK))
            if not received:
                raise ConnectionResetError(errno.ECONNRESET, "it closed the connection")
            buffer.feed(received)

    def _refusal(self, failure: Failure) -> str:
        if failure.message == unknown_program(OWN_PROGRAM, VERSION).message:
            return (
                f"{self.path} is not proxyd's admin socket but another one of libvirt's; name"
                " proxyd's with --socket, or use virt-admin"
            )
        return one_line(failure.message)


def admin_socket(directory: str) -> str:
    """Where a daemon with that directory listens: at the name that no other daemon uses."""
    return f"{directory}/{ADMIN_SOCKETS[-1]}"


def _why_not(path: str, error: OSError) -> str:
    number = error.errno or 0
    what = f"cannot reach the daemon at {path}: {error.strerror or error}"
    match number:
        case errno.ENOENT | errno.ECONNREFUSED:
            how = "start it (systemctl start virtproxyd), or name its socket with --socket"
        case errno.EACCES | errno.EPERM:
            how = "ask as the user that it runs as" + ("" if os.geteuid() == 0 else ", say root")
        case errno.EAGAIN:
            how = "others wait there already: see admin_max_clients"
        case _:
            how = "name its socket with --socket"
    return f"{what}; {how}"
