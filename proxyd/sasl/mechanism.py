"""What a SASL mechanism is to the one who speaks with the client: bytes in, bytes or a name out.

A mechanism serves one attempt. Each answer to the client is a `Challenge` until a `Success` or a
`LoginRefused` ends it; to call it again after that is a programming error. It knows neither sockets
nor the wire, only that there an absent piece of data (None) and an empty one differ.

Source: RFC 4422; docs/protocol/sasl.md, section 1.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Final, Protocol

from proxyd.config.quoting import one_line, shortened
from proxyd.wire.state import State

LARGEST_MESSAGE: Final = 65536  # what one START or STEP can carry, either way
_LONGEST_REASON: Final = 300  # names that a client made up stand in some


class LoginRefused(Exception):
    """The client does not get in. The text is for the log and holds nothing secret.

    `username` is who it was, or said to be, as far as that became known; `hint` says what the
    administrator can do about it, if anything; `ours`: what is missing is missing here, so nobody
    could get in. The client is told no reason.
    """

    def __init__(
        self, reason: str, *, username: str | None = None, hint: str = "", ours: bool = False
    ) -> None:
        super().__init__(one_line(shortened(reason, _LONGEST_REASON)))
        self.username = None if username is None else one_line(shortened(username, _LONGEST_REASON))
        self.hint = hint
        self.ours = ours


class BadToken(ValueError):
    """What came is nothing that the peer sent now and in this order: the connection is lost."""


class SecurityLayer(Protocol):
    """Protects what follows a successful attempt, until the connection ends.

    Not for two threads at once, not even one that wraps and one that unwraps. It may move from
    one thread to another between calls.
    """

    @property
    def longest_token(self) -> int:
        """What the peer may send as one token, in bytes, without the length before it."""

    @property
    def longest_plain(self) -> int:
        """What one call of wrap may hold, in bytes, for its token to fit the peer's buffer."""

    def wrap(self, plain: bytes) -> bytes:
        """One token, without its length. Raises BadToken when none can be made."""

    def unwrap(self, token: bytes) -> bytes:
        """What is in the next token of the peer. Raises BadToken, after which nothing is right."""

    def state(self) -> State:
        """What another one goes on with in its place; this one is not used then, until `go_on`.

        Holds keys: never for a log or a file. Raises ValueError where it cannot be moved.
        """

    def go_on(self) -> None:
        """No other one has gone on with its state. Raises ValueError where it cannot be undone."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """More is wanted of the client (complete 0 on the wire).

    `vouched`: somebody who is trusted has said who it is, and what follows is no proof any more.
    """

    data: bytes | None
    vouched: bool = False


@dataclass(frozen=True, slots=True)
class Success:
    """The client is `username`. All that stands between it and being let in is our policy.

    `ssf`: strength of the layer in bits, 0 without one. Whether that is enough, and whether this
    user is allowed, is for the caller to say. `detail` tells the log more about who it is;
    `expires`: when the credentials that it showed do, of which nothing else takes notice.
    """

    username: str
    ssf: int
    data: bytes | None
    layer: SecurityLayer | None
    detail: str
    expires: dt.datetime | None = None


class Mechanism(Protocol):
    """One attempt to prove who one is.

    Both calls may wait for a disk and compute for some milliseconds, so a worker thread makes
    them. Whatever the client sends, they raise LoginRefused and nothing else.
    """

    @property
    def name(self) -> str:
        """As it stands in the list of mechanisms."""

    def start(self, data: bytes | None) -> Challenge | Success:
        """What came with the client's choice of this mechanism."""

    def step(self, data: bytes | None) -> Challenge | Success:
        """What the client answered to the last challenge."""
