"""A program of its own: `python -I -S launcher.py PROGRAM ARGUMENT…` makes PROGRAM a daemon.

A daemon must not become a child of proxyd, which would have to reap it some day; so somebody has
to fork in between. proxyd has threads and cannot (the child would inherit locks that nobody opens
any more), a fresh interpreter can. Its starter has given it `/` as the directory, a session of
its own, the daemon's environment, and /dev/null as standard input and error.

To standard output goes the daemon's pid in one line, and behind it, should the program not run,
the reason. The end of the output means that it runs. The launcher then stays until the daemon
ends, only to end with the same exit status, 128 and the number of the signal if it was killed;
or until its starter, who is content with the daemon, kills the launcher.
"""

import ctypes
import os
import signal
import sys
from typing import Final, NoReturn

_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_NOT_RUN: Final = 127  # what a shell says of a program that it cannot run
KILLED: Final = 128  # and the number of the signal, as a shell says it


def main(command: list[str]) -> NoReturn:
    """Run the command and end as it ends."""
    report = os.dup(sys.stdout.fileno())  # like all of Python's, closed by exec
    os.dup2(sys.stdin.fileno(), sys.stdout.fileno())
    _forget_our_starter()
    pid = os.fork()
    if pid == 0:
        _become(command, report)
    os.close(report)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else KILLED - code)


def _forget_our_starter() -> None:
    """What outlives exec, and a daemon would otherwise have from proxyd."""
    # Before the mask: what is ignored stays ignored, and Python ignores SIGPIPE.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    # proxyd blocks its stop signals; a daemon that inherited that could only be killed.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # No capability of a user's survives exec but the ambient ones. An old kernel has none.
    ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def _become(command: list[str], report: int) -> NoReturn:
    os.write(report, b"%d\n" % os.getpid())
    try:
        os.execv(command[0], command)  # noqa: S606 (no shell, by intent)
    except OSError as error:
        os.write(report, os.strerror(error.errno or 0).encode())
        os._exit(_NOT_RUN)


if __name__ == "__main__":
    main(sys.argv[1:])
