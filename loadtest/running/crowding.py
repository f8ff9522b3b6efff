"""Whether there were cores enough: on a full machine latencies are those of waiting for one.

The kernel counts, for each thread, how long it was ready to run and had no core
(/proc/PID/task/TID/schedstat), and for the machine how long its cores were busy (/proc/stat, in
hundredths of a second; what a hypervisor took away is not idle either).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..processes import cpu_ns
from ..targets import PidGroup, Target

_FULL: Final = 0.95  # of all cores
# A process that waits longer than it runs, and for so much of the time, is not what was measured.
_STARVING: Final = 0.1
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_COUNTED: Final = slice(1, 9)  # user to steal; behind them guests, which user has already
_IDLE: Final = (3, 4)  # idle and iowait, of these


@dataclass(frozen=True, slots=True)
class Cores:
    """What the cores together have done since the machine was started."""

    busy_s: float
    all_s: float


def cores(stat: str) -> Cores:
    """Of the first line of /proc/stat."""
    counted = [int(one) / _TICKS_PER_S for one in stat.split("\n", 1)[0].split()[_COUNTED]]
    return Cores(sum(counted) - sum(counted[one] for one in _IDLE), sum(counted))


class Crowding:
    """From when it is made until it is asked."""

    def __init__(self, targets: tuple[Target, ...]) -> None:
        self._groups = [(target.name, group) for target in targets for group in target.groups]
        self._pids = {pid for _, group in self._groups for pid in group.pids}
        self._before = _cores_now()
        self._ran, self._waited = self._ran_ns(), self._waited_ns()

    def notes(self, elapsed_s: float, tool_s: float) -> list[str]:
        """What a reader must know, of a run in which the tool itself used `tool_s`."""
        after, ran, waited = _cores_now(), self._ran_ns(), self._waited_ns()
        ran_s = {pid: (ran[pid] - self._ran.get(pid, 0)) / 1e9 for pid in ran}
        # A thread that has ended is not known any more: what it waited is left out.
        waited_s = dict.fromkeys(self._pids, 0.0)
        for (pid, thread), now in waited.items():
            waited_s[pid] += (now - self._waited.get((pid, thread), 0)) / 1e9
        busy_s, all_s = after.busy_s - self._before.busy_s, after.all_s - self._before.all_s
        found = [full(busy_s, all_s, tool_s, sum(ran_s.values()))]
        for name, group in self._groups:
            who, here = f"{name} ({group.label})", _present(group, ran_s)
            of_it = [sum(table[pid] for pid in here) for table in (ran_s, waited_s)]
            found.append(starving(who, elapsed_s, ran_s=of_it[0], waited_s=of_it[1]))
        return [note for note in found if note]

    def _ran_ns(self) -> dict[int, int]:
        found = {}
        for pid in self._pids:
            try:
                found[pid] = cpu_ns(pid)
            except OSError:
                continue  # it is gone, which the meter tells
        return found

    def _waited_ns(self) -> dict[tuple[int, str], int]:
        """By process and thread; none on a kernel that does not count."""
        found = {}
        for pid in self._pids:
            for thread in Path(f"/proc/{pid}/task").glob("*"):
                try:
                    told = (thread / "schedstat").read_text(encoding="ascii").split()
                except OSError:
                    continue
                found[pid, thread.name] = int(told[1])
        return found


def full(busy_s: float, all_s: float, tool_s: float, targets_s: float) -> str | None:
    """Of the machine; None if it was not."""
    if all_s <= 0 or busy_s / all_s <= _FULL:
        return None
    others_s = max(0.0, busy_s - tool_s - targets_s)
    return (
        f"the machine was full: of its CPU time {busy_s / all_s:.0%} was in use,"
        f" {tool_s / all_s:.0%} by the load tool, {targets_s / all_s:.0%} by the processes of pid="
        f" and {others_s / all_s:.0%} by all others; latencies contain waits for a core"
    )


def starving(who: str, elapsed_s: float, *, ran_s: float, waited_s: float) -> str | None:
    """Of a target's processes; None if they were not."""
    if waited_s <= ran_s or waited_s <= _STARVING * elapsed_s:
        return None
    return (
        f"{who} starved: in {elapsed_s:.3g} s it ran for {ran_s:.2f} s and waited for"
        f" {waited_s:.2f} s until there was a core for it; latencies contain that"
    )


def _present(group: PidGroup, known: dict[int, float]) -> list[int]:
    return [pid for pid in group.pids if pid in known]


def _cores_now() -> Cores:
    return cores(Path("/proc/stat").read_text(encoding="ascii"))
