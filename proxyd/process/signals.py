"""Signals as messages: blocked in every thread, taken by one that waits for them.

No handler is ever installed. A handler runs between any two bytecodes of the main thread, and in
a storm one interrupts the other until Python's stack is full; and handlers have to be taken away
again before the process has ended, which leaves a moment in which the next signal kills it. A
blocked signal just waits: while the daemon starts, until the thread takes it, and at the end for
ever.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import trio

SIGNALS: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,  # hands over to the program that is installed now, as virtlogd does
)
# Other daemons reopen logs or start anew upon these, so somebody's script may send them here, where
# the default would be to die without giving anything back (docs/protocol/process.md, section 5).
UNUSED: Final = (signal.SIGUSR2,)
_KEPT: Final = 16  # of those not looked at yet; one of each kind would do

log = logging.getLogger("daemon.virtproxyd")


def block_signals() -> None:
    """From now on they wait, in this thread and in those that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*SIGNALS, *UNUSED))


@contextmanager
def received_signals() -> Iterator[trio.MemoryReceiveChannel[int]]:
    """The signals that arrive while the block lasts, and those that waited for it.

    They must have been blocked before the process had a second thread.
    """
    send, receive = trio.open_memory_channel[int](_KEPT)
    token = trio.lowlevel.current_trio_token()
    over = threading.Event()

    def hand_over(number: int) -> None:
        # A storm: those that wait already say the same. And the last may come when all is over.
        with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            send.send_nowait(number)

    def wait() -> None:
        told = set[int]()
        while True:
            number = signal.sigwait((*SIGNALS, *UNUSED))
            if over.is_set():
                return
            if number in UNUSED:
                if number not in told:
                    told.add(number)
                    name = signal.Signals(number).name
                    log.warning("%s means nothing here and is ignored, now and later", name)
                continue
            # Idempotent: what has not been taken yet is not put there twice. An error says that
            # trio was not woken; it is there all the same, and taken when trio wakes next.
            with suppress(OSError):
                token.run_sync_soon(hand_over, number, idempotent=True)

    thread = threading.Thread(target=wait, name="signals", daemon=True)
    thread.start()
    try:
        yield receive
    finally:
        over.set()
        # To the process: the thread may have ended over another one, and then this one waits.
        os.kill(os.getpid(), signal.SIGHUP)
        thread.join()
        send.close()
        receive.close()
