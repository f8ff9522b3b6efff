"""A daemon run inside the test process leaves its stop signals blocked; here they come back."""

import signal

import pytest


@pytest.fixture(autouse=True)
def signals_as_before():
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
