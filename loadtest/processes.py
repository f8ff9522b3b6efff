"""What the measured processes cost: CPU time, resident memory, descriptors.

CPU time is the process's own clock (clock_getcpuclockid(3)): nanoseconds, one system call, and
threads that have ended stay counted. /proc/PID/stat counts in steps of 10 ms, and the sum over
/proc/PID/task/*/schedstat drops by what a worker had used when that worker ends.
"""

import os
from dataclasses import dataclass
from time import clock_gettime_ns

from .failures import TargetFailure
from .targets import Target

_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
_CPUCLOCK_SCHED = 2  # linux/posix-timers.h: a clock number is ~PID << 3 | kind


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of the machine a group of processes holds at one moment."""

    label: str
    pids: tuple[int, ...]
    rss_kib: int
    descriptors: int | None  # None: another user's process does not show them


def cpu_ns(pid: int) -> int:
    """CPU time of a whole process so far; OSError when it does not exist."""
    return clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED)


class Meter:
    """Reads the CPU time of a target's processes, group by group."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def read(self) -> dict[str, int]:
        """Nanoseconds so far by label."""
        groups = self._target.groups
        return {group.label: sum(map(self._cpu_ns, group.pids)) for group in groups}

    def standings(self) -> list[Standing]:
        return [
            Standing(
                group.label,
                group.pids,
                sum(map(self._rss_kib, group.pids)),
                self._descriptors(group.pids),
            )
            for group in self._target.groups
        ]

    def _cpu_ns(self, pid: int) -> int:
        try:
            return cpu_ns(pid)
        except OSError:
            raise self._gone(pid) from None

    def _rss_kib(self, pid: int) -> int:
        try:
            with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
                return int(statm.read().split()[1]) * _PAGE_KIB
        except OSError:
            raise self._gone(pid) from None

    def _descriptors(self, pids: tuple[int, ...]) -> int | None:
        try:
            return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
        except PermissionError:
            return None
        except OSError as error:
            raise TargetFailure(self._target.name, f"{error.strerror}: {error.filename}") from error

    def _gone(self, pid: int) -> TargetFailure:
        return TargetFailure(self._target.name, f"there is no process {pid}")


def spent(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {label: after[label] - before[label] for label in after}
