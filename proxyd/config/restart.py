"""Which changed settings wait for a restart: a reload cannot put them in force."""

from typing import Final

from proxyd.config.kinds import When
from proxyd.config.settings import Settings, keys

# What is built into the sockets and their doors.
FIXED_AT_START: Final = keys(When.START)


def waiting_for_restart(at_start: Settings, in_file: Settings) -> tuple[str, ...]:
    """The keys of which the file says something else than it did when the daemon started."""
    return tuple(key for key in FIXED_AT_START if getattr(in_file, key) != getattr(at_start, key))
