"""The live daemon as the admin protocol sees it: servers, their clients, and a few switches.

Whoever runs the daemon implements `DaemonView` and its `Server` for clients; the server of the
admin socket itself is in `visitors.py`. Everything runs in the control plane's thread, and only
what is `async` may wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from proxyd.admin import document
from proxyd.config.logstrings import LogFilter, LogOutput
from proxyd.config.transports import Transport
from proxyd.negotiation.identity import ClientIdentity
from proxyd.wire.failure import Failure


class CallRefused(Exception):
    """What was asked for was understood and is not done; nothing has changed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The threads that serve one server's clients, as they are right now."""

    min_workers: int
    max_workers: int
    workers: int
    free_workers: int
    prio_workers: int
    queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolBounds:
    """The threads that somebody would like there to be."""

    min_workers: int
    max_workers: int
    prio_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many clients a server lets in. `max_anonymous` 0: any number of them."""

    max_clients: int
    max_anonymous: int


class Client(Protocol):
    """One client from accept to its last byte: negotiating, open or ending."""

    @property
    def number(self) -> int:
        """Unique within its server, and never given twice."""

    @property
    def transport(self) -> Transport: ...

    @property
    def connected_s(self) -> float:
        """When it was accepted, by CLOCK_REALTIME."""

    @property
    def readonly(self) -> bool: ...

    @property
    def address(self) -> str:
        """HOST:PORT, the host of IPv6 in brackets; "" for a UNIX client."""

    @property
    def authentication(self) -> str:
        """What its word is taken on; "" as long as nobody knows who it is."""

    @property
    def known_identity(self) -> ClientIdentity | None:
        """None as long as nobody knows who it is."""

    def close(self) -> None:
        """Ends its session at once, on both sides, whatever is under way; saying so twice is
        harmless."""


class Server(Protocol):
    """A group of listeners with its clients and limits."""

    @property
    def name(self) -> str: ...

    def clients(self) -> Sequence[Client]:
        """All that are connected, in the order in which they came. Cheap: of thousands, too."""

    def find(self, number: int) -> Client | None: ...

    @property
    def pool(self) -> Pool: ...

    def set_pool(self, bounds: PoolBounds) -> None:
        """Raises CallRefused for whatever cannot be obeyed."""

    @property
    def limits(self) -> Limits: ...

    @property
    def anonymous(self) -> int:
        """How many of the clients have not proven who they are."""

    def set_limits(self, limits: Limits) -> None:
        """From now on; nobody who is in is sent away. Raises CallRefused."""

    async def update_tls(self) -> None:
        """Loads certificates, key, CA and CRL anew, from where the configuration says they are.

        Raises CallRefused; what was in force then stays. Sessions that exist are not touched.
        """


class DaemonView(Protocol):
    """The daemon."""

    async def status(self, *, ask_daemons: bool, ask_busy: bool = False) -> document.Status:
        """What `proxyd status` shows. May wait for daemons, for a bounded time.

        `ask_busy`: of those only that have sessions; nothing is started then.
        """

    def described(self, *, after: int, most: int) -> Sequence[document.Client]:
        """What `proxyd clients` shows of so many clients with numbers above `after`."""

    async def metrics(self) -> str:
        """What `proxyd metrics` prints."""

    def close_client(self, number: int) -> None:
        """What `proxyd kick` asks for. Raises CallRefused."""

    async def reload(self) -> str:
        """What `proxyd reload` asks for: the configuration is read again; says what was done.

        Raises CallRefused, and nothing has changed.
        """

    def drain(self, *, on: bool) -> document.Drained:
        """What `proxyd drain` asks for: nobody new is let in any more, or everybody again.

        Raises CallRefused, where it is about to stop.
        """

    async def apply_rules(self, *, now: bool) -> document.Applied:
        """What `proxyd rules apply` asks for: the configuration is read again, and open sessions
        are held to the rules, or with `now` False looked at. Raises CallRefused."""

    async def upgrade(self) -> document.Upgraded:
        """What `proxyd upgrade` asks for: another process has taken over. Raises CallRefused, and
        this one goes on."""

    @property
    def lib_version(self) -> int:
        """The version of libvirt that it stands for: 11003000 is 11.3.0."""

    def servers(self) -> Sequence[Server]: ...

    @property
    def log_outputs(self) -> Sequence[LogOutput]: ...

    @property
    def log_filters(self) -> Sequence[LogFilter]: ...

    async def set_log_outputs(self, outputs: Sequence[LogOutput]) -> None:
        """None at all stand for the default output. Raises CallRefused if one cannot be opened."""

    async def set_log_filters(self, filters: Sequence[LogFilter]) -> None: ...

    def set_idle_exit(self, seconds: int) -> None:
        """Ends the daemon after so long without a client of any server; 0: never."""

    def shut_down(self, *, preserve: bool) -> None:
        """Begins to stop, as SIGTERM does. The reply goes out before anything is closed.

        `preserve`: what drivers keep of their state is to be kept; a proxy has none.
        """
