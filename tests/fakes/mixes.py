"""What a client sends, at random: calls, guarded calls, frames that are none, in any cut.

The same seed gives the same mix. A message is what one send holds; descriptors ride on messages of
one byte, as libvirt's do.
"""

import itertools
import random
from dataclasses import dataclass

from proxyd.wire import params, remote
from proxyd.wire.failure import ErrorCode, Failure
from proxyd.wire.frame import HEADER, HEADER_SIZE, Frame, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Program, Remote

GUARDED = {
    Remote.CONNECT_OPEN: (
        ErrorCode.INTERNAL_ERROR,
        remote.OpenArguments("qemu+ssh://x/system?command=/bin/false", 0).pack(),
    ),
    Remote.CONNECT_SET_IDENTITY: (
        ErrorCode.ACCESS_DENIED,
        remote.pack_identity([params.Param("unix-user-id", params.ParamType.ULLONG, 0)]),
    ),
}
CALLS = (FrameType.CALL, FrameType.CALL_WITH_FDS)
NO_CALLS = (*(set(FrameType) - set(CALLS)), 7, -1, 2**31 - 1)
PROGRAMS = (Program.REMOTE, Program.QEMU, Program.LXC, Program.KEEPALIVE, 0, 2**32 - 1)
PROCEDURES = (2, 3, 157, 208, 418, 420, 453, 60000, -1, 2**31 - 1)
STATUSES = (0, 0, 0, 1, 2, 3, -1, 2**31 - 1)
SIZES = (0, 0, 1, 3, 4, 5, 24, 100, 1000)
LONG = (4096, 32739, 32740, 32741, 33000, 65507, 65508, 65509, 150_000)
MOST_FRAMES = 12
MOST_DESCRIPTORS = 3


@dataclass(frozen=True)
class Sent:
    """One frame; its serial is its place."""

    wire: bytes
    descriptors: int
    procedure: int
    guarded: bool
    answered: bool  # by a daemon that answers every call


def mix(rng: random.Random, *, descriptors: bool) -> list[Sent]:
    """Frames of one session, at least one of them guarded in most."""
    return [_frame(rng, at, descriptors) for at in range(rng.randint(1, MOST_FRAMES))]


def _frame(rng, serial, may_carry):
    guarded = rng.random() < 0.4
    is_call = guarded or rng.random() < 0.5
    kind = rng.choice(CALLS if is_call else NO_CALLS)
    procedure = rng.choice(list(GUARDED) if guarded or rng.random() < 0.3 else PROCEDURES)
    program = Program.REMOTE if guarded else rng.choice(PROGRAMS)
    version = VERSION if guarded else rng.choice((VERSION, VERSION, 0, 2))
    if not guarded and is_call and program == Program.REMOTE and procedure in GUARDED:
        guarded = True
    payload = GUARDED[procedure][1] if guarded and rng.random() < 0.5 else b""
    payload += rng.randbytes(rng.choice(LONG) if rng.random() < 0.08 else rng.choice(SIZES))
    count = 0
    if kind == FrameType.CALL_WITH_FDS:
        count = rng.randint(0, MOST_DESCRIPTORS) if may_carry else 0
        payload = count.to_bytes(4, "big") + payload
    status = rng.choice(STATUSES)
    header = Header(program, version, int(procedure), kind, serial, status)
    return Sent(Frame(header, payload).pack(), count, int(procedure), guarded, is_call)


def messages(rng: random.Random, frames: list[Sent]) -> list[bytes | None]:
    """All of it in any cut; None is the byte with a descriptor."""
    runs: list[bytes | None] = [b""]
    for each in frames:
        assert isinstance(runs[-1], bytes)
        runs[-1] += each.wire
        if each.descriptors:
            runs += [*[None] * each.descriptors, b""]
    return [part for run in runs for part in ([None] if run is None else _cut(rng, run))]


def _cut(rng, run):
    how = rng.choice(("whole", "few", "headers", "crumbs"))
    if how == "whole" or len(run) < 2:
        return [run] if run else []
    if how == "crumbs":  # of the beginning, where it is decided what a frame is
        places = range(1, min(len(run), 64))
    elif how == "headers":
        places = sorted({rng.randint(1, min(len(run) - 1, 64)) for _ in range(4)})
    else:
        places = sorted({rng.randint(1, len(run) - 1) for _ in range(rng.randint(1, 8))})
    bounds = [0, *places, len(run)]
    return [run[at:end] for at, end in itertools.pairwise(bounds)]


def frame_of(sent: Sent) -> Frame:
    return Frame(Header(*HEADER.unpack_from(sent.wire)[1:]), sent.wire[HEADER_SIZE:])


def is_refusal(frame: Frame) -> bool:
    """Whether it comes from the proxy instead of the daemon. Fails when it is not right."""
    header = frame.header
    if (header.type, header.status) != (FrameType.REPLY, Status.ERROR):
        return False
    code, _ = GUARDED[Remote(header.procedure)]
    assert Failure.unpack(frame.payload).code == code
    assert header.program == Program.REMOTE
    return True


def without_wire(frames: list[Sent]) -> str:
    """For a failure's message."""
    return ", ".join(
        f"{'guarded ' if each.guarded else ''}{each.procedure} of {len(each.wire)} bytes"
        f" type {int.from_bytes(each.wire[16:20], 'big', signed=True)} with {each.descriptors}"
        for each in frames
    )
