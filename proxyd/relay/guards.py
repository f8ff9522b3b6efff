"""Calls of a client that go no further: which ones, and what their caller is told.

Each session has a table of its own. What every session has is `GUARDED`:

* CONNECT_SET_IDENTITY would replace what proxyd has told the daemon about its client.
* CONNECT_OPEN makes a daemon forget the connection that it has open, and obey the next one
  whatever its name says: `qemu+ssh://x/system?command=PROGRAM` makes root's daemon run PROGRAM
  (docs/protocol/opening.md, section 6). The client's own OPEN was answered before the hand-over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from proxyd.wire import failure
from proxyd.wire.failure import Failure
from proxyd.wire.programs import Program, Remote


@dataclass(frozen=True, slots=True)
class Guards:
    """`refusals`: by program and procedure, the error that the call is answered with.

    `procedures` is what the walk over frames looks at first: the numbers alone, of all programs.
    """

    refusals: Mapping[tuple[int, int], Failure]
    procedures: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        numbers = frozenset(procedure for _, procedure in self.refusals)
        object.__setattr__(self, "procedures", numbers)


NOTHING_GUARDED: Final = Guards({})
GUARDED: Final = Guards(
    {
        (Program.REMOTE, Remote.CONNECT_SET_IDENTITY): failure.identity_is_fixed(),
        (Program.REMOTE, Remote.CONNECT_OPEN): failure.already_open(),
    }
)
