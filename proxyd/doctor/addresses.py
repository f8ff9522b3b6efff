"""Who listens where: the kernel's tables of sockets, and whose descriptors lead to them.

What is in the tables is not connected to, so no daemon is started by looking. Of other users'
processes only root sees the descriptors; then a socket has no process to show. A path that is not
in the tables may yet lead to a listener in another network namespace, a container's: that is
found out by connecting, and the kernel then tells who it is.
"""

import os
import shlex
import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

from proxyd.config.quoting import one_line

PROXYD: Final = "proxyd"
SYSTEMD: Final = "systemd"

_LONGEST_COMMAND: Final = 120
_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON in /proc/net/unix
_TCP_LISTEN: Final = "0A"
_CREDENTIALS: Final = Struct("3i")  # pid, uid, gid
# The names that proxyd's command has, and the one of the unit that starts it.
_OURS: Final = frozenset({"proxyd", "virtproxyd"})


@dataclass(frozen=True, slots=True)
class Process:
    """`program` is what it is called: proxyd also where Python runs it."""

    pid: int
    program: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.program or 'a program'} (pid {self.pid})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A path or a port, the listening sockets that are bound to it, and who holds them.

    `there` is whether the path exists; a port is there when somebody listens.
    """

    name: str
    there: bool
    listening: int
    owners: tuple[Process, ...]

    @property
    def hidden(self) -> bool:
        """Somebody listens, and we may not see who."""
        return self.listening > 0 and not self.owners


def look_at(*, paths: Collection[str], ports: Collection[int]) -> list[Address]:
    """The addresses in this order, each once. Reads /proc."""
    unix, tcp = dict(_grouped(_unix_listeners())), dict(_grouped(_tcp_listeners()))
    at = {path: unix.get(os.path.realpath(path), []) for path in paths}
    on = {port: tcp.get(port, []) for port in ports}
    wanted = {inode for inodes in (*at.values(), *on.values()) for inode in inodes}
    holders = _holders(wanted)

    def address(name: str, inodes: list[str], *, there: bool) -> Address:
        owners = {process for inode in inodes for process in holders.get(inode, ())}
        return Address(
            name=name,
            there=there,
            listening=len(inodes),
            owners=tuple(sorted(owners, key=lambda process: process.pid)),
        )

    found = [address(path, at[path], there=True) if at[path] else _elsewhere(path) for path in at]
    return found + [address(port_name(port), on[port], there=bool(on[port])) for port in on]


def _elsewhere(path: str) -> Address:
    """Who listens at a path that our tables do not have."""
    there, listening = os.path.lexists(path), 0
    owners: tuple[Process, ...] = ()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
            listening, pid = 1, _peer(sock)
            owners = (_process(str(pid)),) if pid else ()
        except (PermissionError, BlockingIOError):  # not for us, or a full queue
            listening = 1
        except OSError:
            pass  # there is none, or nobody behind it
    return Address(name=path, there=there, listening=listening, owners=owners)


def _peer(sock: socket.socket) -> int:
    """The process that called listen(); 0 if it cannot be seen from our namespace of processes."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[0])


def port_name(port: int) -> str:
    """What a TCP port is called here."""
    return f"port {port}"


def program_of(words: list[str]) -> str:
    """What a command line runs: the name of the program, or of what Python runs for it."""
    if not words:
        return ""
    name = os.path.basename(words[0])
    if not name.startswith("python"):
        return name
    for number, word in enumerate(words[1:], 1):
        if word == "-m":
            module = words[number + 1 : number + 2]
            return _ours_or(module[0].partition(".")[0]) if module else name
        if not word.startswith("-"):
            return _ours_or(os.path.basename(word))
    return name


def _ours_or(script: str) -> str:
    # libvirt's own virtproxyd is not run by Python.
    return PROXYD if script in _OURS else script


def programs() -> Iterator[str]:
    """The kernel's short name of each process there is."""
    for pid in _pids():
        with suppress(OSError):
            yield Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")


def _grouped(pairs: Iterator[tuple[str | int, str]]) -> Iterator[tuple[str | int, list[str]]]:
    groups: dict[str | int, list[str]] = {}
    for key, inode in pairs:
        groups.setdefault(key, []).append(inode)
    yield from groups.items()


def _unix_listeners() -> Iterator[tuple[str | int, str]]:
    for line in _table("/proc/net/unix"):
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and int(fields[3], 16) & _ACCEPTS:
            yield os.path.realpath(fields[7]), fields[6]


def _tcp_listeners() -> Iterator[tuple[str | int, str]]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _table(table):
            fields = line.split()
            if fields[3] == _TCP_LISTEN:
                yield int(fields[1].rpartition(":")[2], 16), fields[9]


def _table(path: str) -> list[str]:
    with suppress(OSError):  # a kernel without this protocol
        return Path(path).read_text(errors="backslashreplace").splitlines()[1:]
    return []


def _holders(inodes: Collection[str]) -> dict[str, list[Process]]:
    """The processes that have one of these sockets open."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, list[Process]] = {}
    for pid in _pids() if links else ():
        held = {links[link] for link in _descriptors(pid) if link in links}
        if held:
            process = _process(pid)
            for inode in held:
                found.setdefault(inode, []).append(process)
    return found


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdecimal()]


def _descriptors(pid: str) -> Iterator[str]:
    directory = f"/proc/{pid}/fd"
    with suppress(OSError):  # it has ended, or it is not ours to look into
        for descriptor in os.listdir(directory):
            with suppress(OSError):
                yield os.readlink(f"{directory}/{descriptor}")


def _process(pid: str) -> Process:
    raw, comm = b"", ""
    with suppress(OSError):
        raw = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
        comm = Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    words = raw.decode("utf-8", "backslashreplace").split("\0") if raw else []
    command = one_line(shlex.join(words))
    if len(command) > _LONGEST_COMMAND:
        command = command[: _LONGEST_COMMAND - 1] + "…"
    # As /sbin/init it does not say in its command line what it is.
    program = comm if pid == "1" else program_of(words) or comm
    return Process(int(pid), one_line(program), command)
