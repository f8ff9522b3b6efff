"""Another user, who locks what he can only read."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

NOBODY: Final = 65534

# What anybody can do who may read the file; the word of its lock says how.
STRANGER: Final = """
import fcntl, os, sys
descriptor = int(sys.argv[1])
fcntl.{lock}
print("held", flush=True)
sys.stdin.read()
"""
# F_OFD_SETLK is 37: a lock of the open file, which no process owns.
LOCKS: Final = {
    "a read lock": "lockf(descriptor, fcntl.LOCK_SH, 1, 0)",
    "a read lock of everything": "lockf(descriptor, fcntl.LOCK_SH)",
    "one of the open file": (
        "fcntl(descriptor, 37, __import__('struct').pack('@hhqqi4x', fcntl.F_RDLCK, 0, 0, 1, 0))"
    ),
    "flock": "flock(descriptor, fcntl.LOCK_EX)",
}


@contextmanager
def held_by_a_stranger(path: Path, lock: str = "a read lock") -> Iterator[subprocess.Popen[bytes]]:
    """Another user's process has locked a file or directory as far as it can."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    # Opened here, because directories of tests are not open to others.
    descriptor = os.open(path, os.O_RDONLY)
    command = ["/usr/bin/python3", "-c", STRANGER.format(lock=LOCKS[lock]), str(descriptor)]
    with subprocess.Popen(command, user=NOBODY, pass_fds=[descriptor], **pipes) as child:
        os.close(descriptor)
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield child
        child.kill()
