"""Times by buckets, as Prometheus counts them: one writer, read by any thread.

A library's histogram takes a lock and a dictionary for each time that it is told; here it is a
search in a short list and two additions, which a relay thread can afford for a call.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

_US: Final = 1_000
_MS: Final = 1_000_000
_S: Final = 1_000_000_000

# A call: from what a daemon has in memory to what asks a hypervisor; a migration is beyond them.
CALL_NS: Final = (
    *(each * _US for each in (50, 100, 250, 500)),
    *(each * _MS for each in (1, 2.5, 5, 10, 25, 50, 100, 250, 500)),
    *(each * _S for each in (1, 2.5, 10, 60)),
)
# A turn of a relay thread, in which nobody else is served.
TURN_NS: Final = tuple(each * _US for each in (5, 10, 25, 50, 100, 250, 500, 1000, 5000, 25_000))
# What comes before a session: a handshake, the opening of a daemon.
STEP_NS: Final = (
    *(each * _MS for each in (0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)),
    *(each * _S for each in (1, 2.5, 10, 30)),
)
# From a virsh to the connection of an application that stays.
SESSION_NS: Final = tuple(
    each * _S for each in (0.01, 0.1, 1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400)
)


class Histogram:
    """`counts` is by bucket: those up to each of the bounds, in ns, and at the end all beyond."""

    __slots__ = ("bounds_ns", "counts", "sum_ns")

    def __init__(self, bounds_ns: Sequence[float]) -> None:
        self.bounds_ns = bounds_ns
        self.counts = [0] * (len(bounds_ns) + 1)
        self.sum_ns = 0

    def observe(self, ns: int) -> None:
        """Counts one time."""
        self.counts[bisect_left(self.bounds_ns, ns)] += 1
        self.sum_ns += ns
