"""Finds a daemon's program and runs it, as libvirt's clients do.

Source: docs/protocol/autostart.md, section 2.

Everything here blocks, for milliseconds, and belongs into a thread.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxyd.autostart import launcher

# A daemon that nobody uses for so many seconds ends by itself.
_ARGUMENTS: Final = ("--timeout=120",)
_PASSED_ON: Final = (
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
)
# libvirt's clients know where theirs was installed. A user's PATH often leaves these out.
_SYSTEM_DIRECTORIES: Final = ("/usr/sbin", "/usr/local/sbin", "/sbin")


class CannotLaunch(Exception):
    """The program is not there or cannot be run; the text says why and what helps."""


@dataclass(frozen=True, slots=True)
class Launched:
    """A daemon that was started a moment ago. `let_go` is due in any case."""

    program: str
    pid: int
    _launcher: subprocess.Popen[bytes]

    def status(self) -> int | None:
        """Its exit status, negative for a signal, None while it runs. Does not block."""
        code = self._launcher.poll()
        killed_by = (code or 0) - launcher.KILLED
        return -killed_by if killed_by in signal.valid_signals() else code

    def let_go(self) -> None:
        """Leave the daemon, if it still runs, to the system's first process."""
        self._launcher.kill()
        self._launcher.wait()


def launch(daemon: str, environ: Mapping[str, str]) -> Launched:
    """Run a daemon in the background. Raises CannotLaunch, or OSError without resources."""
    program = find_program(daemon, environ)
    if program is None:
        raise CannotLaunch(_not_found(daemon, environ))
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", launcher.__file__, program, *_ARGUMENTS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=daemon_environment(environ),
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        pid, _, problem = output.read().decode().partition("\n")
    if not pid or problem:
        process.kill()
        process.wait()
        raise CannotLaunch(f"{program} cannot be run: {problem or 'its launcher failed'}")
    return Launched(program, int(pid), process)


def find_program(daemon: str, environ: Mapping[str, str]) -> str | None:
    """The path of a daemon's program, None if it is not installed."""
    for directory in _searched(environ):
        program = f"{directory}/{daemon}"
        if os.path.isfile(program) and os.access(program, os.X_OK):
            return program
    return None


def daemon_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What of our environment a daemon gets."""
    return {"LC_ALL": "C", **{name: environ[name] for name in _PASSED_ON if name in environ}}


def _searched(environ: Mapping[str, str]) -> list[str]:
    """Directories, each once. VIRTD_PATH names the only one, as it does for libvirt's clients."""
    named = environ.get("VIRTD_PATH")
    if named:
        return [os.path.abspath(named)]
    on_path = environ.get("PATH", "").split(os.pathsep)
    # What is relative would depend on where proxyd was started.
    absolute = [directory for directory in on_path if directory.startswith("/")]
    return list(dict.fromkeys([*absolute, *_SYSTEM_DIRECTORIES]))


def _not_found(daemon: str, environ: Mapping[str, str]) -> str:
    driver = daemon.removeprefix("virt").removesuffix("d")
    return (
        f"there is no program {daemon} in {', '.join(_searched(environ))}: install libvirt's"
        f" {driver} driver (a package named like libvirt-daemon-driver-{driver}, libvirt-daemon or"
        " libvirt), or set VIRTD_PATH to the directory where it is"
    )
