"""What has become of all the clients since the start, in numbers, for the metrics page.

Every label is one of few: a listener's name, a daemon's, a reason of those below. Nothing that a
client says becomes one.
"""

from collections import Counter
from enum import StrEnum
from typing import Final

from proxyd.relay.histogram import SESSION_NS, STEP_NS, Histogram

OTHER: Final = "other"
_MOST_DAEMONS: Final = 64  # libvirt has a dozen; routes may name more


class Refusal(StrEnum):
    """Why somebody was not let in, or not to where he wanted to go."""

    DRAINING = "draining"  # nobody new is let in
    NO_PLACE = "no_place"  # over a limit of his own, or there was none left
    RATE = "rate"  # more connections a second than its holder may begin
    LOGINS = "logins"  # more have failed than its holder or its name may have
    TLS = "tls"  # no handshake came of it, or the certificate is not one that is let in
    SASL = "sasl"  # the proof failed, or the name is not in the list
    POLKIT = "polkit"
    PROTOCOL = "protocol"  # no libvirt client says that
    TIMEOUT = "timeout"
    RULES = "rules"  # none lets it in there, one denies it, or its number of sessions is reached
    NO_ROUTE = "no_route"  # no daemon is known for the URI
    DAEMON = "daemon"  # it is not there, or did not open the connection


class Tally:
    """The control plane's thread alone writes it."""

    def __init__(self) -> None:
        self.refused = Counter[Refusal]()
        self.opened = Counter[tuple[str, str]]()  # (listener, daemon)
        self.session_time: dict[str, Histogram] = {}  # by daemon
        self.opening_time: dict[str, Histogram] = {}  # by daemon
        self.handshake_time: dict[str, Histogram] = {}  # by listener

    def handshake(self, listener: str, ns: int) -> None:
        _of(self.handshake_time, listener, STEP_NS).observe(ns)

    def opening(self, daemon: str, ns: int) -> None:
        _of(self.opening_time, daemon, STEP_NS).observe(ns)

    def session_opened(self, listener: str, daemon: str) -> None:
        self.opened[listener, daemon] += 1

    def session_ended(self, daemon: str, ns: int) -> None:
        _of(self.session_time, daemon, SESSION_NS).observe(ns)


def _of(found: dict[str, Histogram], label: str, bounds_ns: tuple[float, ...]) -> Histogram:
    if label not in found and len(found) >= _MOST_DAEMONS:
        label = OTHER
    return found.setdefault(label, Histogram(bounds_ns))
