"""The journal's native protocol: one datagram a message, fields by name.

Source: docs/protocol/logging.md, section 2.

A field is `NAME=value` and a line feed. A value that holds a line feed goes in the second form
instead: the name alone, a line feed, the value's length as 64 bits little-endian, the value, a
line feed. A message too big for a datagram is put into a sealed memory file whose descriptor is
sent with an empty datagram; the seals tell journald that nobody changes it while it reads.
"""

import array
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from proxyd.config.logstrings import LogLevel
from proxyd.log.line import SEVERITY, LogEntry, message, trace_lines

JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"

_IDENTIFIER: Final = "proxyd"
_FACILITY_DAEMON: Final = 3
_LENGTH: Final = struct.Struct("<Q")
_TIMEVAL: Final = struct.Struct("@ll")
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def journal_is_available(path: str = JOURNAL_SOCKET) -> bool:
    """Whether this process may write to the journal."""
    return os.access(path, os.W_OK)


def priority_of_error(fd: int) -> str:
    """What a line on this descriptor begins with, for the journal to take it for an error.

    systemd connects the output of a service with the journal, and says so in JOURNAL_STREAM
    (systemd.exec(5)). Anywhere else that is nothing.
    """
    try:
        found = os.fstat(fd)
    except OSError:
        return ""
    stream = f"{found.st_dev}:{found.st_ino}"
    return f"<{SEVERITY[LogLevel.ERROR]}>" if os.environ.get("JOURNAL_STREAM") == stream else ""


def datagram_socket(stall_s: float) -> socket.socket:
    """A UNIX datagram socket whose sends give up after `stall_s`.

    It stays unconnected, so that a log daemon that was restarted is found again. The limit is the
    kernel's: Python's own timeout would spin, since an unconnected socket always polls writable.
    """
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    seconds, micros = divmod(int(stall_s * 1_000_000), 1_000_000)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(seconds, micros))
    return opened


class JournalOutput:
    """Messages to journald. Which process sends them, journald learns from the kernel."""

    name = "journald"

    def __init__(self, path: str = JOURNAL_SOCKET, *, stall_s: float = 1.0) -> None:
        self._path = path
        self._socket = datagram_socket(stall_s)

    def write(self, entry: LogEntry) -> None:
        """Send one message; raises OSError when journald does not take it."""
        datagram = b"".join(encoded_field(name, value) for name, value in fields(entry))
        try:
            self._socket.sendto(datagram, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_sealed(datagram)

    def _send_sealed(self, datagram: bytes) -> None:
        memory = os.memfd_create("proxyd-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            rest = memoryview(datagram)
            while rest:
                rest = rest[os.write(memory, rest) :]
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
            passed = array.array("i", [memory])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)]
            self._socket.sendmsg([], rights, 0, self._path)
        finally:
            os.close(memory)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


def fields(entry: LogEntry) -> Iterator[tuple[str, str]]:
    """The fields of a message: libvirt's, and systemd's own names for the program and thread."""
    # A traceback belongs to its message, and here it may keep its lines: a field has a length.
    yield "MESSAGE", "\n".join([message(entry), *trace_lines(entry)])
    yield "PRIORITY", str(SEVERITY[entry.level])
    yield "SYSLOG_FACILITY", str(_FACILITY_DAEMON)
    yield "SYSLOG_IDENTIFIER", _IDENTIFIER  # or journalctl shows the interpreter's name
    yield "TID", str(entry.tid)
    yield "LIBVIRT_SOURCE", entry.category
    if entry.function is not None:
        yield "CODE_FILE", entry.file
        yield "CODE_LINE", str(entry.line)
        yield "CODE_FUNC", entry.function
    if entry.level is LogLevel.ERROR and entry.libvirt_domain is not None:
        yield "LIBVIRT_DOMAIN", str(entry.libvirt_domain)
    if entry.level is LogLevel.ERROR and entry.libvirt_code is not None:
        yield "LIBVIRT_CODE", str(entry.libvirt_code)


def encoded_field(name: str, value: str) -> bytes:
    """One field in the form that its value allows."""
    label = name.encode("ascii")
    content = value.encode("utf-8", "backslashreplace")
    if b"\n" in content:
        return b"%s\n%s%s\n" % (label, _LENGTH.pack(len(content)), content)
    return b"%s=%s\n" % (label, content)
