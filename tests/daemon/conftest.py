"""What tests need that run a daemon, or its reception of signals, inside the test process."""

import signal

import pytest

from proxyd.daemon.signals import SIGNALS, block_signals


@pytest.fixture
def signals_blocked():
    """No thread of the test takes a signal that is meant for the daemon, and none is left over."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    block_signals()
    yield
    while signal.sigtimedwait(SIGNALS, 0) is not None:
        continue
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
