"""Who holds what we need: a process, named so that a person knows what to stop."""

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxyd.daemon.logline import escape

_LONGEST_COMMAND: Final = 200


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
