"""One place: whose it is, and whether it is the client that we wait for."""

from collections.abc import Callable
from typing import Final, NamedTuple

from proxyd.admission.holder import Holder
from proxyd.config.listeners import Door
from proxyd.config.transports import Transport
from proxyd.wire.programs import AuthMethod

# Who has just come, or answers from the other end of the world, is not called silent.
GRACE_S: Final = 1.0
# A stranger who talks on and on proves nothing by it. Whoever means it needs less than this.
PROOF_S: Final = 2.0


class Crowd(NamedTuple):
    """Strangers of the network who have one limit together (strangers.py)."""

    transport: Transport
    shaking_hands: bool


class Place:
    """Made by Admission. `end` ends the client that holds it, and says why."""

    __slots__ = (
        "_clock",
        "_joined",
        "_since",
        "_waited_s",
        "anonymous",
        "crowd",
        "end",
        "gone",
        "has_turn",
        "holder",
    )

    def __init__(self, holder: Holder, clock: Callable[[], float], *, anonymous: bool) -> None:
        self.holder = holder
        self._clock = clock
        self.anonymous = anonymous
        self.crowd: Crowd | None = None  # while it is a stranger's
        self._joined = 0.0  # that crowd
        self.has_turn = False  # it counts among those of its user who prove who they are
        self.gone = False
        self.end: Callable[[str], None] = _nobody
        self._since: float | None = None  # when we began to wait, while it is the client's turn
        self._waited_s = 0.0  # before that

    def await_client(self) -> None:
        """It is for the client to say something, from now on."""
        self._since = self._clock()

    def think(self) -> None:
        """It is for us. What was waited for so far counts on, until a whole call has come."""
        if self._since is not None:
            self._waited_s += self._clock() - self._since
            self._since = None

    def heard(self) -> None:
        """A whole call has come."""
        self._waited_s = 0.0

    def waited_s(self, now: float) -> float:
        """How long the client has kept us waiting; 0 while it does not."""
        return 0.0 if self._since is None else self._waited_s + now - self._since

    def is_silent(self, now: float) -> bool:
        return self.waited_s(now) >= GRACE_S

    def join(self, crowd: Crowd) -> None:
        """It is a stranger's, from now on one of these."""
        self.crowd, self._joined = crowd, self._clock()

    def is_overdue(self, now: float) -> bool:
        """A stranger's, who could have proven something by now."""
        return self.crowd is not None and now - self._joined >= PROOF_S

    def reproach(self, now: float) -> str:
        """Why it is this one that makes way."""
        if self.is_silent(now):
            return f"it kept us waiting for {self.waited_s(now):.1f} s"
        return f"it proved nothing within {now - self._joined:.1f} s"


def needs_proof(holder: Holder, door: Door) -> bool:
    """Whether who it is has still to be proven. Some doors ask everybody
    for a handshake."""
    match door.method:
        case AuthMethod.NONE:
            return door.transport.traits.shakes_hands
        case AuthMethod.POLKIT:
            return holder.uid != 0  # the kernel's word is enough
        case _:
            return True


def _nobody(_why: str) -> None:
    """Until somebody holds it."""
