"""Processes that are stopped, and the sockets that they hold."""

import os
import signal
from pathlib import Path

from tests.bed.waiting import wait_until

STILL = 5  # equal looks in a row, 20 ms apart


def wait_until_still(front):
    """The number of descriptors once sessions of earlier tests have ended."""
    seen = []

    def unchanged():
        seen.append(sockets_of(front))
        return len(set(seen[-STILL:])) == 1 and len(seen) >= STILL

    wait_until(unchanged, 20, "no session ends any more")
    return seen[-1]


def sockets_of(front):
    # Pipes that wait for the next long frame are kept by intent, a handful of them; and couriers,
    # a socket each, wait a while for the next descriptor, with some set aside for their start.
    kept = ("pipe:", os.devnull)
    sockets = sum(not target.startswith(kept) for target in front.descriptors().values())
    return sockets - len(couriers_of(front))


def couriers_of(front):
    children = [
        int(pid)
        for thread in Path(f"/proc/{front.pid}/task").iterdir()
        for pid in (thread / "children").read_text().split()
    ]
    return [pid for pid in children if "courier.py" in Path(f"/proc/{pid}/cmdline").read_text()]


def freeze(daemon):
    """SIGSTOP, until every thread stands still: one of them takes the signal, the others follow."""
    os.kill(daemon.pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{daemon.pid}/task")
    wait_until(
        lambda: all(") T " in (task / "stat").read_text() for task in tasks.iterdir()),
        10,
        "every thread is stopped",
    )
