"""A proxyd that hands over to another process of itself, as often as one likes."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.bed.command import Finished, run_to_end
from tests.bed.daemon import descriptors, status_field
from tests.bed.proxyd import Proxyd
from tests.bed.waiting import wait_until

DEADLINE_S: Final = 120.0
GONE_S: Final = 30.0


class Upgrading:
    """Its processes, the one that serves last. The first one is the Proxyd's own child."""

    def __init__(self, proxyd: Proxyd) -> None:
        self.proxyd = proxyd
        self.pids = [proxyd.pid]

    @property
    def pid(self) -> int:
        """The one that serves."""
        return self.pids[-1]

    @property
    def processes(self) -> list[int]:
        """Those that live."""
        return [pid for pid in self.pids if lives(pid)]

    def command(self, *words: str, program: Sequence[str] = ("-m", "proxyd")) -> Finished:
        """A command of proxyd's, to this one."""
        return run_to_end(
            self.words(*words, program=program),
            deadline_s=DEADLINE_S,
            environment=self.environment,
        )

    def words(self, name: str, *more: str, program: Sequence[str] = ("-m", "proxyd")) -> list[str]:
        """Such a command's, for those who start it themselves, in this environment."""
        return [sys.executable, *program, name, "--socket", str(self.proxyd.admin_sock), *more]

    environment: Final = {"PYTHONPATH": str(Path(__file__).parents[2])}

    def upgrade(self) -> dict[str, Any]:
        """Has it hand over; what the command says of that."""
        done = json.loads(self.command("upgrade", "--json").succeeded())
        self.took_over(done["pid"])
        return done

    def took_over(self, pid: int) -> None:
        """That process serves now."""
        assert pid == self.named_pid(), "the pid file names another process"
        self.pids.append(pid)

    def named_pid(self) -> int:
        """What the pid file says."""
        return int(self.proxyd.daemon.pid_file.read_text())

    def gone(self, pid: int) -> None:
        """Waits for the end of a process that was left by all."""
        wait_until(lambda: not lives(pid), GONE_S, f"process {pid} ends")

    def clients(self) -> list[dict[str, Any]]:
        return json.loads(self.command("clients", "--json").succeeded())

    def status(self) -> dict[str, Any]:
        return json.loads(self.command("status", "--json", "--passive").stdout)


@contextmanager
def upgrading(proxyd: Proxyd) -> Iterator[Upgrading]:
    """All processes of it are ended with the block, in order if they can be."""
    made = Upgrading(proxyd)
    try:
        yield made
        stop(made, signal.SIGTERM)
    finally:
        stop(made, signal.SIGKILL)


def stop(made: Upgrading, number: signal.Signals) -> None:
    """The one that serves, and with it all."""
    known = {*made.pids}
    with suppress(OSError, ValueError):
        known.add(made.named_pid())
    for pid in known:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    for pid in known:
        made.gone(pid)


def lives(pid: int) -> bool:
    """A process that has ended, and that nobody has asked about, does not."""
    try:
        return "Z" not in _state(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False


def _state(pid: int) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("State:"):
            return line
    return "Z"


def rss_kib(pid: int) -> int:
    return status_field(pid, "VmRSS")


def descriptors_of(pid: int) -> int:
    """Those that are somebody's: pipes are kept for the next long frame, couriers for a while."""
    kept = ("pipe:", os.devnull)
    targets = descriptors(pid).values()
    return sum(not target.startswith(kept) for target in targets) - len(children_of(pid))


def children_of(pid: int) -> list[int]:
    return [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]


def peak_kib(pid: int) -> int:
    return status_field(pid, "VmHWM")


def cpu_s(pid: int) -> float:
    """What it has used so far, its children that have ended not among it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stat_is_stopped(pid: int) -> bool:
    """By a signal."""
    return "T" in _state(pid)
