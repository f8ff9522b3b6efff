"""What a client sends that may not do everything, at random, and what of it may reach a daemon.

What may is said here once more, in other words than the relay's: by numbers. The same seed gives
the same mix.
"""

import random
from dataclasses import dataclass
from typing import Final

from proxyd.rules.allowance import Allowance
from proxyd.rules.permissions import allowance_of
from proxyd.wire.frame import HEADER, Frame, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Program
from proxyd.wire.xdr import Writer
from tests.fakes.mixes import LONG, MOST_DESCRIPTORS, SIZES

WORDS: Final = (
    "domain:getattr",
    "domain:read",
    "domain:write",
    "domain:start",
    "storage_vol:data_write",
    "remote:460",
    "qemu:domain_agent_command",
)
PLAIN: Final = {3, 9, 16, 23, 121, 157, 208, 460}  # of REMOTE, and 3 of QEMU
GUARDED: Final = {1, 419}  # for everybody, as calls; the first has a permission that everybody has
XML_DESC, ATTACH_DEVICE, MANAGED_SAVE_XML = 14, 160, 388
FORBIDDEN: Final = (
    0,
    12,
    27,
    35,
    66_000,
    107,
    201,
    209,
    311,
    343,
    421,
    461,
    -1,
    2**31 - 1,
    -(2**31),
)
KINDS: Final = (*FrameType, 7, -1, 2**31 - 1, -(2**31))
CALLS: Final = (FrameType.CALL, FrameType.CALL_WITH_FDS)
OTHERS: Final = (Program.QEMU, Program.LXC, Program.KEEPALIVE, Program.ADMIN, 0, 2**32 - 1)
MOST_FRAMES: Final = 14


@dataclass(frozen=True)
class Sent:
    """One frame; its serial is its place. `passes` is whether a daemon gets it, `answered` whether
    its sender gets an error instead."""

    wire: bytes
    descriptors: int
    passes: bool
    answered: bool

    @property
    def told(self) -> str:
        _, program, version, procedure, kind, _, _ = HEADER.unpack_from(self.wire)
        what = "passes" if self.passes else "is answered" if self.answered else "is dropped"
        return f"{program:#x} {version} {procedure} type {kind} of {len(self.wire)} {what}"


def allowance() -> Allowance:
    return allowance_of(WORDS)


def mix(rng: random.Random, *, descriptors: bool) -> list[Sent]:
    """Frames of one session."""
    return [_frame(rng, at, descriptors) for at in range(rng.randint(1, MOST_FRAMES))]


def _frame(rng, serial, may_carry):
    program = Program.REMOTE if rng.random() < 0.7 else rng.choice(OTHERS)
    kind = rng.choice(CALLS) if rng.random() < 0.6 else rng.choice(KINDS)
    procedure = rng.choice(
        (
            rng.choice(sorted(PLAIN)),
            rng.choice(FORBIDDEN),
            rng.choice((XML_DESC, ATTACH_DEVICE, MANAGED_SAVE_XML)),
            rng.choice((1, 2, 3, *GUARDED)),
        )
    )
    version = rng.choice((VERSION, VERSION, VERSION, 0, 2))
    if procedure == 2 and program == Program.REMOTE and kind in CALLS:
        procedure = 3  # a close ends a session
    payload, allowed = _payload(rng, program, procedure)
    count = 0
    if kind == FrameType.CALL_WITH_FDS:
        count = rng.randint(0, MOST_DESCRIPTORS) if may_carry else 0
        payload = count.to_bytes(4, "big") + payload
    is_call = kind in CALLS
    passes = _may_pass(program, procedure, kind, is_call, allowed)
    header = Header(program, version, procedure, kind, serial, rng.choice((0, 0, 0, 1, 2, 3, -1)))
    return Sent(Frame(header, payload).pack(), count, passes, is_call and not passes)


def _may_pass(program, procedure, kind, is_call, by_its_arguments):
    if program == Program.KEEPALIVE:
        return kind == FrameType.MESSAGE and procedure in {1, 2}
    if program == Program.QEMU:
        return procedure == 3
    if program != Program.REMOTE:
        return False
    if procedure in GUARDED and is_call:
        return False
    if procedure in {XML_DESC, ATTACH_DEVICE, MANAGED_SAVE_XML}:
        return is_call and by_its_arguments
    return procedure in PLAIN or procedure in {1, 2}


def _payload(rng, program, procedure):
    """Arguments, and whether they are those of a call that is allowed."""
    if program != Program.REMOTE or procedure not in {XML_DESC, ATTACH_DEVICE, MANAGED_SAVE_XML}:
        return rng.randbytes(rng.choice(LONG) if rng.random() < 0.08 else rng.choice(SIZES)), True
    out = Writer().string("x" * rng.choice((0, 1, 4, 300))).fixed_opaque(bytes(16)).i32(-1)
    flags = rng.choice((0, 1, 2, 3, 4, 8, 0x80000000))
    allowed = not flags & (1 if procedure == MANAGED_SAVE_XML else 9)
    if procedure == ATTACH_DEVICE:
        size = rng.choice(LONG) if rng.random() < 0.1 else rng.choice(SIZES)
        out.opaque(rng.randbytes(size))
        allowed = bool(flags & 1) and not flags & 2
    wire = out.u32(flags).take()
    match rng.randrange(6):
        case 0:  # another word behind it, as if that were the flags
            return wire + Writer().u32(rng.choice((0, 1))).take(), False
        case 1:
            return wire[: rng.randrange(len(wire))], False
    return wire, allowed


def is_refusal(frame: Frame) -> bool:
    return (frame.header.type, frame.header.status) == (FrameType.REPLY, Status.ERROR)
