"""The calls that are measured: small ones by their name, and those of a volume's transfer."""

from difflib import get_close_matches
from enum import IntEnum
from typing import Final

from proxyd.wire.names import NAMES
from proxyd.wire.programs import Program

from .failures import UsageError


class Storage(IntEnum):
    """Of the REMOTE program; source: docs/protocol/procedures.tsv."""

    VOL_LOOKUP_BY_PATH = 97
    VOL_GET_INFO = 98
    VOL_UPLOAD = 208
    VOL_DOWNLOAD = 209


# No arguments, a small reply, and nothing changes by them. Nothing in the codec tells which calls
# take arguments, so this is a list.
SMALL_CALLS: Final = (
    "CONNECT_GET_HOSTNAME",
    "CONNECT_GET_LIB_VERSION",
    "CONNECT_GET_TYPE",
    "CONNECT_GET_URI",
    "CONNECT_GET_VERSION",
    "CONNECT_IS_SECURE",
    "CONNECT_NUM_OF_DEFINED_DOMAINS",
    "CONNECT_NUM_OF_DEFINED_NETWORKS",
    "CONNECT_NUM_OF_DEFINED_STORAGE_POOLS",
    "CONNECT_NUM_OF_DOMAINS",
    "CONNECT_NUM_OF_NETWORKS",
    "CONNECT_NUM_OF_SECRETS",
    "CONNECT_NUM_OF_STORAGE_POOLS",
    "NODE_GET_FREE_MEMORY",
    "NODE_GET_INFO",
)


def procedure_number(name: str) -> int:
    """The number of a call that can be measured; raises UsageError with what is nearest."""
    remote = NAMES[Program.REMOTE]
    if name in SMALL_CALLS:
        return remote.index(name)
    if name in remote[1:]:
        raise UsageError(
            f"procedure {name} takes arguments, changes something or has a large reply; "
            f"these can be measured: {', '.join(SMALL_CALLS)}"
        )
    near = get_close_matches(name.upper(), remote[1:], n=3)
    advice = f"nearest are: {', '.join(near)}" if near else f"known are: {', '.join(SMALL_CALLS)}"
    raise UsageError(f"there is no procedure {name!r}; {advice}")
