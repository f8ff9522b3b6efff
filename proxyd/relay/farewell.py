"""What a daemon is told when its client is gone. Pure.

libvirt's daemons do not survive a client that closes while it has streams or calls under way
(docs/protocol/closing.md): so the client is played to its end, one step after the other.

1. Every call gets its reply.
2. Each open stream is aborted, which the daemon has to confirm.
3. CONNECT_CLOSE, and its reply.

Only parts of it, or another order, have hung libvirt 11.3.
"""

from enum import Enum, auto
from typing import Final

from proxyd.relay.ledger import Ledger
from proxyd.wire.frame import Frame, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Program, Remote
from proxyd.wire.remote import call

# Of our own call: nobody else's is without a reply by then.
_SERIAL: Final = 0x7FFFFFFF


class Step(Enum):
    REPLIES = auto()
    STREAMS = auto()
    CLOSE = auto()
    OVER = auto()


class Farewell:
    """`calls` is how many have gone up; `closed` is whether the last was a CONNECT_CLOSE."""

    __slots__ = ("_calls", "_closed", "_ledger", "step")

    def __init__(self, ledger: Ledger, calls: int, *, closed: bool) -> None:
        self._ledger = ledger
        self._calls = calls
        self._closed = closed
        self.step = Step.REPLIES

    def goes_on(self, replies: int) -> bytes:
        """What to send now that `replies` have come in all; `step` says what is waited for."""
        if self.step is Step.REPLIES and replies >= self._calls:
            self.step = Step.STREAMS
            return b"".join(_abort(*stream) for stream in self._ledger.streams or ())
        if self.step is Step.STREAMS and not self._ledger.streams:
            self.step = Step.OVER if self._closed else Step.CLOSE
            if not self._closed:
                self._calls += 1
                return call(Remote.CONNECT_CLOSE, _SERIAL).pack()
        if self.step is Step.CLOSE and replies >= self._calls:
            self.step = Step.OVER
        return b""


def _abort(procedure: int, serial: int) -> bytes:
    header = Header(Program.REMOTE, VERSION, procedure, FrameType.STREAM, serial, Status.ERROR)
    return Frame(header).pack()
