"""Where records go: the journal, a file of JSON lines, or syslog.

An output raises OSError when it cannot take a record, and has then taken none of what it was given;
writer.py decides what then. Only the writer's thread calls them, and none blocks it for longer than
STALL_S.
"""

import errno
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from proxyd.audit.record import AnyRecord, journal_datagram, json_line, syslog_priority
from proxyd.config.auditing import AuditOutput
from proxyd.config.shortage import remedy
from proxyd.log.journal import JOURNAL_SOCKET, datagram_socket
from proxyd.log.outputs import STALL_S, SYSLOG_SOCKET

_FILE_MODE: Final = 0o600
_APPEND: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
# What ends by itself, when there is room again.
SHORT: Final = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENFILE,
    errno.EMFILE,
    errno.ENOMEM,
    errno.EIO,
    errno.EROFS,
)


class AuditOutputError(Exception):
    """An output cannot be opened; the text says which, why and what to do."""


class Output(Protocol):
    """One destination of records. `together` is how many it takes in one step."""

    name: str
    together: int

    def write(self, records: Sequence[AnyRecord]) -> None:
        """Takes all of them, or raises OSError."""

    def close(self) -> None:
        """Gives back what was opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlaces:
    """Where this system's own outputs are found; tests put their own there."""

    syslog: str = SYSLOG_SOCKET
    journal: str = JOURNAL_SOCKET


def open_output(asked: AuditOutput, places: AuditPlaces, *, named: bool = True) -> Output:
    """Raises AuditOutputError for a file that cannot be opened, but not because of a full disk.

    One that nobody has `named` can be opened later, too.
    """
    match asked:
        case AuditOutput(kind="file", target=str(path)):
            return FileOutput(path, named=named)
        case AuditOutput(kind="syslog", target=str(ident)):
            return SyslogOutput(ident, places.syslog)
        case _:
            return JournalOutput(places.journal)


class FileOutput:
    """Lines appended to a file that others may rename or remove (logrotate)."""

    together = 16  # between two writes others run

    def __init__(self, path: str, *, named: bool = True) -> None:
        self._path = os.path.abspath(path)
        self.name = f"file:{self._path}"
        self._fd = -1
        self._identity: tuple[int, int] | None = None
        self._torn = False
        try:
            self._open()
        except OSError as error:
            if named and error.errno not in SHORT:
                raise unwritable(self._path, error) from error

    def write(self, records: Sequence[AnyRecord]) -> None:
        if self._fd < 0 or self._moved_away():
            self._open()
        wire = b"".join(map(json_line, records))
        if self._torn:
            wire = b"\n" + wire
        written = os.write(self._fd, wire)
        if written < len(wire):
            self._take_back(written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take_back(self, count: int) -> None:
        """A part of a line must not become the beginning of the next one. Nobody else is cut off:
        what others append meanwhile goes behind, and then the part is left as it is."""
        self._torn = True
        with suppress(OSError):
            size = os.fstat(self._fd).st_size
            if os.lseek(self._fd, 0, os.SEEK_CUR) == size:
                os.ftruncate(self._fd, size - count)
                self._torn = False

    def _open(self) -> None:
        """First the new one: as long as that fails, the old one stays for the next try."""
        fd = os.open(self._path, _APPEND | os.O_CREAT, _FILE_MODE)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is no regular file")
        self.close()
        self._fd, self._identity, self._torn = fd, (found.st_dev, found.st_ino), False

    def _moved_away(self) -> bool:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != self._identity


class JournalOutput:
    """A message each, with a field for each value."""

    name = "journald"
    together = 1

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        self._path = path
        self._socket = datagram_socket(STALL_S)

    def write(self, records: Sequence[AnyRecord]) -> None:
        for record in records:
            self._socket.sendto(journal_datagram(record), self._path)

    def close(self) -> None:
        self._socket.close()


class SyslogOutput:
    """A line of JSON each."""

    together = 1

    def __init__(self, ident: str, path: str = SYSLOG_SOCKET) -> None:
        self.name = f"syslog:{ident}"
        self._ident = ident
        self._path = path
        self._socket = datagram_socket(STALL_S)

    def write(self, records: Sequence[AnyRecord]) -> None:
        for record in records:
            when = time.strftime("%b %e %H:%M:%S", time.localtime(record.at))
            head = f"<{syslog_priority(record)}>{when} {self._ident}: "
            self._socket.sendto(head.encode() + json_line(record)[:-1], self._path)

    def close(self) -> None:
        self._socket.close()


def demand_writable(path: str) -> None:
    """Raises AuditOutputError where FileOutput would for this file. Makes none."""
    try:
        os.close(os.open(path, _APPEND))
    except FileNotFoundError as error:
        directory = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(directory):
            raise unwritable(path, error) from error
        if not os.access(directory, os.W_OK | os.X_OK):
            denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            raise unwritable(path, denied) from error
    except OSError as error:
        if error.errno not in SHORT:
            raise unwritable(path, error) from error


def unwritable(path: str, error: OSError) -> AuditOutputError:
    """What to say of a file."""
    let = "let this user write there, or name another place in proxyd_audit_output"
    if isinstance(error, FileNotFoundError):
        let = f"make the directory {os.path.dirname(path)}, or name another in proxyd_audit_output"
    said = error.strerror or os.strerror(error.errno or 0)
    return AuditOutputError(f"cannot open the audit file {path}: {said}; {remedy(error, let)}")
