"""Calls of a client that go no further: which ones, and what their caller is told.

Each session has a table of its own. What every session has is `GUARDED`:

* CONNECT_SET_IDENTITY would replace what proxyd has told the daemon about its client.
* CONNECT_OPEN makes a daemon forget the connection that it has open, and obey the next one
  whatever its name says: `qemu+ssh://x/system?command=PROGRAM` makes root's daemon run PROGRAM
  (docs/protocol/opening.md, section 6). The client's own OPEN was answered before the hand-over.

A session that may not do everything has an allowance besides. Whatever that does not say is held
back, calls and all else that carries such a number: unknown procedures, events, other programs. A
call that some flags make another one is looked at when it is whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from proxyd.relay.figures import KNOWN
from proxyd.rules.allowance import Allowance
from proxyd.wire import failure
from proxyd.wire.failure import Failure
from proxyd.wire.flags import SHAPES, flags_of
from proxyd.wire.frame import HEADER, HEADER_SIZE, FrameType
from proxyd.wire.names import NAMES
from proxyd.wire.permissions import ALWAYS, SOMETIMES
from proxyd.wire.programs import Keepalive, Program, Remote
from proxyd.wire.xdr import MalformedFrame

_REMOTE: Final = int(Program.REMOTE)
_CALL: Final = int(FrameType.CALL)
_CALL_WITH_FDS: Final = int(FrameType.CALL_WITH_FDS)
_MESSAGE: Final = int(FrameType.MESSAGE)
_COUNT_SIZE: Final = 4  # of the number of descriptors, in front of the arguments
_KEEPALIVE: Final = int(Program.KEEPALIVE)
_SIGNS_OF_LIFE: Final = (int(Keepalive.PING), int(Keepalive.PONG))


@dataclass(frozen=True, slots=True)
class Guards:
    """`refusals`: by program and procedure, the error that the call is answered with.

    `allowance` is all that a session may do, None for everything. `procedures` is what the walk
    over frames looks at first: the numbers alone, of all programs. One object serves any number of
    sessions, and is made once for them.
    """

    refusals: Mapping[tuple[int, int], Failure]
    allowance: Allowance | None = None
    procedures: frozenset[int] = field(init=False)
    plain: frozenset[tuple[int, int]] = field(init=False)  # of the allowance

    def __post_init__(self) -> None:
        numbers = frozenset(procedure for _, procedure in self.refusals)
        plain_calls: frozenset[tuple[int, int]] = frozenset()
        if self.allowance is not None:
            plain_calls = self.allowance.plain
            plain = {number for program, number in plain_calls if program == _REMOTE}
            numbers |= frozenset(range(KNOWN)) - plain
        object.__setattr__(self, "plain", plain_calls)
        object.__setattr__(self, "procedures", numbers)

    def forbids(self, program: int, procedure: int, kind: int) -> bool:
        """Whether a frame with this header goes no further by the allowance, whatever follows."""
        allowed, key = self.allowance, (program, procedure)
        if allowed is None or key in self.plain:
            return False
        if program == _KEEPALIVE:
            return kind != _MESSAGE or procedure not in _SIGNS_OF_LIFE
        return key not in allowed.conditional or kind not in (_CALL, _CALL_WITH_FDS)

    def looks_at_flags(self, program: int, procedure: int) -> bool:
        """Whether it takes more than the header of a call to know if it is allowed."""
        allowed, key = self.allowance, (program, procedure)
        return allowed is not None and key in allowed.conditional and key not in self.plain

    def forbids_flags(self, frame: memoryview) -> bool:
        """The same of a frame that is there whole and that `forbids` lets pass: by its flags."""
        _, program, _, procedure, kind, _, _ = HEADER.unpack_from(frame)
        if self.allowance is None or not self.looks_at_flags(program, procedure):
            return False
        condition = self.allowance.conditional[program, procedure]
        if program != _REMOTE or procedure not in SHAPES:
            return True
        begin = HEADER_SIZE + (_COUNT_SIZE if kind == _CALL_WITH_FDS else 0)
        try:
            flags = flags_of(procedure, frame[begin:])
        except MalformedFrame:
            return True
        if flags & condition.without:
            return True
        return bool(condition.with_any and not flags & condition.with_any)


NOTHING_GUARDED: Final = Guards({})
GUARDED: Final = Guards(
    {
        (Program.REMOTE, Remote.CONNECT_SET_IDENTITY): failure.identity_is_fixed(),
        (Program.REMOTE, Remote.CONNECT_OPEN): failure.already_open(),
    }
)


def restricted(allowance: Allowance | None) -> Guards:
    """What every session has, and an allowance; None for everything. To be made once for all."""
    return GUARDED if allowance is None else replace(GUARDED, allowance=allowance)


@lru_cache(maxsize=256)
def together(*numbers: frozenset[int]) -> frozenset[int]:
    """All of them; of equal ones the same set, for any number of sessions."""
    return frozenset().union(*numbers)


def what_is_forbidden(program: int, procedure: int, *, by_flags: bool = False) -> Failure:
    """What the caller is told of a call that its allowance does not have."""
    names = NAMES.get(program)
    if names is None:
        return failure.access_denied(f"make calls of program {program:#x}")
    name = names[procedure] if 0 < procedure < len(names) else f"procedure {procedure}"
    if by_flags:
        asked = SOMETIMES.get(program, {}).get(procedure, ())
        words = tuple(dict.fromkeys(each.permission for each in asked))
        name = f"{name} with these flags"
    elif program == _REMOTE:
        known = ALWAYS[program]
        words = (known[procedure] if 0 < procedure < len(known) else None) or ()
    else:
        words = (f"{Program(program).name.lower()}:…",)
    needs = f" ({', '.join(words)})" if words else ""
    return failure.access_denied(f"call {name}{needs}")
