"""What both planes may ask of one end of a session, whatever it is made of.

Nothing here blocks. An endpoint is driven by one thread at a time: by the control plane until
the hand-over, by the relay afterwards. Whoever drives it closes it.
"""

from typing import Final, Protocol

from proxyd.wire.state import State

NOTHING: Final = -1  # read_into and splice_to: no bytes now, ask again when readable
DESCRIPTOR: Final = -2  # read_into: descriptors ride on the next byte, and nothing was taken


class HungUp(Exception):
    """The other side ended or reset the connection. Routine: no warning, no traceback.

    `while_writing`: it takes no more bytes, but what it sent before may still be read.
    """

    def __init__(self, reason: str, *, while_writing: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.while_writing = while_writing


class Endpoint(Protocol):
    """One end. Only `read_into`, `write` and the splices are on the hot path.

    An endpoint that `carries_descriptors` stops reading in front of a byte with descriptors, which
    is not for this process (couriers.py). They come only behind `take_descriptors`.

    Bytes that are encrypted make two things possible that a bare socket does not know. Both are
    true only until the next `read_into`:

    * `pending`: there is more to read although the socket may be empty and nothing announces it;
    * `reads_when_writable`: the last read got NOTHING because a message of the protocol's own has
      to go out first, so waiting for input would be waiting for the wrong thing.
    """

    may_splice: bool
    carries_descriptors: bool
    moves: bool  # somebody else, another process even, can go on with its socket and its state
    pending: bool
    reads_when_writable: bool

    def fileno(self) -> int: ...

    def read_into(self, view: memoryview) -> int:
        """Bytes received; 0 at the end, NOTHING when there are none now, or DESCRIPTOR.

        Raises HungUp.
        """

    def write(self, view: memoryview) -> int:
        """Bytes taken, fewer than offered when it is full. Raises HungUp.

        What was not taken comes first in the next offer, which is not shorter: a part of it may
        have been encrypted already.
        """

    def take_descriptors(self) -> None:
        """From now on descriptors may come with its bytes, where it carries any."""

    def splice_to(self, pipe: int, count: int) -> int:
        """Moves received bytes into a pipe; answers as `read_into` does. Raises HungUp."""

    def splice_from(self, pipe: int, count: int) -> int:
        """Moves bytes out of a pipe; answers as `write` does. Raises HungUp."""

    def end_write(self) -> None:
        """Says that no byte follows. Never raises: the other side may be gone already."""

    def close(self) -> None: ...

    def state(self) -> State:
        """What is needed to go on, beside the socket: see moving.py. Raises ValueError.

        Only of one that `moves`; it may not be read or written then, until `go_on`.
        """

    def go_on(self) -> None:
        """Nobody else has gone on with it: it is used again. Raises ValueError if that fails."""

    def let_go(self) -> None:
        """Somebody else has gone on with it: closes our copy of the socket, of which the other
        side sees nothing, and which never waits."""
