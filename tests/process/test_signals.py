"""Signals arrive as messages, however many there are and whenever they come."""

import errno
import os
import signal
import threading

import pytest
import trio

from proxyd.process.signals import SIGNALS, received_signals

DEADLINE_S = 10

pytestmark = pytest.mark.usefixtures("signals_blocked")


@pytest.mark.parametrize("number", SIGNALS)
async def test_each_signal_arrives(number):
    with received_signals() as signals, trio.fail_after(DEADLINE_S):
        os.kill(os.getpid(), number)

        assert await signals.receive() == number


async def test_one_that_came_before_anybody_waited_arrives():
    os.kill(os.getpid(), signal.SIGTERM)

    with received_signals() as signals, trio.fail_after(DEADLINE_S):
        assert await signals.receive() == signal.SIGTERM


async def test_a_storm_arrives_as_a_few_and_harms_nobody():
    seen = []
    with received_signals() as signals, trio.fail_after(DEADLINE_S):
        for _ in range(20_000):
            os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        while signal.SIGTERM not in seen:
            seen.append(await signals.receive())

    assert len(seen) < 20_000


async def test_afterwards_they_wait_and_no_thread_is_left():
    before = threading.active_count()
    with received_signals():
        assert threading.active_count() == before + 1

    os.kill(os.getpid(), signal.SIGTERM)

    assert threading.active_count() == before
    assert signal.sigwait([signal.SIGTERM]) == signal.SIGTERM


class Unwakable:
    """A trio that cannot be woken, for want of memory; what it was given is there all the same."""

    def __init__(self, token):
        self._token = token

    def run_sync_soon(self, *arguments, **options):
        self._token.run_sync_soon(*arguments, **options)
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


async def test_a_signal_of_which_trio_was_not_told_does_not_end_the_listening(monkeypatch):
    token = Unwakable(trio.lowlevel.current_trio_token())
    monkeypatch.setattr("trio.lowlevel.current_trio_token", lambda: token)
    with received_signals() as signals, trio.fail_after(DEADLINE_S):
        for number in (signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert await signals.receive() == number
