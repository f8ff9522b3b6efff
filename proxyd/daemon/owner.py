"""Who holds what we need: a process, named so that a person knows what to stop."""

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxyd.daemon.logline import escape

_LONGEST_COMMAND: Final = 200
_LISTEN: Final = "0A"  # TCP_LISTEN in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Owner:
    """A process by its number; 0 stands for one that the kernel does not name to us."""

    pid: int

    @property
    def command(self) -> str:
        """Its command line, or nothing if it is gone or hidden."""
        raw = b""
        with suppress(OSError):  # it ended, or /proc shows only one's own (hidepid)
            raw = Path(f"/proc/{self.pid}/cmdline").read_bytes().rstrip(b"\0")
        words = raw.decode("utf-8", "backslashreplace").split("\0") if raw else []
        text = escape(shlex.join(words))
        return text if len(text) <= _LONGEST_COMMAND else text[: _LONGEST_COMMAND - 1] + "…"

    def __str__(self) -> str:
        if self.pid <= 0:
            return "a process that cannot be named from here"
        command = self.command
        return f"pid {self.pid} ({command})" if command else f"pid {self.pid}"


def port_owner(port: int) -> Owner:
    """Whoever listens on a TCP port; number 0 if the kernel does not say so to us."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not sockets:
        return Owner(0)
    for pid in os.listdir("/proc"):
        if pid.isdecimal() and not sockets.isdisjoint(_descriptors(pid)):
            return Owner(int(pid))
    return Owner(0)


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _descriptors(pid: str) -> Iterator[str]:
    """What a process's descriptors lead to; nothing of one that is not ours to look into."""
    directory = f"/proc/{pid}/fd"
    with suppress(OSError):
        for descriptor in os.listdir(directory):
            with suppress(OSError):
                yield os.readlink(f"{directory}/{descriptor}")
