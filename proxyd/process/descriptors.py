"""How many sessions the limit of open descriptors has room for, and how many pipes.

Counted is what is held: two for each place, one for everybody who waits for a place, is told that
there is none, or is about to leave (admission/capacity.py), the pipes that the relay may have at
one time, one for each daemon's connection whose client is gone (relay/parting.py), and the ways to
couriers. What is left is a reserve that no client can reach.
"""

import logging
import os
import resource
from typing import Final

from proxyd.admission.capacity import Capacity, largest_within
from proxyd.endpoint.couriers import MOST, SPARE
from proxyd.relay.parting import MOST as MOST_PARTINGS

_RESERVE: Final = 16  # for a reload, the log, /proc, names, administrators, clients being ended
_EACH_PIPE: Final = 2
_MOST_PIPES: Final = 64
_PIPES_TAKE: Final = 8  # one in so many descriptors
_RELAY_THREADS: Final = 2  # one for plain sessions, one for those that are encrypted
# Threads for encrypted sessions. What they do between two calls of a library needs the
# interpreter's lock, which more of them would wait for; and so would everybody else.
_MOST_ENCRYPTING: Final = 8
_ENCRYPTING_TAKE: Final = 64
_EACH_ENCRYPTING: Final = 3  # beyond the first: epoll, what wakes it, and a parting
_PARTINGS_TAKE: Final = 16  # one in so many descriptors, all together, beyond
_FEW: Final = 64
_EACH_COURIER: Final = 4  # two, and while one makes room for another there may be twice as many
_COURIERS_TAKE: Final = 64

log = logging.getLogger("daemon.virtproxyd")


def raise_descriptor_limit() -> None:
    """The usual soft limit would end at 500 clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pipes_allowed(limit: int) -> int:
    """How many the relay may have with so many descriptors: an eighth of them at most.

    Each is a matter of speed alone, and a client that does not read keeps one.
    """
    return min(_MOST_PIPES, limit // (_PIPES_TAKE * _EACH_PIPE))


def partings_allowed(limit: int) -> int:
    """How many each kind of sessions may have with so many descriptors; the first is in reserve.

    Beyond that, the oldest one's daemon is left without a word.
    """
    return min(MOST_PARTINGS, 1 + max(0, limit - _FEW) // (_PARTINGS_TAKE * _RELAY_THREADS))


def encrypting_allowed(limit: int, *, by_network: bool) -> int:
    """How many relay threads encrypted sessions have: one for each processor that this process may
    use, within reason, where anybody can come from the network."""
    if not by_network:
        return 1
    processors = len(os.sched_getaffinity(0))
    return max(1, min(processors, _MOST_ENCRYPTING, limit // _ENCRYPTING_TAKE))


def couriers_allowed(limit: int) -> int:
    """How many users' descriptors may be under way at one time; the first one's are in reserve."""
    return max(1, min(MOST, limit // _COURIERS_TAKE))


def descriptor_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def room_for_sessions(*, by_network: bool) -> int:
    """The largest max_clients that fits beside what is open now, before the first one comes; at
    least one. `by_network`: whether anybody can come from there."""
    limit = descriptor_limit()
    left = limit - len(os.listdir("/proc/self/fd")) - _RESERVE - SPARE
    left -= _RELAY_THREADS * (partings_allowed(limit) - 1)
    left -= _EACH_ENCRYPTING * (encrypting_allowed(limit, by_network=by_network) - 1)
    left -= _EACH_COURIER * (couriers_allowed(limit) - 1)
    return largest_within(left - _EACH_PIPE * pipes_allowed(limit), by_network=by_network)


def fitting(max_clients: int, room: int) -> int:
    """As many of max_clients as there is room for; the rest waits at the listeners.

    Otherwise a client would be let in for whom no daemon could be opened.
    """
    if room < max_clients:
        log.warning(
            "max_clients = %d, but there are descriptors for %d only: the rest will wait; raise"
            " RLIMIT_NOFILE (LimitNOFILE in the unit) by %d",
            max_clients,
            room,
            Capacity.of(max_clients).descriptors - Capacity.of(room).descriptors,
        )
    return min(max_clients, room)
