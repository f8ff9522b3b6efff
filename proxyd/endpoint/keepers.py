"""What happens to a user's sockets while the process that should close them does not die.

A process that hangs is of no use any more, not even its queue: the kernel takes that apart first,
or when it is full. So what is to be closed meanwhile goes into the queue of another process, which
does nothing at all: a keeper. Its death closes what is in there. It is killed when the one before
it has ended; should it hang then, the next ones wait for it.
"""

import errno
import socket
import subprocess
from collections import deque
from collections.abc import Callable
from typing import Final

ROLE: Final = "keep"
_MOST: Final = 8  # of one user, each of which takes thousands of sockets

Started = tuple[subprocess.Popen[bytes], socket.socket]


class Dying:
    """A process that has been killed, and the keepers of what comes until all of them have ended.

    `start` starts one, in the role that it is given, and returns the way to it too.
    """

    def __init__(self, process: subprocess.Popen[bytes], start: Callable[[str], Started]) -> None:
        self._process = process
        self._start = start
        self._keepers: deque[Started] = deque()

    def has_ended(self) -> bool:
        while self._process.poll() is not None:
            if not self._keepers:
                return True
            self._process, way = self._keepers.popleft()
            self._process.kill()
            way.close()
        return False

    def another_keeper(self) -> socket.socket:
        """The way to a new one, which never waits and ends with it. Raises OSError."""
        if len(self._keepers) >= _MOST:
            raise OSError(errno.EAGAIN, "too many sockets of one user wait to be closed")
        process, way = self._start(ROLE)
        way.setblocking(False)
        self._keepers.append((process, way))
        return way
