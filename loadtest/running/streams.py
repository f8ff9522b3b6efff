"""A volume's transfer on a line of the engine; what `transfer` does on a blocking session.

Both end with the server's confirmation. They return the bytes that went up and came down; what goes
wrong leaves the connection in no state for another call.
"""

import os
from collections.abc import Generator, Iterator

from proxyd.wire.frame import Frame, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Program
from proxyd.wire.remote import call
from proxyd.wire.xdr import MalformedFrame

from ..intake import Intake
from ..procedures import Storage
from ..transfer import PACKET_SIZE
from .errors import HungUp
from .line import SCRATCH, Line, checked
from .requests import Request, answers

Moved = tuple[int, int]  # up, down


def transfer(line: Line, request: Request) -> Generator[None, None, Moved]:
    """The request's whole size, in its direction."""
    begun = call(request.work.procedure, request.serial, request.arguments).pack()
    line.channel.sendall(begun)
    if request.work.procedure == Storage.VOL_UPLOAD:
        return (yield from _upload(line, request))
    return (yield from _download(line, request))


def _download(line: Line, request: Request) -> Generator[None, None, Moved]:
    intake = Intake(request.work.procedure, request.serial)
    while True:
        for frame in _come(line, intake):
            checked(frame)
            if _is_reply(frame):
                answers(frame, request.serial)
            elif frame.header.status == Status.CONTINUE:  # no data: all of it has come
                line.channel.sendall(_finish(request))
            else:
                if intake.moved != request.work.size:
                    raise MalformedFrame(f"the stream ended after {intake.moved} bytes")
                return 0, intake.moved
        yield


def _upload(line: Line, request: Request) -> Generator[None, None, Moved]:
    intake = Intake(request.work.procedure, request.serial)
    size = request.work.size
    replied = False
    while not replied:
        yield
        for frame in _come(line, intake):
            answers(frame, request.serial)
            checked(frame)
            replied = True
    for packet in _packets(request):
        line.channel.sendall(packet)
        assert line.sock is not None
        while line.sock.unsent:
            yield
            for frame in _come(line, intake):
                checked(frame)  # the server had enough
    line.channel.sendall(_finish(request))
    while True:
        yield
        for frame in _come(line, intake):
            checked(frame)
            if frame.header.type == FrameType.STREAM:
                return size, 0


def _packets(request: Request) -> Iterator[bytes]:
    header = _header(request, Status.CONTINUE)
    whole, rest = divmod(request.work.size, PACKET_SIZE)
    data = os.urandom(PACKET_SIZE if whole else rest)
    packet = Frame(header, data).pack()
    for _ in range(whole):
        yield packet
    if rest:
        yield Frame(header, data[:rest]).pack()


def _come(line: Line, intake: Intake) -> list[Frame]:
    """The frames that are whole now, without data and what is none of the stream's business."""
    try:
        got = line.channel.recv_into(SCRATCH)
    except BlockingIOError:
        return []
    if not got:
        raise HungUp
    found = intake.take(memoryview(SCRATCH)[:got])
    return [frame for frame in found if not line.passes_by(frame)]


def _is_reply(frame: Frame) -> bool:
    return frame.header.type == FrameType.REPLY


def _header(request: Request, status: Status) -> Header:
    return Header(
        Program.REMOTE,
        VERSION,
        request.work.procedure,
        FrameType.STREAM,
        request.serial,
        status,
    )


def _finish(request: Request) -> bytes:
    return Frame(_header(request, Status.OK)).pack()
