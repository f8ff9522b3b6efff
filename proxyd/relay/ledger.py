"""What has to be known of a live session so that it can be ended in order: its open streams.

Pure. A stream is named by the procedure and the serial of the call that opens it
(docs/protocol/streams.md, section 1). It is opening until that call has its reply, then open until
the daemon has said its last word: a packet with status OK or ERROR, which may overtake even the
reply. The figures of the flows say the rest: how many calls have no reply yet.
"""

from typing import Final

from proxyd.wire.frame import FrameType, Status
from proxyd.wire.programs import STREAMS, Remote
from proxyd.wire.xdr import MalformedFrame

# Procedures that the walks over frames look at more closely, on the way up and down.
LOOKED_AT: Final = STREAMS | {Remote.CONNECT_CLOSE}

# A client that means well has a console or a transfer for each, and its daemon a thread.
STREAMS_LIMIT: Final = 2048

_CALLS: Final = (int(FrameType.CALL), int(FrameType.CALL_WITH_FDS))
_REPLIES: Final = (int(FrameType.REPLY), int(FrameType.REPLY_WITH_FDS))
_STREAM: Final = int(FrameType.STREAM)
_LAST: Final = (int(Status.OK), int(Status.ERROR))
_CLOSE: Final = int(Remote.CONNECT_CLOSE)


class Ledger:
    """The streams of one session, whose both flows write it: `streams` says of each whether it is
    open, by (procedure, serial). It is None as long as there has been none."""

    __slots__ = ("streams",)

    def __init__(self) -> None:
        self.streams: dict[tuple[int, int], bool] | None = None

    def goes_up(self, kind: int, procedure: int, serial: int) -> bool:
        """Notes a frame of the client's, procedure in LOOKED_AT. False: it must not go on now.

        That is so for a packet of a stream whose opening call has no reply yet, which a daemon
        knows by half (libvirt 11.3 hangs when its client then dies), for a CONNECT_CLOSE beside an
        open stream, which hangs it as well, and for what `check` says something about.
        """
        streams = self.streams
        if kind in _CALLS:
            if procedure == _CLOSE:
                return not streams
            if streams is None:
                streams = self.streams = {}
            if (procedure, serial) in streams or len(streams) >= STREAMS_LIMIT:
                return False
            streams[procedure, serial] = False
            return True
        return streams is None or streams.get((procedure, serial)) is not False

    def check(self, kind: int, procedure: int, serial: int) -> None:
        """Raises MalformedFrame for a call that can never go up."""
        if kind not in _CALLS or procedure == _CLOSE or not self.streams:
            return
        if (procedure, serial) in self.streams:
            raise MalformedFrame(f"a second stream with the serial {serial}")
        if len(self.streams) >= STREAMS_LIMIT:
            raise MalformedFrame(f"more than {STREAMS_LIMIT} streams at one time")

    def came_down(self, kind: int, procedure: int, serial: int, status: int) -> bool:
        """Notes a frame of the daemon's; whether a stream is not opening any more."""
        streams, key = self.streams, (procedure, serial)
        if not streams or key not in streams:
            return False
        if kind == _STREAM:
            return status in _LAST and not streams.pop(key)
        if kind not in _REPLIES or streams[key]:
            return False
        if status == Status.OK:
            streams[key] = True
        else:
            del streams[key]
        return True
