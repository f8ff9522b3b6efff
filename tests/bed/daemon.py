"""One daemon started by the tests: its directory, its output, its figures and its end."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.bed.command import STOP_DEADLINE_S, as_user, clean_environment
from tests.bed.waiting import wait_until

START_DEADLINE_S: Final = 30.0
FAULT_AFTER_S: Final = 5.0  # what is under way then is no longer the usual end of a daemon
SOCKET_PATH_LIMIT: Final = 107  # sun_path of sockaddr_un, without the final NUL

# Every daemon of this run, so that a failed test can show what they logged.
STARTED: Final[list["Daemon"]] = []

ConfigValue = int | str | Sequence[str]


def open_ways(directory: Path) -> None:
    """Everybody may go to it, whichever directories of this run it lies in."""
    for each in (directory, *directory.parents):
        if each.stat().st_mode & stat.S_ISVTX or each == Path("/"):  # /tmp
            return
        each.chmod(each.stat().st_mode | 0o011)


@contextmanager
def short_directory(mode: int = 0o700) -> Iterator[Path]:
    """A directory whose sockets fit into an address (pytest's tmp_path is too long for that).

    Closed to others unless asked: root's unauthenticated sockets lie in it.
    """
    directory = Path(tempfile.mkdtemp(prefix="pxd", dir="/tmp"))
    directory.chmod(mode)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def conf_text(settings: Mapping[str, ConfigValue | None]) -> str:
    """Settings in libvirt's conf syntax; a None leaves the key out."""

    def literal(value: ConfigValue) -> str:
        match value:
            case int():
                return str(int(value))
            case str():
                return f"'{value}'" if '"' in value else f'"{value}"'
            case _:
                return f"[{', '.join(literal(each) for each in value)}]"

    given = {key: value for key, value in settings.items() if value is not None}
    return "".join(f"{key} = {literal(value)}\n" for key, value in given.items())


def accepts(sock: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(sock))
        except OSError:
            return False
    return True


def serves(sock: Path) -> bool:
    """Whether somebody listens there and has dealt with a client who came and left.

    Who merely listens may still be opening other files and starting threads.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(sock))
            probe.shutdown(socket.SHUT_WR)
            probe.settimeout(START_DEADLINE_S)
            while probe.recv(4096):
                pass
        except ConnectionResetError:
            return True
        except OSError:
            return False
    return True


class Daemon:
    """A process that writes DIR/log and DIR/output and is stopped by its pid."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.conf = directory / "conf"
        self.pid_file = directory / "pid"
        self.log = directory / "log"
        self.output = directory / "output"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def start(
        self,
        command: Sequence[str],
        *,
        sock: Path,
        environment: Mapping[str, str],
        user: int | None = None,
    ) -> None:
        """Start it and wait until it serves on sock; if it does not, the error tells its story."""
        if len(os.fsencode(sock)) > SOCKET_PATH_LIMIT:
            raise ValueError(f"longer than {SOCKET_PATH_LIMIT} bytes: {sock}")
        assert not self.running, f"{self.name} runs already"
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=clean_environment(environment),
                # Ctrl-C is for the one who started us; the daemons are stopped in order.
                start_new_session=True,
                **as_user(user),
            )
        if self not in STARTED:
            STARTED.append(self)
        try:
            self._wait_for(sock)
        except BaseException as cause:
            self.kill()
            cause.add_note(self.story())
            raise

    def _wait_for(self, sock: Path) -> None:
        wait_until(
            lambda: serves(sock) or not self.running,
            START_DEADLINE_S,
            f"{self.name} serves on {sock}",
        )
        if not self.running:
            raise ChildProcessError(f"{self.name} ended with {self.status} at start")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal, None while it runs."""
        return None if self._process is None else self._process.poll()

    def wait(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Wait for its end and return the exit status."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.wait(deadline_s)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, as `kill` would."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL: it gets no chance to tidy up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, known_fault: Callable[[int], bool] = lambda _: False) -> int | None:
        """SIGTERM and wait; one that has to be killed in the end is an error.

        Unless it hangs by a fault of its own, which known_fault recognizes by the pid: that one is
        killed without further ado.
        """
        if self._process is None or self._process.poll() is not None:
            return self.status
        self._process.terminate()
        # One signal only: a second one may mean another thing to it.
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(FAULT_AFTER_S)
        known = known_fault(self.pid)
        if not known:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(STOP_DEADLINE_S - FAULT_AFTER_S)
        self.kill()
        if not known:
            late = TimeoutError(f"{self.name} ran on {STOP_DEADLINE_S:g} s after SIGTERM")
            late.add_note(self.story())
            raise late
        return self.status

    def log_text(self) -> str:
        """What it logged so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def story(self, lines: int = 40) -> str:
        """The end of its log and of its output, for somebody who wonders what went wrong."""
        output = self.output.read_text(errors="replace") if self.output.exists() else ""
        last = self.log_text().splitlines()[-lines:]
        return "\n".join([f"--- {self.name}: log", *last, f"--- {self.name}: output", output])


def descriptors(pid: int) -> dict[int, str]:
    """The open descriptors of a process and what each leads to."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(link.name)] = os.readlink(link)
        except FileNotFoundError:
            continue  # closed since the directory was read
    return found


def status_field(pid: int, field: str) -> int:
    """A number from /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise KeyError(field)
