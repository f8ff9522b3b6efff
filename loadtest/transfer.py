"""A volume through libvirt's stream protocol: down and thrown away, or up out of thin air.

The end is verified. Down: the bytes that were asked for, an empty packet that ends them, our
"finish" and the server's OK. Up: our "finish" and the server's OK to it.
"""

import os
from collections.abc import Iterator
from typing import Final

from proxyd.wire.frame import Frame, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Program
from proxyd.wire.xdr import MalformedFrame, Reader, Writer

from .client import Session
from .intake import Intake
from .procedures import Storage

# What a socket gives at once at the most (its buffer holds about 200 KiB), and still in the
# cache of a core.
BUFFER_SIZE: Final = 262144
PACKET_SIZE: Final = 262120  # data in one packet, as libvirt's own clients cut it


def find_volume(session: Session, path: str, size: int) -> bytes:
    """The volume as the next call takes it. One that is too small is a TargetFailure."""
    arguments = Writer().string(path).take()
    volume = session.call(Storage.VOL_LOOKUP_BY_PATH, arguments).payload
    reader = Reader(session.call(Storage.VOL_GET_INFO, volume).payload)
    try:
        reader.i32()  # its type: a file, a block device…
        capacity = reader.u64()
    except MalformedFrame as error:
        raise session.failure(f"the server did not describe the volume: {error}") from error
    if capacity < size:
        raise session.failure(
            f"{path} holds {capacity} bytes and not the {size} of --bulk; "
            "ask for less, or make it larger with virsh vol-resize"
        )
    return volume


def download(session: Session, volume: bytes, size: int) -> None:
    """The first `size` bytes."""
    session.begin(Storage.VOL_DOWNLOAD, _arguments(volume, size))
    intake = Intake(Storage.VOL_DOWNLOAD, session.serial)
    for frame in _frames(session, intake):
        if _is_reply(frame):
            session.check(frame)
        elif _ends_data(frame):
            session.send(_finish(Storage.VOL_DOWNLOAD, session.serial))
        else:
            session.check(frame, FrameType.STREAM)
            break
    if intake.moved != size:
        raise session.failure(f"the stream ended after {intake.moved} of {size} bytes")


def upload(session: Session, volume: bytes, size: int) -> None:
    """Writes over the first `size` bytes."""
    session.call(Storage.VOL_UPLOAD, _arguments(volume, size))
    serial = session.serial
    header = Header(
        Program.REMOTE, VERSION, Storage.VOL_UPLOAD, FrameType.STREAM, serial, Status.CONTINUE
    )
    whole, rest = divmod(size, PACKET_SIZE)
    data = os.urandom(PACKET_SIZE if whole else rest)
    packet = Frame(header, data).pack()
    for _ in range(whole):
        session.send(packet)
    if rest:
        session.send(Frame(header, data[:rest]).pack())
    session.send(_finish(Storage.VOL_UPLOAD, serial))
    # What went wrong on the way is the answer to the end, too.
    session.check(next(_frames(session, Intake(Storage.VOL_UPLOAD, serial))), FrameType.STREAM)


def _arguments(volume: bytes, size: int) -> bytes:
    return volume + Writer().u64(0).u64(size).u32(0).take()  # offset, length, flags


def _finish(procedure: Storage, serial: int) -> bytes:
    header = Header(Program.REMOTE, VERSION, procedure, FrameType.STREAM, serial)
    return Frame(header).pack()


def _frames(session: Session, intake: Intake) -> Iterator[Frame]:
    """All frames but the stream's data and what is none of the call's business."""
    buffer = bytearray(BUFFER_SIZE)
    while True:
        received = session.receive(buffer)
        try:
            found = intake.take(received)
        except MalformedFrame as error:
            raise session.failure(f"the server sent what is no frame: {error}") from error
        for frame in found:
            if not session.passes_by(frame):
                yield frame


def _is_reply(frame: Frame) -> bool:
    return frame.header.type == FrameType.REPLY


def _ends_data(frame: Frame) -> bool:
    return frame.header.type == FrameType.STREAM and frame.header.status == Status.CONTINUE
