"""What an installation has to know of the host it runs on, and how it has commands run there."""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxyd.deploy.build import Build

# Runs a command to its end; returns what it complained of, or None when it has succeeded.
Run = Callable[[Sequence[str]], str | None]

_PATIENCE_S: Final = 120  # a service that stops may take 90 s until systemd kills it
_VERSION: Final = re.compile(r"systemd ([0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """`systemd` is its version, None where there is none; `booted` whether it runs the host.

    `root` is where its files are. `package` is the version of the Debian package that this program
    is of, "" if it is of none. `next_lines` says what to do with the service once its files are
    there, in lines for root's bash: that depends on who serves on this host now.
    """

    euid: int
    systemd: int | None
    booted: bool
    run: Run
    root: Path = Path("/")
    package: str = ""
    next_lines: Callable[[], list[str]] = list


def this_host(next_lines: Callable[[], list[str]] = list) -> Host:
    """The one that this process is on."""
    return Host(
        euid=os.geteuid(),
        systemd=_systemd_version(),
        booted=os.path.isdir("/run/systemd/system"),  # sd_booted(3)
        run=run_command,
        package=Build.this().package,
        next_lines=next_lines,
    )


def run_command(command: Sequence[str]) -> str | None:
    """Runs it without input."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"


def _systemd_version() -> int | None:
    try:
        done = subprocess.run(
            ["systemctl", "--version"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.match(done.stdout)
    return int(found[1]) if found else None
