"""Where and with what a run was made: figures are worth nothing without it."""

import os
import platform
import shlex
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

_GIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Machine:
    cores: int
    cpu_model: str
    kernel: str
    python: str
    tool_version: str
    commit: str | None
    command: str
    load: float  # average of the minute before; what else runs here is measured as well


def this_machine(arguments: list[str]) -> Machine:
    """To be asked before the run, which would be seen in the load."""
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        cpu_model=_cpu_model(),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        tool_version=_version(),
        commit=_commit(),
        command=shlex.join(["proxyd-loadtest", *arguments]),
        load=os.getloadavg()[0],
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()  # not every architecture names its model


def _version() -> str:
    try:
        return metadata.version("proxyd")
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    """The commit this file is from, with `-dirty` behind it if the checkout was changed."""
    # Without the locks a report would write into a repository where others work.
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=_GIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
