"""A session as the relay sees it: two endpoints, two flows, how it ended.

The whole state of a live session is here and small: two sockets, what each flow has not given
on, where each stands in its frame, and figures. Who the client is stays with the control plane,
under `number`.
"""

from typing import Final

from proxyd.endpoint.contract import Endpoint
from proxyd.relay.figures import Clock, Figures, Stopwatch
from proxyd.relay.flow import Flow
from proxyd.relay.guards import GUARDED, Guards
from proxyd.relay.ledger import Ledger
from proxyd.relay.pace import Pace
from proxyd.relay.pipes import PipePool
from proxyd.relay.trail import Trail
from proxyd.wire.programs import STREAMS

CLIENT_CLOSED: Final = "the client closed the connection"
DAEMON_CLOSED: Final = "the daemon closed the connection"


# Nothing but silence tells that a stream is over: its last packet looks like any other from here.
_STREAM_PAUSE_NS: Final = 500_000_000

# An end that epoll does not know: a mask that has none of epoll's bits.
UNWATCHED: Final = 1 << 40


class End:
    """One endpoint in the relay: the flow that reads from it and the flow that writes to it."""

    __slots__ = ("endpoint", "mask", "pair", "reads", "side", "writes")

    def __init__(
        self, pair: "RelayedPair", endpoint: Endpoint, reads: Flow, writes: Flow, side: str
    ) -> None:
        self.pair = pair
        self.endpoint = endpoint
        self.reads = reads
        self.writes = writes
        self.side = side
        self.mask = UNWATCHED  # what epoll watches for


class RelayedPair:
    """Made by the control plane, then the relay thread's alone until it is reported ended.

    Other threads may read `up`'s and `down`'s figures and `active_ns` at any time. `owner` is who
    pays for what the session holds: a user of this host or an address (Client.peer). `daemon` is
    the path of its socket, and `parts` whether it is told in order that its client is gone
    (parting.py) instead of being shown how that went. `pace` is that of the client's identity, all
    of whose sessions have the same one; None where it makes as many calls as it likes. How each
    attribute moves to another loop is in moving.py.
    """

    __slots__ = (
        "active_ns",
        "backend",
        "charged",
        "client",
        "daemon",
        "down",
        "home",
        "ledger",
        "number",
        "offended",
        "owner",
        "pace",
        "paid_ns",
        "parts",
        "readonly",
        "reason",
        "stopwatch",
        "trail",
        "up",
    )

    def __init__(  # noqa: PLR0913 (made in one place, by keywords)
        self,
        number: int,
        client: Endpoint,
        backend: Endpoint,
        *,
        pipes: PipePool,
        figures: Figures,
        clock: Clock | None = None,
        now_ns: int,
        owner: str = "",
        daemon: str = "",
        parts: bool = False,
        readonly: bool = False,
        guards: Guards = GUARDED,
        trail: Trail | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.number = number
        self.home = ""
        self.owner = owner
        self.daemon = daemon
        self.parts = parts
        self.readonly = readonly
        self.ledger = Ledger()
        share = pipes.of(owner)
        self.stopwatch = stopwatch = Stopwatch(figures.call_time, clock or Clock())
        self.up = Flow(client, backend, share, figures.up, self.ledger, stopwatch)
        self.down = Flow(backend, client, share, figures.down, self.ledger, stopwatch)
        self.up.guard(guards, readonly=readonly, parts=parts)
        self.down.carries = self.up.carries
        self.trail: Trail | None = None
        self.record(trail)
        self.up.partner, self.down.partner = self.down, self.up
        self.client = End(self, client, self.up, self.down, "client")
        self.backend = End(self, backend, self.down, self.up, "daemon")
        self.pace: Pace | None = None
        self.charged = 0  # of the calls that have come so many are in what its pace was charged
        self.set_pace(pace)
        self.paid_ns = 0  # CLOCK_MONOTONIC before which the client is not read, for its pace
        self.active_ns = now_ns  # CLOCK_MONOTONIC of the last byte in either direction
        self.reason = ""  # why it ended; the first cause stays
        self.offended = False  # the client broke the protocol

    def because(self, reason: str) -> None:
        """Notes why the pair ends, unless something that came before it did."""
        if not self.reason:
            self.reason = reason

    def record(self, trail: Trail | None) -> None:
        """How calls are recorded from here on; None: not at all."""
        if trail is not None and self.trail is not None:
            trail.goes_on_from(self.trail)
        self.trail = trail
        self.up.record(trail)
        self.down.record(trail)

    def restrict(self, guards: Guards, pace: Pace | None = None) -> None:
        """What the client may do from its next frame on, and how many calls a second.

        A stream that is open goes on, and what was refused is answered as it would have been.
        """
        self.up.restrict(guards)
        self.set_pace(pace)

    def set_pace(self, pace: Pace | None) -> None:
        """How many calls a second from here on. What has come before is not charged for."""
        if self.pace is None:
            self.charged = self.up.calls + self.up.forbidden
        self.pace = pace
        self.up.pace(paced=pace is not None)

    @property
    def done(self) -> bool:
        return self.up.done and self.down.done

    @property
    def moves(self) -> bool:
        """Whether another loop, of another process even, can go on with it (moving.py)."""
        return self.client.endpoint.moves and self.backend.endpoint.moves

    @property
    def may_part(self) -> bool:
        """The daemon is there, and both sides know where they stand."""
        up, down = self.up, self.down
        return (
            self.parts
            and not (down.exhausted or up.broken or up.owes_descriptors)
            and up.errand is down.errand is None
        )

    @property
    def stuck(self) -> bool:
        """The client takes nothing any more, and what it has sent waits for the daemon's answer,
        which nobody reads."""
        return self.parts and self.down.done and self.up.waits

    @property
    def leaving(self) -> bool:
        """The client sends nothing more, and the daemon is not told so."""
        return self.parts and self.up.done and not (self.down.done or self.down.exhausted)

    @property
    def answered(self) -> bool:
        """A client that is leaving has got the replies to its calls."""
        down = self.down
        return down.calls >= self.up.calls and not (down.stalled or down.in_frame)

    @property
    def unanswered(self) -> int:
        """Calls that wait for their replies."""
        return max(0, self.up.calls - self.down.calls)

    def is_quiet(self, now_ns: int) -> bool:
        """No call waits for its reply, no frame is on its way, no stream runs."""
        if not (self.up.between_frames and self.down.between_frames):
            return False
        if self.up.calls > self.down.calls:
            return False
        streams = self.up.last in STREAMS or self.down.last in STREAMS
        return not streams or now_ns - self.active_ns > _STREAM_PAUSE_NS

    def close(self) -> None:
        """Gives up what is still on its way and closes both sockets, whatever one of them says."""
        self.up.give_up()
        try:
            self.close_client()
        finally:
            self.backend.endpoint.close()

    def close_client(self) -> None:
        """Likewise of the client's side alone."""
        self.down.give_up()
        self.client.endpoint.close()
