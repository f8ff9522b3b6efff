"""A fake daemon's volume: down and up through the stream protocol, with faults on demand."""

from dataclasses import dataclass, field

from proxyd.wire.failure import internal
from proxyd.wire.frame import Frame, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Keepalive, Program
from proxyd.wire.remote import keepalive, reply
from proxyd.wire.xdr import Reader, Writer

PACKET_SIZE = 262120


@dataclass
class Volume:
    """What it is and does, and below the line what it saw."""

    path: str = "/pool/volume"
    capacity: int = 1 << 20
    packet_size: int = PACKET_SIZE
    missing: int = 0  # bytes that a download leaves out
    broken: bool = False  # an error in place of the stream's end
    unconfirmed: bool = False  # an error in answer to the client's end
    ping_inside: bool = False  # a PING and an event between two packets
    # ----
    looked_up: int = 0
    asked: list[tuple[int, int]] = field(default_factory=list)  # offset, length
    uploaded: int = 0
    finished: int = 0

    def look_up(self, header, payload):
        self.looked_up += 1
        if Reader(payload).string() != self.path:
            return [internal("no storage vol with matching path").reply_to(header)]
        return [reply(header, Writer().string("pool").string("volume").string("key").take())]

    def info(self, header):
        return [reply(header, Writer().i32(0).u64(self.capacity).u64(0).take())]

    def download(self, header, payload):
        yield reply(header)
        left = self._ask(payload) - self.missing
        while left:
            size = min(left, self.packet_size)
            left -= size
            yield _stream(header, Status.CONTINUE, bytes(size))
            if self.ping_inside:
                event = Header(Program.REMOTE, VERSION, 360, FrameType.MESSAGE, 1)
                yield keepalive(Keepalive.PING)
                yield Frame(event, b"what happened")
        if self.broken:
            yield _stream(header, Status.ERROR, internal("disk on fire").pack())
        else:
            yield _stream(header, Status.CONTINUE)

    def begin_upload(self, header, payload):
        self._ask(payload)
        return [reply(header)]

    def stream(self, header, payload):
        """What a client's packet is answered with."""
        if header.status == Status.CONTINUE:
            self.uploaded += len(payload)
            return []
        self.finished += 1
        if self.unconfirmed:
            return [_stream(header, Status.ERROR, internal("disk full").pack())]
        return [_stream(header, Status.OK)]

    def _ask(self, payload):
        reader = Reader(payload)
        assert [reader.string() for _ in range(3)] == ["pool", "volume", "key"]
        offset, length, flags = reader.u64(), reader.u64(), reader.u32()
        assert flags == 0
        self.asked.append((offset, length))
        return length


def _stream(header, status, payload=b""):
    of_stream = Header(
        Program.REMOTE, VERSION, header.procedure, FrameType.STREAM, header.serial, status
    )
    return Frame(of_stream, payload)
