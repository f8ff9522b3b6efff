"""Going into the background for `-d`, and telling the starter how it went.

Source: docs/protocol/process.md, section 1.

The process that the person started waits on a pipe while its grandchild starts up, so that
`proxyd -d && virsh …` finds a daemon that listens, and a mistake in the configuration is an error
of the command and not a line in some log.

What goes through the pipe: one byte 0 for "ready", or one byte with the exit status and then the
text of the error. Nothing at all means that the daemon died.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Final, NoReturn, Protocol

from proxyd.log.journal import priority_of_error

_STDERR: Final = 2
_READY: Final = b"\0"
_CHUNK: Final = 4096


class Readiness(Protocol):
    """Whom to tell how the start went. What is told after that has no listener."""

    def ready(self) -> None:
        """The daemon serves."""

    def failed(self, message: str, status: int) -> None:
        """The daemon ends with this exit status; the message goes to the starter's stderr."""


class Foreground:
    """The starter is still there and sees the exit status itself."""

    def ready(self) -> None:
        """Nobody waits for it."""

    def failed(self, message: str, status: int) -> None:
        """Print the message, as the waiting parent would."""
        _complain(message)


class Background:
    """The daemon's end of the pipe to the waiting parent."""

    def __init__(self, report: int, null: int) -> None:
        self._report = report
        self._null = null

    def ready(self) -> None:
        """Let go of the terminal, then let the parent end with status 0."""
        if self._report < 0:
            return
        # In this order: whoever waits for the parent may also wait for the end of its output.
        for standard in (0, 1, 2):
            os.dup2(self._null, standard)
        self._tell(_READY)

    def failed(self, message: str, status: int) -> None:
        """Let the parent print the message and end with the same status. This process goes on to
        its own end."""
        code = status if 0 < status <= 0xFF else 1
        self._tell(bytes([code]) + message.encode("utf-8", "backslashreplace"))

    def _tell(self, told: bytes) -> None:
        if self._report < 0:  # told already, and the number may be another file's by now
            return
        # A starter that was interrupted hears nothing any more; the daemon runs all the same.
        with suppress(BrokenPipeError):
            while told:
                told = told[os.write(self._report, told) :]
        os.close(self._report)
        os.close(self._null)
        self._report = self._null = -1


def become_daemon() -> Readiness:
    """Go on in a process of its own session; the process that called never returns from here.

    Must run before there is any thread or trio loop, since only the calling thread survives a
    fork. Raises OSError if there can be no second process.
    """
    if threading.active_count() != 1:
        raise RuntimeError("a program with threads cannot fork: become a daemon before them")
    for buffered in (sys.stdout, sys.stderr):  # or it would be written twice
        with suppress(AttributeError, OSError):  # None if its descriptor was closed; a dead pipe
            buffered.flush()
    null = _open_null()
    heard, report = os.pipe2(os.O_CLOEXEC)
    # An interrupt ends the waiting process like any program, without a traceback. That is set
    # before the fork, so that there is no moment in which it is not so yet.
    on_interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        child = os.fork()
        if child:
            os.close(report)
            _wait_and_exit(heard, child)
    finally:
        signal.signal(signal.SIGINT, on_interrupt)
    os.close(heard)
    readiness = Background(report, null)
    try:
        os.setsid()
        # The leader of a session can get a terminal again by opening one; its child cannot.
        if os.fork():
            os._exit(0)
        os.chdir("/")
    except OSError as error:
        readiness.failed(f"cannot go into the background: {error.strerror}", 1)
        os._exit(1)
    return readiness


def _open_null() -> int:
    # A starter may have closed standard descriptors. Then these holes are filled first, or our
    # pipe would take the number 2 and be told the program's tracebacks.
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    return null if null > _STDERR else _open_null()


def _wait_and_exit(heard: int, child: int) -> NoReturn:
    os.waitpid(child, 0)  # ends as soon as it has forked
    told = b""
    while told != _READY and (chunk := os.read(heard, _CHUNK)):
        told += chunk
    if told == _READY:
        os._exit(0)
    if told:
        _complain(told[1:].decode("utf-8", "replace"))
        os._exit(told[0])
    _complain("the daemon ended before it was ready and gave no reason; see its log")
    os._exit(1)


def _complain(message: str) -> None:
    # Unbuffered, since os._exit flushes nothing; a closed stderr is no reason to fail differently.
    line = f"{priority_of_error(_STDERR)}proxyd: {message}\n"
    with suppress(OSError):
        os.write(_STDERR, line.encode("utf-8", "backslashreplace"))
