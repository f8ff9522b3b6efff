"""What a negotiation tells its driver to do. Events are carried out in their order."""

from dataclasses import dataclass
from typing import NamedTuple

from proxyd.wire.failure import Failure
from proxyd.wire.remote import OpenArguments


class Send(NamedTuple):
    """Write these bytes to the end that this machine negotiates with."""

    wire: bytes


class HangUp(NamedTuple):
    """Close, after what was said before; the reason goes into the log.

    `orderly`: the client asked for it.
    """

    reason: str
    orderly: bool = False


class NeedsPolkit(NamedTuple):
    """Ask polkit about this action, then call `polkit_says`; read nothing until then."""

    action: str


class NeedsSasl(NamedTuple):
    """Give this token to the mechanism, then call `sasl_goes_on`, `sasl_succeeded` or
    `sasl_failed`; read nothing until then.

    A name begins a new attempt, and what an older one left is to be forgotten; without a name the
    token is the next of the attempt that is going on.
    """

    mechanism: str | None
    data: bytes | None


class WantsOpen(NamedTuple):
    """Find the daemon and open it, then call `opened` or `refused`; read nothing until then.

    `keepalive`: the client asked for a server that pings.
    """

    arguments: OpenArguments
    keepalive: bool


@dataclass(frozen=True, slots=True)
class DaemonOpened:
    """The daemon has opened the connection and knows whose it is: it may be relayed."""


class DaemonRefused(NamedTuple):
    """The daemon said no, or could not be understood; the client gets this failure."""

    stage: str
    failure: Failure


ServerEvent = Send | HangUp | NeedsPolkit | NeedsSasl | WantsOpen
BackendEvent = Send | DaemonOpened | DaemonRefused
