"""Ways in that are broken, and when each is tried again: decisions without a clock or a socket.

What is wrong with one way by which clients come (its certificates, its keytab, its port) is no
reason to turn away those who come by another. It is told, everybody who comes by it is refused,
and it is tried again, at growing intervals and at each reload.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from proxyd.config.listeners import Door
from proxyd.config.transports import Transport
from proxyd.wire.programs import AuthMethod

_FIRST_PAUSE_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 300.0
_TOLD_EVERY_S: Final = 3600.0


class Part(StrEnum):
    """What of a way can be broken."""

    CERTIFICATES = "certificates"
    SASL = "sasl"
    PORT = "port"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One way in that is not served. `key` is the setting that is to blame; `since` a time()."""

    transport: Transport
    part: Part
    reason: str
    key: str
    since: float

    @property
    def way(self) -> str:
        """As in `TLS`, `SASL by UNIX`."""
        name = self.transport.name
        return f"SASL by {name}" if self.part is Part.SASL else name

    def concerns(self, door: Door) -> bool:
        """Whether nobody can be let in by this door."""
        if door.transport is not self.transport:
            return False
        # By UNIX sockets, those who prove themselves in another way are not concerned.
        return door.transport.traits.by_network or door.method is AuthMethod.SASL

    def is_same_as(self, other: "Trouble") -> bool:
        return (self.transport, self.part) == (other.transport, other.part)


class Patience:
    """When what is broken is tried again, and when it is told again; seconds of any one clock."""

    def __init__(self) -> None:
        self._pause_s = 0.0
        self.try_at = self._tell_at = 0.0

    def begin(self, now: float) -> None:
        """Something has just been found to be broken, and was told."""
        self._pause_s = _FIRST_PAUSE_S
        self.try_at = now + self._pause_s
        self._tell_at = now + _TOLD_EVERY_S

    def failed(self, now: float) -> bool:
        """It was tried in vain. Whether that is to be told once more."""
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self.try_at = now + self._pause_s
        if now < self._tell_at:
            return False
        self._tell_at = now + _TOLD_EVERY_S
        return True


def still_known(known: Iterable[Trouble], found: Trouble) -> Trouble | None:
    """The trouble that this one goes on with, if any."""
    return next((each for each in known if each.is_same_as(found)), None)
