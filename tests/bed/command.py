"""Commands that run to their end, or are held open for a while, in a clean environment."""

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_DEADLINE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command said and how it ended."""

    command: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    def succeeded(self) -> str:
        """Return its output, or fail with everything that it said."""
        if self.status != 0:
            raise AssertionError(
                f"{shlex.join(self.command)}: exit status {self.status}\n{self.stdout}{self.stderr}"
            )
        return self.stdout

    @property
    def turned_away(self) -> bool:
        """Whether a client of libvirt's ended because the daemon had closed the connection.

        Status 1, or SIGPIPE, which those clients do not ignore, if it was still writing then.
        """
        return self.status in {1, -signal.SIGPIPE}


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of the caller's: no LIBVIRT_*, no language, no files of somebody's home."""
    return {
        "PATH": SYSTEM_PATH,
        "LC_ALL": "C",
        # Where not even root can make one: who needs a home is given one.
        "HOME": "/proc/nonexistent",
        # A client that finds no daemon would start one of its own, which nobody here would stop.
        "LIBVIRT_AUTOSTART": "0",
        **(more or {}),
    }


def run_to_end(
    command: Sequence[str],
    *,
    deadline_s: float,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
    pass_fds: Sequence[int] = (),
) -> Finished:
    """Run a command with the given input or none; TimeoutExpired when it had to be killed."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL if stdin is None else None,
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=deadline_s,
        env=clean_environment(environment),
        pass_fds=pass_fds,
        **as_user(user),
    )
    return Finished(tuple(command), done.returncode, done.stdout, done.stderr)


@contextmanager
def held_open(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[subprocess.Popen[str]]:
    """Start a command with pipes to its stdin and from its stdout; it ends with the block.

    Its stderr is ours, so that pytest shows it beside a failure.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        env=clean_environment(environment),
        pass_fds=pass_fds,
        start_new_session=True,
        **as_user(user),
    ) as process:
        try:
            yield process
        finally:
            end_process(process)


def end_process(process: subprocess.Popen[Any], deadline_s: float = STOP_DEADLINE_S) -> bool:
    """SIGTERM, then SIGKILL after the deadline; true if the first was enough."""
    process.terminate()
    try:
        process.wait(deadline_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def as_user(user: int | None) -> dict[str, Any]:
    """What subprocess needs to become another user: the group of the same number and no other."""
    if user is None or user == os.geteuid():
        return {}
    return {"user": user, "group": user, "extra_groups": []}


@contextmanager
def effective(uid: int, gid: int) -> Iterator[None]:
    """For as long as a socket is made or connected, which remembers who did it."""
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
