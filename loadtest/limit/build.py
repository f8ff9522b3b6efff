"""The relay in C, compiled anew for each run, where it is to run."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Final

from ..failures import UsageError

SOURCE: Final = Path(__file__).with_name("relay.c")
REMEDY: Final = "apt-get install gcc libc6-dev libssl-dev on Debian, dnf install gcc openssl-devel"
_WAIT_S: Final = 60.0


def compiler() -> list[str]:
    """The words before its options: CC, or cc."""
    return shlex.split(os.environ.get("CC", "")) or ["cc"]


def built(directory: Path, *, tls: bool) -> Path:
    """A program in that directory. Raises UsageError, which says what has to be installed."""
    program = directory / ("relay-tls" if tls else "relay")
    command = [*compiler(), "-O2", "-o", str(program), str(SOURCE)]
    if tls:
        command += ["-DWITH_TLS", "-lssl", "-lcrypto"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_WAIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it takes over {_WAIT_S:g} s"
        raise UsageError(f"no C compiler, {command[0]}: {reason}; {REMEDY}") from None
    if done.returncode != 0:
        raise UsageError(f"the bare relay cannot be compiled: {_first_error(done)}; {REMEDY}")
    return program


def _first_error(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    return next((line for line in lines if "error" in line), (lines or ["no reason given"])[0])
