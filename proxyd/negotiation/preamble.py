"""What every frame from a client goes through before anybody looks into it, on each socket.

The machines for clients (server.py) and for administrators (admin.py) answer different calls. What
is no call, and what no server of libvirt's would look into, they treat alike
(docs/protocol/errors.md, section 5).
"""

from collections.abc import Container
from enum import Enum, auto
from typing import Final

from proxyd.negotiation.events import Send
from proxyd.wire import failure, remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import FrameType, Header, Status
from proxyd.wire.names import is_callable
from proxyd.wire.programs import OWN_PROGRAM, VERSION, Keepalive, Own

_OWN: Final = frozenset(Own)
PONG: Final = Send(remote.keepalive(Keepalive.PONG).pack())


class Kind(Enum):
    """What a frame is to a server."""

    CALL = auto()
    PING = auto()  # to be answered by PONG
    DESCRIPTORS = auto()  # a call whose descriptors follow in bytes that no frame counts
    DROPPED = auto()  # whatever else; nobody answers it


def kind_of(header: Header) -> Kind:
    if remote.is_keepalive(header):
        return Kind.PING if header.procedure == Keepalive.PING else Kind.DROPPED
    match header.type:
        case FrameType.CALL:
            return Kind.CALL
        case FrameType.CALL_WITH_FDS:
            return Kind.DESCRIPTORS
    return Kind.DROPPED


def refusal_of(header: Header, programs: Container[int]) -> Failure | None:
    """Why a call is answered at no stage, or None; `programs` are those of this socket."""
    if header.program not in programs or header.version != VERSION:
        return failure.unknown_program(header.program, header.version)
    if header.status != Status.OK:
        return failure.unexpected_status(header.status)
    own = header.program == OWN_PROGRAM
    if not (header.procedure in _OWN if own else is_callable(header.program, header.procedure)):
        return failure.unknown_procedure(header.procedure)
    return None
