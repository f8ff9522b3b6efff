"""When the interpreter looks for garbage in cycles.

A full collection looks at every object there is and stops all threads: 69 ms beside 4,000 sessions
(measured on two busy cores), which every call would feel that is under way. By itself Python makes
one whenever enough has survived, which is when many sessions are opened. Nearly nothing here is
garbage in a cycle: sessions are freed by their counts. So what the start has made is never looked
at again, the young are collected as ever, and all of it when few clients are there to notice.

Clients that were refused are another matter. The error of a TLS handshake holds its own traceback,
and with it what the stranger had sent, 130 KiB at worst. One in twenty outlives the collections of
the young, so a full one comes after so many of them, whoever notices.
"""

import gc
from typing import Final

import trio

from proxyd.session.roster import Roster

_YOUNG: Final = 700  # Python's own
_MIDDLE: Final = 10
_NEVER: Final = 1_000_000
_EVERY_S: Final = 600.0
_FEW: Final = 100  # clients; then it takes less than 5 ms
_AT_THE_LATEST: Final = 3600.0
_LOOK_EVERY_S: Final = 1.0
_MOST_REFUSED: Final = 1000  # since the last one: some 10 MiB are held then


async def collect_garbage(roster: Roster) -> None:
    """For as long as the daemon runs; to be started when all that the start needs is there."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
    try:
        refused, last = roster.unopened, trio.current_time()
        while True:
            await trio.sleep(_LOOK_EVERY_S)
            waited_s = trio.current_time() - last
            patience_s = _EVERY_S if len(roster.clients) < _FEW else _AT_THE_LATEST
            if waited_s >= patience_s or roster.unopened - refused >= _MOST_REFUSED:
                gc.collect()
                refused, last = roster.unopened, trio.current_time()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
