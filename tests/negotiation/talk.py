"""How a test talks with a negotiation: as a driver does, `wanted` bytes at a time at most."""

from proxyd.negotiation.events import Send
from proxyd.wire.failure import Failure
from proxyd.wire.frame import FrameBuffer, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Program


def feed(machine, wire, *, piece=None):
    """All the events of these bytes; asserts that the machine takes every one of them."""
    events = []
    while wire:
        size = min(machine.wanted, piece or len(wire))
        assert size, f"{len(wire)} bytes are left and none are wanted"
        events += machine.receive_data(wire[:size])
        wire = wire[size:]
    return events


def frames_in(wire):
    """What was sent, as frames; asserts that it is whole frames and nothing else."""
    buffer, frames = FrameBuffer(), []
    buffer.feed(wire)
    while (frame := buffer.next_frame()) is not None:
        frames.append(frame)
    assert buffer.held == 0
    return frames


def sent(events):
    return frames_in(b"".join(event.wire for event in events if isinstance(event, Send)))


def only_sent(events):
    """The one frame that these events send, when they do nothing else."""
    (event,) = events
    assert isinstance(event, Send)
    (frame,) = frames_in(event.wire)
    return frame


def failure_of(frame):
    assert (frame.header.type, frame.header.status) == (FrameType.REPLY, Status.ERROR)
    return Failure.unpack(frame.payload)


def numbers_of(frame):
    """Code and domain of an error reply."""
    said = failure_of(frame)
    return said.code, said.domain


def call_header(procedure, serial=0, program=Program.REMOTE):
    return Header(program, VERSION, procedure, FrameType.CALL, serial)
