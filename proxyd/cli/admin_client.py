"""The commands' end of the admin socket: one blocking connection to the daemon that runs."""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Self

from proxyd.admin import document
from proxyd.config.addresses import ADMIN_SOCKETS
from proxyd.config.quoting import one_line
from proxyd.endpoint.contract import HungUp
from proxyd.endpoint.exchange import exchanged
from proxyd.wire import proxyd_program
from proxyd.wire.dialogue import Dialogue, Failed
from proxyd.wire.failure import Failure, unknown_procedure, unknown_program
from proxyd.wire.programs import OWN_PROGRAM, VERSION, Own
from proxyd.wire.xdr import MalformedFrame

_PATIENCE_S: Final = 10.0
_RELOAD_S: Final = 75.0  # less than systemd's patience; keys may lie on a slow disk
_UPGRADE_S: Final = 180.0  # a start, and thousands of sessions
_LARGEST_REPLY: Final = 4 << 20


class NoAnswer(Exception):
    """The daemon was not reached, or refused; one line that says what to do.

    `down`: as far as can be seen it does not run, or is stuck.
    """

    def __init__(self, text: str, *, down: bool = False) -> None:
        super().__init__(text)
        self.down = down


class Refusal(NoAnswer):
    """It answered, and does not do it."""


@dataclass(slots=True)
class Connection:
    """To the daemon at `path`. Its own program alone is spoken here."""

    path: str
    sock: socket.socket
    _dialogue: Dialogue = field(default_factory=lambda: Dialogue(OWN_PROGRAM, limit=_LARGEST_REPLY))

    @classmethod
    def open(cls, path: str) -> Self:
        """Raises NoAnswer."""
        try:
            return cls.connect(path)
        except OSError as error:
            raise NoAnswer(why_not(path, error)) from error

    @classmethod
    def connect(cls, path: str) -> Self:
        """Raises OSError."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(_PATIENCE_S)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        return cls(path, sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def demand_ours(self) -> None:
        """Raises NoAnswer where somebody else listens than proxyd. Changes and finds nothing."""
        self._json(Own.LIST_CLIENTS, proxyd_program.AskPage(2**64 - 1).pack())

    def status(self, *, ask_daemons: bool, ask_busy: bool = False) -> dict[str, Any]:
        """`ask_busy`: those daemons are asked that have sessions, so that none is started."""
        flags = proxyd_program.ASK_DAEMONS if ask_daemons else 0
        flags |= proxyd_program.ASK_BUSY if ask_busy else 0
        found: dict[str, Any] = self._json(Own.STATUS, proxyd_program.AskStatus(flags).pack())
        return found

    def metrics(self) -> str:
        """In Prometheus' text format. Raises NoAnswer."""
        said = self._call(Own.METRICS, b"")
        try:
            return proxyd_program.unpack_text(said)
        except MalformedFrame as error:
            raise NoAnswer(f"{self.path}: its answer cannot be read: {error}") from error

    def clients(self) -> list[dict[str, Any]]:
        return [client for page in self._pages() for client in page]

    def kick(self, number: int) -> None:
        self._call(Own.CLOSE_CLIENT, proxyd_program.pack_number(number))

    def reload(self) -> str:
        """What was done. Raises Refusal where nothing was changed."""
        try:
            said = self._call(Own.RELOAD, b"", patience_s=_RELOAD_S)
            return proxyd_program.unpack_text(said)
        except MalformedFrame as error:
            raise NoAnswer(f"{self.path}: its answer cannot be read: {error}") from error

    def drain(self, *, on: bool) -> document.Drained:
        """Nobody new is let in any more, or everybody again. Raises NoAnswer and Unreadable."""
        flags = 0 if on else proxyd_program.LET_IN
        found = self._json(Own.DRAIN, proxyd_program.AskDrain(flags).pack())
        return document.read(document.Drained, found)

    def draining(self) -> document.Drain | None:
        """How far that is; None if it has been ended. Raises NoAnswer and Unreadable."""
        return document.read(document.Status, self.status(ask_daemons=False)).drain

    def apply_rules(self, *, now: bool) -> document.Applied:
        """The rules are read again; open sessions are looked at, and with `now` held to them.

        Raises Refusal where nothing was changed, NoAnswer and Unreadable.
        """
        asked = proxyd_program.AskRules(proxyd_program.APPLY_NOW if now else 0)
        found = self._json(Own.RULES, asked.pack(), patience_s=_RELOAD_S)
        return document.read(document.Applied, found)

    def upgrade(self) -> dict[str, Any]:
        """What has taken over. Raises Refusal where everything is as it was."""
        return dict(self._json(Own.UPGRADE, b"", patience_s=_UPGRADE_S))

    def _pages(self) -> Iterator[list[dict[str, Any]]]:
        """Up to the first that is not full: who comes meanwhile would make more without end."""
        after = 0
        while True:
            asked = proxyd_program.AskPage(after)
            page = self._json(Own.LIST_CLIENTS, asked.pack())
            yield page
            if len(page) < asked.most:
                return
            after = page[-1]["id"]

    def _json(self, procedure: Own, payload: bytes, *, patience_s: float | None = None) -> Any:
        """The value that the call returns. Raises NoAnswer."""
        said = self._call(procedure, payload, patience_s=patience_s)
        try:
            return json.loads(proxyd_program.unpack_text(said))
        except (MalformedFrame, ValueError, RecursionError) as error:
            raise NoAnswer(f"{self.path}: its answer cannot be read: {error}") from error

    def _call(self, procedure: Own, payload: bytes, *, patience_s: float | None = None) -> bytes:
        """What the call returns. Raises NoAnswer."""
        patience_s = _PATIENCE_S if patience_s is None else patience_s
        end = time.monotonic() + patience_s
        try:
            answer = exchanged(self.sock, self._dialogue, procedure, payload, end=end)
        except TimeoutError:
            text = f"it is silent for {patience_s:g} s: look at its log"
            raise NoAnswer(f"{self.path}: {text}", down=True) from None
        except HungUp as error:
            text = f"{self.path}: it closed the connection; look at its log"
            raise NoAnswer(text, down=True) from error
        except OSError as error:
            text = f"{self.path}: {error.strerror}; look at its log"
            raise NoAnswer(text, down=True) from error
        except MalformedFrame as error:
            raise NoAnswer(f"{self.path}: no libvirt daemon answers there: {error}") from error
        if isinstance(answer, Failed):
            raise Refusal(self._refusal(answer.failure, procedure))
        return answer.payload

    def _refusal(self, failure: Failure, procedure: Own) -> str:
        if failure.message == unknown_program(OWN_PROGRAM, VERSION).message:
            return (
                f"{self.path} is not proxyd's admin socket but another one of libvirt's; name"
                " proxyd's with --socket, or use virt-admin"
            )
        if failure.message == unknown_procedure(procedure).message:
            return (
                f"the proxyd at {self.path} is older than this command and cannot do that; to make"
                " it this one, which ends its sessions: systemctl restart virtproxyd.service, or"
                " however it was started"
            )
        return one_line(failure.message)


def admin_socket(directory: str) -> str:
    """Where a daemon with that directory listens: at the name that no other daemon uses."""
    return f"{directory}/{ADMIN_SOCKETS[-1]}"


def why_not(path: str, error: OSError, others: str = "") -> str:
    """What is said of a path that nobody was reached by, and what to do."""
    number = error.errno or 0
    what = f"cannot reach the daemon at {path}: {error.strerror or error}{others}"
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
