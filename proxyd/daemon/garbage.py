"""When the interpreter looks for garbage in cycles.

A full collection looks at every object there is and stops all threads: 69 ms beside 4,000 sessions
(measured on two busy cores), which every call would feel that is under way. By itself Python makes
one whenever enough has survived, which is when many sessions are opened. Nearly nothing here is
garbage in a cycle: sessions are freed by their counts. So what the start has made is never looked
at again, the young are collected as ever, and all of it when few clients are there to notice.
"""

import gc
from typing import Final

import trio

from proxyd.session.admission import Admission

_YOUNG: Final = 700  # Python's own
_MIDDLE: Final = 10
_NEVER: Final = 1_000_000
_EVERY_S: Final = 600.0
_FEW: Final = 100  # clients; then it takes less than 5 ms
_AT_THE_LATEST: Final = 6  # times that it was put off


async def collect_garbage(admission: Admission) -> None:
    """For as long as the daemon runs; to be started when all that the start needs is there."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
    try:
        put_off = 0
        while True:
            await trio.sleep(_EVERY_S)
            put_off += 1
            if admission.clients < _FEW or put_off == _AT_THE_LATEST:
                gc.collect()
                put_off = 0
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
