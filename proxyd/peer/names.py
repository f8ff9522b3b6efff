"""User and group names, asked for in a thread and remembered for a while.

Most clients of a host are the same few users; a look-up may go over a network. Whoever has no name
can ask for it again and again, so that is remembered too, for as long as an administrator needs to
add one and try; and of many who ask for the same at the same time one takes a thread.

A name service whose server is away answers late or never. Who has been named before does not wait
for it: the names that were true a minute ago are taken for some seconds more.
"""

import errno
import math
from collections.abc import Iterable
from typing import Any, Final

import trio

from proxyd.peer.credentials import Denied, group_names_of, names_of

_KEPT_S: Final = 60.0  # a renamed user is seen after this
_NAMELESS_S: Final = 5.0
_PATIENCE_S: Final = 0.25  # with a look-up whose answer is known from before
_STILL_S: Final = 5.0  # until it is tried again
_THREADS: Final = 8
_THREADS_OF_KNOWN: Final = 4
_LIMIT: Final = 1024  # pairs of uid and gid; beyond it everything is asked anew
_MOST_GROUPS: Final = 1024  # of one process: 0.2 s of a thread where nothing is remembered


class NameService:
    """Remembers what the name service said."""

    def __init__(self) -> None:
        # A name service that hangs must not take the threads that others need.
        self._limiter = trio.CapacityLimiter(_THREADS)
        # Nor those of one user's uids that have no name whom it has named before, or root.
        self._limiter_of_known = trio.CapacityLimiter(_THREADS_OF_KNOWN)
        self._kept: dict[tuple[int, int], tuple[float, tuple[str, str]]] = {}
        self._nameless: dict[tuple[int, int], tuple[float, str]] = {}
        self._asked: dict[tuple[int, int], trio.Event] = {}  # set when there is an answer
        self._groups: dict[int, tuple[float, frozenset[str]]] = {}  # a name, or none

    async def names_of(self, uid: int, gid: int) -> tuple[str, str]:
        """User and group name. Raises Denied, and again for some seconds if there is no name."""
        while (asked := self._asked.get((uid, gid))) is not None:
            await asked.wait()
        now = trio.current_time()
        kept = self._kept.get((uid, gid))
        if kept is not None and kept[0] > now:
            return kept[1]
        until, why = self._nameless.get((uid, gid), (now, ""))
        if until > now:
            raise Denied(why)
        self._asked[uid, gid] = trio.Event()
        known = kept is not None or uid == 0
        keeps_s, names = _STILL_S, kept[1] if kept is not None else None
        try:
            with trio.move_on_after(math.inf if kept is None else _PATIENCE_S):
                names = await trio.to_thread.run_sync(
                    names_of,
                    uid,
                    gid,
                    abandon_on_cancel=True,
                    limiter=self._limiter_of_known if known else self._limiter,
                )
                keeps_s = _KEPT_S
        except RuntimeError as error:  # EAGAIN of clone(), as threading tells it
            text = f"cannot ask for the name of uid {uid}: {error}"
            raise Denied(text, errno.EAGAIN) from error
        except Denied as error:
            if error.errno == errno.ENOENT:  # and not for want of what it takes to ask
                _bound(self._nameless)
                self._nameless[uid, gid] = (now + _NAMELESS_S, str(error))
            raise
        finally:
            self._asked.pop((uid, gid)).set()
        assert names is not None
        _bound(self._kept)
        self._kept[uid, gid] = (trio.current_time() + keeps_s, names)
        return names

    async def group_names_of(self, gids: Iterable[int]) -> frozenset[str]:
        """The names of groups that have one. Raises Denied for more than anybody is in."""
        wanted = list(dict.fromkeys(gids))
        if len(wanted) > _MOST_GROUPS:
            text = f"it is in {len(wanted)} groups, {_MOST_GROUPS} are looked up at the most"
            raise Denied(text, errno.E2BIG)
        now, found, unknown = trio.current_time(), list[frozenset[str]](), list[int]()
        for gid in wanted:
            until, names = self._groups.get(gid, (now, frozenset()))
            if until > now:
                found.append(names)
            else:
                unknown.append(gid)
        if unknown:
            found += await self._ask_for_groups(unknown)
        return frozenset().union(*found)

    async def _ask_for_groups(self, gids: list[int]) -> list[frozenset[str]]:
        """Raises Denied."""
        answers = [(gid, self._groups[gid][1]) for gid in gids if gid in self._groups]
        known, keeps_s = len(answers) == len(gids), _STILL_S
        try:
            with trio.move_on_after(_PATIENCE_S if known else math.inf):
                answers = await trio.to_thread.run_sync(
                    _each_named,
                    gids,
                    abandon_on_cancel=True,
                    limiter=self._limiter_of_known if known else self._limiter,
                )
                keeps_s = _KEPT_S
        except RuntimeError as error:  # EAGAIN of clone(), as threading tells it
            raise Denied(f"cannot ask for the names of groups: {error}", errno.EAGAIN) from None
        for gid, named in answers:
            _bound(self._groups)
            self._groups[gid] = (trio.current_time() + keeps_s, named)
        return [named for _, named in answers]


def _each_named(gids: list[int]) -> list[tuple[int, frozenset[str]]]:
    return [(gid, group_names_of([gid])) for gid in gids]


def _bound(remembered: dict[Any, Any]) -> None:
    if len(remembered) >= _LIMIT:
        remembered.clear()
