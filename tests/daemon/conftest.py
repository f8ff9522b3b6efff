"""What tests need that run a daemon, or its reception of signals, inside the test process."""

import faulthandler
import signal
from pathlib import Path

import pytest

from proxyd.process.signals import SIGNALS, block_signals
from tests.bed.waiting import wait_until


@pytest.fixture
def signals_blocked():
    """No thread of the test takes a signal that is meant for the daemon, and none is left over.

    Threads of earlier tests that idle in trio's cache would take it, and the process would end.
    """
    # pytest's watchdog is a thread too, and blocks signals a moment after it has begun.
    faulthandler.cancel_dump_traceback_later()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    block_signals()
    wait_until(lambda: not open_threads(), 15, "threads that could take a signal have ended")
    yield
    while signal.sigtimedwait(SIGNALS, 0) is not None:
        continue
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def open_threads():
    """Threads of this process that do not block SIGTERM."""
    return [task.name for task in Path("/proc/self/task").iterdir() if not blocks_sigterm(task)]


def blocks_sigterm(task):
    try:
        text = (task / "status").read_text()
    except FileNotFoundError:
        return True  # it has just ended
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return bool(int(fields["SigBlk"], 16) >> (signal.SIGTERM - 1) & 1)
