"""Who holds a socket: the kernel's tables of them, and the processes whose descriptors lead there.

Reading the tables connects to nothing. Of other users' processes only root sees the descriptors and
perhaps the command line (hidepid); then there is nobody to name. All of it may have changed since.
"""

import os
import re
import shlex
import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

from proxyd.config.quoting import one_line

_LONGEST_COMMAND: Final = 200
_TCP_LISTEN: Final = "0A"  # in /proc/net/tcp
_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON in /proc/net/unix
# Any user may bind a path with a line end in it, and what stands behind that is no line of the
# table's, or one that he has made up.
_UNIX: Final = re.compile(
    r"[0-9a-f]+: [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{8})"  # its number, users, protocol, flags
    r" [0-9A-F]{4} [0-9A-F]{2} +([0-9]+) (.+)"  # type, state, inode, path
)

# sock_diag(7), unix_diag.h: a question for all UNIX sockets that listen, and for the file of each.
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST_DUMP: Final = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_TCP_LISTEN_BIT: Final = 1 << 10
_UDIAG_SHOW_VFS: Final = 2
_UNIX_DIAG_VFS: Final = 1
_MESSAGE: Final = Struct("=IHHII")  # length, type, flags, number, port
_QUESTION: Final = Struct("=BBHIIIII")  # family, protocol, -, states, inode, what to show, cookie
_ANSWER: Final = Struct("=BBBBIII")  # family, type, state, -, inode, cookie
_ATTRIBUTE: Final = Struct("=HH")  # length, type
_VFS: Final = Struct("=II")  # inode, device
_MINOR_BITS: Final = 20  # of the kernel's own form of a device number
_LARGEST_ANSWER: Final = 1 << 16
_PATIENCE_S: Final = 5.0


class Unseen(Exception):
    """The kernel does not tell this."""


@dataclass(frozen=True, slots=True)
class BoundFile:
    """The file that a UNIX socket made when it was bound; it may have been removed since."""

    inode: int
    device: int

    def is_at(self, path: str) -> bool:
        """Whether the path leads to it now."""
        try:
            found = os.stat(path)
        except OSError:
            return False
        device = os.major(found.st_dev) << _MINOR_BITS | os.minor(found.st_dev)
        # The kernel's answer has 32 bits of the number.
        return (found.st_ino & 0xFFFFFFFF, device) == (self.inode, self.device)


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that is told of by its number; 0 stands for one that the kernel does not name."""

    pid: int

    @property
    def command(self) -> str:
        """Its command line, or nothing if it is gone or hidden."""
        return shown_command(command_line(self.pid), _LONGEST_COMMAND)

    def __str__(self) -> str:
        if self.pid <= 0:
            return "a process that cannot be named from here"
        command = self.command
        return f"pid {self.pid} ({command})" if command else f"pid {self.pid}"


def port_owner(port: int) -> Owner:
    """Whoever listens on a TCP port; number 0 if the kernel does not say so to us."""
    return Owner(min(port_holders(port), default=0))


def port_holders(port: int) -> set[int]:
    """All who have a socket that listens there, as far as the kernel says so to us."""
    holding = holders({inode for held, inode in tcp_listeners() if held == port})
    return {pid for pids in holding.values() for pid in pids}


def path_holders(path: str) -> set[int] | None:
    """Likewise of a UNIX socket that was bound to this path; None where nobody listens there."""
    inodes = {inode for bound, inode in unix_listeners() if bound == path}
    return {pid for pids in holders(inodes).values() for pid in pids} if inodes else None


def unix_listeners() -> Iterator[tuple[str, str]]:
    """Path, as it was bound, and inode of each UNIX socket that listens at one."""
    for line in _table("/proc/net/unix"):
        if (found := _UNIX.fullmatch(line)) and int(found[1], 16) & _ACCEPTS:
            yield found[3], found[2]


def bound_files() -> dict[str, BoundFile]:
    """The file of each UNIX socket that listens at a path, by the socket's inode. Raises Unseen.

    Connects to nobody. All users may ask.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asking:
            asking.settimeout(_PATIENCE_S)
            question = _QUESTION.pack(
                socket.AF_UNIX, 0, 0, _TCP_LISTEN_BIT, 0, _UDIAG_SHOW_VFS, 0, 0
            )
            size = _MESSAGE.size + len(question)
            asking.send(
                _MESSAGE.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + question
            )
            return dict(_answers(asking))
    except OSError as error:
        raise Unseen(str(error)) from error


def _answers(asking: socket.socket) -> Iterator[tuple[str, BoundFile]]:
    while True:
        said = asking.recv(_LARGEST_ANSWER)
        while said:
            length, kind, *_ = _MESSAGE.unpack_from(said)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                raise Unseen("the kernel has no table of UNIX sockets")
            yield from _file_in(said[_MESSAGE.size : length])
            said = said[_padded(length) :]


def _file_in(answer: bytes) -> Iterator[tuple[str, BoundFile]]:
    inode = _ANSWER.unpack_from(answer)[4]
    rest = answer[_ANSWER.size :]
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if kind == _UNIX_DIAG_VFS:
            yield str(inode), BoundFile(*_VFS.unpack_from(rest, _ATTRIBUTE.size))
        rest = rest[_padded(length) :]


def _padded(length: int) -> int:
    return (length + 3) & ~3


def tcp_listeners() -> Iterator[tuple[int, str]]:
    """Port and inode of each TCP socket that listens."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _table(table):
            fields = line.split()
            if fields[3] == _TCP_LISTEN:
                yield int(fields[1].rpartition(":")[2], 16), fields[9]


def holders(inodes: Collection[str]) -> dict[str, list[int]]:
    """The processes that have one of these sockets open, by the socket."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, list[int]] = {}
    for pid in all_pids() if links else ():
        for inode in {links[link] for link in _descriptors(pid) if link in links}:
            found.setdefault(inode, []).append(pid)
    return found


def all_pids() -> list[int]:
    """The processes that we see."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def short_name(pid: int) -> str:
    """What the kernel calls it, in 15 characters; "" if it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    return ""


def command_line(pid: int) -> list[str]:
    """Its words; none if it is gone, hidden, or the kernel's own."""
    raw = b""
    with suppress(OSError):
        raw = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
    return raw.decode("utf-8", "backslashreplace").split("\0") if raw else []


def shown_command(words: list[str], longest: int) -> str:
    """A command line in one line, of so many characters at most."""
    text = one_line(shlex.join(words))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _table(path: str) -> list[str]:
    with suppress(OSError):  # a kernel without this protocol
        return Path(path).read_text(errors="backslashreplace").splitlines()[1:]
    return []


def _descriptors(pid: int) -> Iterator[str]:
    """What a process's descriptors lead to; nothing of one that is not ours to look into."""
    directory = f"/proc/{pid}/fd"
    with suppress(OSError):
        for descriptor in os.listdir(directory):
            with suppress(OSError):
                yield os.readlink(f"{directory}/{descriptor}")
