"""How many sessions the limit of open descriptors has room for."""

import logging
import os
import resource
from typing import Final

_EACH: Final = 2  # the client's and the daemon's connection; pipes are a matter of speed alone
_RESERVE: Final = 16  # for a reload, the log, /proc, and clients that are still being met

log = logging.getLogger("daemon.virtproxyd")


def raise_descriptor_limit() -> None:
    """The usual soft limit would end at 500 clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def room_for_sessions() -> int:
    """How many fit beside what is open now, before the first one comes; at least one."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, (limit - len(os.listdir("/proc/self/fd")) - _RESERVE) // _EACH)


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
            _EACH * (max_clients - room),
        )
    return min(max_clients, room)
