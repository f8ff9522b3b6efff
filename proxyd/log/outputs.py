"""Where log messages go: stderr, a file, syslog; the journal is `journal.py`.

Source: docs/protocol/logging.md, section 2.

An output raises OSError when it cannot take a message; `writer.py` decides what then. Only the
writer thread calls outputs. None of them blocks it for longer than `STALL_S`, whatever stands at
the other end: a pipe that nobody reads, a log daemon that hangs, a named pipe in a file's place.
"""

import errno
import os
import select
import stat
import time
from dataclasses import dataclass
from typing import Final, Protocol

from proxyd.config.logstrings import LogOutput
from proxyd.config.shortage import remedy
from proxyd.log.journal import JOURNAL_SOCKET, JournalOutput, datagram_socket
from proxyd.log.line import SEVERITY, LogEntry, head, message, rendered, trace_lines

SYSLOG_SOCKET: Final = "/dev/log"
STALL_S: Final = 1.0

_FILE_MODE: Final = 0o600
# O_NONBLOCK changes nothing for a file; it keeps open() from waiting for a named pipe's reader.
_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FACILITY_DAEMON: Final = 3
# What every syslog daemon takes: rsyslog's default limit for one message.
_SYSLOG_LIMIT: Final = 8192


class LogOutputError(Exception):
    """An output cannot be opened; the text says which, why and what to do."""


class Output(Protocol):
    """One destination of log messages."""

    @property
    def name(self) -> str:
        """What a person calls it: `stderr`, `file:/var/log/x`."""

    def write(self, entry: LogEntry) -> None:
        """Take one message; raises OSError when that does not work."""

    def close(self) -> None:
        """Give back what was opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlaces:
    """Where this system's own outputs are found; tests put their own there."""

    stderr: int = 2
    syslog: str = SYSLOG_SOCKET
    journal: str = JOURNAL_SOCKET


def open_output(asked: LogOutput, places: LogPlaces) -> Output:
    """Open what a log string asks for; raises LogOutputError when a file cannot be opened.

    syslog and the journal are never an error here: who listens there may come later.
    """
    match asked:
        case LogOutput(kind="journald"):
            return JournalOutput(places.journal, stall_s=STALL_S)
        case LogOutput(kind="syslog", target=str(ident)):
            return SyslogOutput(ident, places.syslog)
        case LogOutput(kind="file", target=str(path)):
            return FileOutput(path)
        case _:
            return StderrOutput(places.stderr)


def demand_writable(path: str) -> None:
    """Raises LogOutputError where FileOutput would for this file. Makes none."""
    try:
        os.close(os.open(path, _APPEND))
    except FileNotFoundError:
        directory = os.path.dirname(path) or "."
        if not os.path.isdir(directory):
            raise _unwritable(path, FileNotFoundError(errno.ENOENT, "")) from None
        if not os.access(directory, os.W_OK | os.X_OK):
            raise _unwritable(path, PermissionError(errno.EACCES, "")) from None
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: str, error: OSError) -> LogOutputError:
    let = "make its directory and let this user write there, or change log_outputs"
    if error.errno == errno.ENXIO:  # so is standard output of a service, or behind a pipe of ssh's
        let = (
            "it is a socket or a pipe that nobody reads: for what the daemon was started with,"
            ' write "LEVEL:stderr" or "LEVEL:journald" into log_outputs'
        )
    said = os.strerror(error.errno or 0)
    return LogOutputError(f"cannot open the log file {path}: {said}; {remedy(error, let)}")


class Stream:
    """Whole lines into a descriptor that may be a terminal, a pipe or a file."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._torn = False
        # A file always takes what there is room for.
        self._is_file = _is_file(fd)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, line: bytes) -> None:
        """Write it all within STALL_S or raise OSError."""
        # Half a line may stand there from a write that failed: it must not become the beginning
        # of this one.
        rest = memoryview(b"\n" + line if self._torn else line)
        until = time.monotonic() + STALL_S
        while rest:
            left_ms = max(0, int((until - time.monotonic()) * 1000))
            if not self._is_file and not self._poll.poll(left_ms):
                raise TimeoutError("nobody reads it")
            # A pipe that polls writable takes this much without blocking, even where the
            # descriptor is shared with others and may not be made non-blocking.
            sent = os.write(self.fd, rest[: select.PIPE_BUF])
            rest = rest[sent:]
            self._torn = bool(rest)


def _is_file(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:  # it is closed, which each write tells
        return False


class StderrOutput:
    """Messages to standard error, which belongs to somebody else: it is not closed."""

    name = "stderr"

    def __init__(self, fd: int = 2) -> None:
        self._stream = Stream(fd)

    def write(self, entry: LogEntry) -> None:
        """Print one message."""
        self._stream.write(rendered(entry))

    def close(self) -> None:
        """Nothing here is ours."""


class FileOutput:
    """Messages appended to a file that others may rename or remove (logrotate)."""

    def __init__(self, path: str) -> None:
        # A daemon changes to / later on.
        self._path = os.path.abspath(path)
        self.name = f"file:{self._path}"
        try:
            self._open()
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def write(self, entry: LogEntry) -> None:
        """Append one message, to a new file if the old one was moved away."""
        if self._moved_away():
            # First the new one: as long as that fails, the old one stays for the next try.
            old = self._stream.fd
            self._open()
            os.close(old)
        self._stream.write(rendered(entry))

    def close(self) -> None:
        """Close the file."""
        os.close(self._stream.fd)

    def _open(self) -> None:
        fd = os.open(self._path, _APPEND | os.O_CREAT, _FILE_MODE)
        self._identity = _identity(os.fstat(fd))
        self._stream = Stream(fd)

    def _moved_away(self) -> bool:
        try:
            return _identity(os.stat(self._path)) != self._identity
        except FileNotFoundError:
            return True


class SyslogOutput:
    """Messages to the syslog daemon, facility daemon, without a pid like libvirt's."""

    def __init__(self, ident: str, path: str = SYSLOG_SOCKET) -> None:
        self.name = f"syslog:{ident}"
        self._ident = ident
        self._path = path
        self._socket = datagram_socket(STALL_S)

    def write(self, entry: LogEntry) -> None:
        """Send one message; its traceback follows line by line, since syslog has only lines."""
        number = _FACILITY_DAEMON * 8 + SEVERITY[entry.level]
        when = time.strftime("%b %e %H:%M:%S", time.localtime(entry.when))
        start = f"<{number}>{when} {self._ident}: {head(entry)}"
        for text in [message(entry), *trace_lines(entry)]:
            datagram = (start + text).encode("utf-8", "backslashreplace")
            self._socket.sendto(_cut(datagram), self._path)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _cut(datagram: bytes) -> bytes:
    if len(datagram) <= _SYSLOG_LIMIT:
        return datagram
    mark = "…".encode()
    kept = datagram[: _SYSLOG_LIMIT - len(mark)].decode("utf-8", "ignore")
    return kept.encode("utf-8") + mark
