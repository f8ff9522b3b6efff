"""User and group names, asked for in a thread and remembered for a while.

Most clients of a host are the same few users; a look-up may go over a network.
"""

import errno
from typing import Final

import trio

from proxyd.auth.peercred import Denied, names_of

_KEPT_S: Final = 60.0  # a renamed user is seen after this
_THREADS: Final = 8
_LIMIT: Final = 1024  # pairs of uid and gid; beyond it everything is asked anew


class NameService:
    """Remembers what the name service said."""

    def __init__(self) -> None:
        # A name service that hangs must not take the threads that others need.
        self._limiter = trio.CapacityLimiter(_THREADS)
        self._kept: dict[tuple[int, int], tuple[float, tuple[str, str]]] = {}

    async def names_of(self, uid: int, gid: int) -> tuple[str, str]:
        """User and group name. Raises Denied, which is not remembered."""
        now = trio.current_time()
        kept = self._kept.get((uid, gid))
        if kept is not None and kept[0] > now:
            return kept[1]
        try:
            names = await trio.to_thread.run_sync(
                names_of, uid, gid, abandon_on_cancel=True, limiter=self._limiter
            )
        except RuntimeError as error:  # EAGAIN of clone(), as threading tells it
            text = f"cannot ask for the name of uid {uid}: {error}"
            raise Denied(text, errno.EAGAIN) from error
        if len(self._kept) >= _LIMIT:
            self._kept.clear()
        self._kept[uid, gid] = (now + _KEPT_S, names)
        return names
