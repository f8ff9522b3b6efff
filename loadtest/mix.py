"""What a run does: weighted calls, and connections that hold.

A mix is text, `small=8,xml=1,download:1MiB=1,events=2,idle=50`. Calls and transfers have a weight.
`events` and `idle` have none: they are that many connections more, each of which registers for
events and counts them, or does nothing. Every item has its procedure's name as well:
`CONNECT_GET_LIB_VERSION=8`.
"""

import random
from argparse import ArgumentTypeError
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import reduce
from itertools import cycle
from math import gcd
from typing import Final

from proxyd.wire.names import procedure_name
from proxyd.wire.programs import Program

from . import amounts, tables
from .failures import UsageError
from .procedures import SMALL_CALLS, Storage, procedure_number

LARGEST_WEIGHT: Final = 10_000
MOST_HELD: Final = 100_000
# A shuffled round at least so long: nobody should see the same order all the time.
_LEAST_ROUND: Final = 1000


class Large(IntEnum):
    """Calls with arguments, a large reply or one that goes on; source:
    docs/protocol/procedures.tsv."""

    CONNECT_GET_CAPABILITIES = 7
    DOMAIN_GET_XML_DESC = 14
    CONNECT_LIST_ALL_DOMAINS = 273
    CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY = 316


class Hold(Enum):
    """What a connection does that makes no calls."""

    EVENTS = "events"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Work:
    """A call, or the transfer of a volume's first `size` bytes."""

    procedure: int
    size: int = 0

    @property
    def title(self) -> str:
        """Its procedure's name; a transfer's size stands behind it."""
        name = procedure_name(Program.REMOTE, self.procedure)
        return f"{name} {tables.size(self.size)}" if self.size else name


@dataclass(frozen=True, slots=True)
class Mix:
    """Weighted work, and how many connections hold beside it."""

    work: tuple[tuple[Work, int], ...]
    events: int = 0
    idle: int = 0

    @property
    def needs_volume(self) -> bool:
        return any(work.size for work, _ in self.work)

    @property
    def writes(self) -> bool:
        """Whether a volume is written over."""
        return any(work.procedure == Storage.VOL_UPLOAD for work, _ in self.work)

    @property
    def needs_domain(self) -> bool:
        return any(work.procedure == Large.DOMAIN_GET_XML_DESC for work, _ in self.work)

    def endless(self, seed: int) -> Iterator[int]:
        """Places in `work`, shuffled, each in every round exactly as often as its weight says."""
        common = reduce(gcd, (weight for _, weight in self.work))
        once = [
            place for place, (_, weight) in enumerate(self.work) for _ in range(weight // common)
        ]
        order = once * -(-_LEAST_ROUND // len(once))
        random.Random(seed).shuffle(order)  # noqa: S311 (nothing secret is drawn)
        return cycle(order)


_WORK: Final = {
    "small": procedure_number("CONNECT_GET_LIB_VERSION"),
    "xml": Large.CONNECT_GET_CAPABILITIES,
    "list": Large.CONNECT_LIST_ALL_DOMAINS,
    "CONNECT_GET_CAPABILITIES": Large.CONNECT_GET_CAPABILITIES,
    "DOMAIN_GET_XML_DESC": Large.DOMAIN_GET_XML_DESC,
    "CONNECT_LIST_ALL_DOMAINS": Large.CONNECT_LIST_ALL_DOMAINS,
}
_TRANSFERS: Final = {
    "download": Storage.VOL_DOWNLOAD,
    "upload": Storage.VOL_UPLOAD,
    "STORAGE_VOL_DOWNLOAD": Storage.VOL_DOWNLOAD,
    "STORAGE_VOL_UPLOAD": Storage.VOL_UPLOAD,
}
_HOLDS: Final = {
    "events": Hold.EVENTS,
    "idle": Hold.IDLE,
    "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY": Hold.EVENTS,
}
KNOWN: Final = (
    "small, xml, list, download:SIZE, upload:SIZE, events and idle, "
    "CONNECT_GET_CAPABILITIES, DOMAIN_GET_XML_DESC, CONNECT_LIST_ALL_DOMAINS, "
    f"{', '.join(SMALL_CALLS)}"
)


def parse_mix(text: str) -> Mix:
    """Raises UsageError, which names the item and what is known."""
    work: dict[Work, int] = {}
    held = dict.fromkeys(Hold, 0)
    for item in text.split(","):
        name, equals, number = item.strip().partition("=")
        hold = _HOLDS.get(name)
        amount = _amount(item, number if equals else "1", MOST_HELD if hold else LARGEST_WEIGHT)
        if hold:
            held[hold] += amount
        else:
            found = _work(name)
            work[found] = work.get(found, 0) + amount
    return Mix(tuple(work.items()), held[Hold.EVENTS], held[Hold.IDLE])


def _amount(item: str, text: str, limit: int) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= limit:
        raise UsageError(f"{item!r} in the mix: expected NAME=NUMBER, from 1 to {limit}")
    return int(text)


def _work(name: str) -> Work:
    kind, colon, size = name.partition(":")
    if kind in _TRANSFERS:
        try:
            return Work(_TRANSFERS[kind], amounts.size(size))
        except ArgumentTypeError as error:
            raise UsageError(f"{name!r} in the mix: {error}; as in {kind}:1MiB") from None
    if colon:
        raise UsageError(f"{name!r} in the mix: only download and upload have a size")
    if name in _WORK:
        return Work(_WORK[name])
    if name in SMALL_CALLS:
        return Work(procedure_number(name))
    raise UsageError(f"{name!r} cannot be in a mix; known are {KNOWN}")
