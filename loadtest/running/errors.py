"""Errors by class, as the results name them.

`refused` (nobody listens), `queue full` (a UNIX listener's backlog), `reset`, `closed` (the server
hung up), `timeout`, `protocol` (what came is no libvirt RPC), `not agreed` (TLS, certificates,
SASL), `not found` (the domain or volume of --mix), `error N` (a reply with libvirt's error N),
`unsent` (due, and not sent in time), and of what is left the system's own name, as in `EMFILE`.
"""

import errno
import os
from typing import Final

from proxyd.wire.failure import Failure
from proxyd.wire.xdr import MalformedFrame

from ..failures import NotAgreed, TargetFailure

TIMEOUT: Final = "timeout"
UNSENT: Final = "unsent"
_CLOSED: Final = "closed"
_PROTOCOL: Final = "protocol"
_NOT_AGREED: Final = "not agreed"
_ANSWER: Final = "error "

_BY_NUMBER: Final = {
    errno.ECONNREFUSED: "refused",
    errno.ENOENT: "refused",  # a UNIX socket that is not there
    errno.EAGAIN: "queue full",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
}


class HungUp(Exception):
    """The server closed the connection."""


class ErrorReply(Exception):
    """A reply with an error in it; the connection is as good as before."""

    def __init__(self, payload: bytes) -> None:
        told = Failure.unpack(payload)  # raises MalformedFrame
        super().__init__(told.message)
        self.code = told.code


class NothingThere(Exception):
    """What a call would be about does not exist; one line for the user."""


# What may come out of a step of a connection.
TROUBLE: Final = (OSError, HungUp, ErrorReply, MalformedFrame, TargetFailure, NothingThere)


def kind_of(error: Exception) -> str:
    """The class of one of TROUBLE."""
    match error:
        case ErrorReply():
            return f"{_ANSWER}{error.code}"
        case HungUp():
            return _CLOSED
        case MalformedFrame():
            return _PROTOCOL
        case TargetFailure() | NotAgreed():
            return _NOT_AGREED
        case TimeoutError():
            return TIMEOUT
        case NothingThere():
            return "not found"
        case OSError():
            number = error.errno or 0
            return _BY_NUMBER.get(number) or errno.errorcode.get(number, "broken")
    return "broken"


def words_of(error: Exception) -> str:
    """One line for the user."""
    match error:
        case HungUp():
            return "the server closed the connection"
        case NotAgreed() | TimeoutError():
            return str(error)
        case BlockingIOError():
            return "its queue of new connections is full; ask for fewer with -c"
        case OSError():
            return _words_of_the_kernel(error)
        case MalformedFrame():
            return f"the server sent what is no frame: {error}"
    return str(error)


def is_answer(kind: str) -> bool:
    """Whether a class of errors is that of calls which got a reply."""
    return kind.startswith(_ANSWER)


def _words_of_the_kernel(error: OSError) -> str:
    """With the path or the address that it is about, where that is known."""
    words = os.strerror(error.errno) if error.errno else str(error)
    return f"{words}: {error.filename}" if error.errno and error.filename else words
