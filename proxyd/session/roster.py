"""Every client that is connected, from accept until its session's last byte.

The end of a session is here and nowhere else: `ended` writes the one log line, and what was
counted is given back.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from proxyd.admission.admission import Admission
from proxyd.admission.offences import Offences
from proxyd.admission.place import Place
from proxyd.audit.record import Event, Who
from proxyd.audit.writer import Audit
from proxyd.config.addresses import daemon_at
from proxyd.config.listeners import Door, authentication
from proxyd.config.transports import Transport
from proxyd.negotiation.identity import ClientIdentity
from proxyd.negotiation.terms import TlsTerms
from proxyd.relay.pair import RelayedPair
from proxyd.rules.ruling import Ruling
from proxyd.rules.subject import San
from proxyd.session.away import AwaySession
from proxyd.session.recording import who
from proxyd.session.tally import Tally

CLOSED_BY_ADMINISTRATOR: Final = "closed by an administrator"

log = logging.getLogger("rpc.netserverclient")


@dataclass(slots=True, kw_only=True)
class Client:
    """One connected client. `pair` is there while the relay has its session, or another `process`
    of this daemon."""

    number: int
    door: Door
    place: Place
    connected_s: float  # CLOCK_REALTIME, what virt-admin shows
    started_ns: int = field(default_factory=time.monotonic_ns)
    address: str = ""  # of the network: HOST:PORT
    identity: ClientIdentity = field(default_factory=ClientIdentity)
    known: bool = False  # `identity` is what there is to be known, which may be nothing
    certificate: str = ""  # what its certificate proves: see listening.by_certificate
    names: tuple[San, ...] = ()  # in subjectAltName of its certificate
    gids: tuple[int, ...] | None = None  # the groups that its process was in
    mechanism: str = ""  # of SASL, once it has served
    readonly: bool  # whether it may only look; by its door, or because it asked for no more
    uri: str = ""
    backend: str = ""
    ruling: Ruling | None = None  # what a rule says of its session; None where there are no rules
    pair: RelayedPair | AwaySession | None = None
    tls: TlsTerms | None = None
    process: int = 0  # the number of the one that serves it, where it is not this one
    # Ends the session at once, on both sides, and says why; harmless when it has ended.
    end: Callable[[str], None]

    @property
    def transport(self) -> Transport:
        return self.door.transport

    @property
    def anonymous(self) -> bool:
        return self.place.anonymous

    @property
    def relayed(self) -> RelayedPair | None:
        """What this process's relay has."""
        return self.pair if isinstance(self.pair, RelayedPair) else None

    @property
    def known_identity(self) -> ClientIdentity | None:
        return self.identity if self.known else None

    @property
    def authentication(self) -> str:
        """What its word is taken on; "" as long as nobody knows who it is."""
        if not self.known:
            return ""
        return authentication(self.door, self.certificate, self.mechanism)

    @property
    def target(self) -> tuple[str, str]:
        """Where its session is, for a log line."""
        return self.uri, self.backend

    @property
    def recorded(self) -> Who:
        """What the audit says of it."""
        return who(
            self.identity,
            number=self.number,
            listener=self.door.name,
            address=self.address,
            readonly=self.readonly,
            uri=self.uri,
            backend=self.backend,
            ruling=self.ruling,
        )

    def close(self) -> None:
        """An administrator wants it gone."""
        self.end(CLOSED_BY_ADMINISTRATOR)

    def __str__(self) -> str:
        where = f", from {self.address}" if self.address else ""
        return f"{self.door.name}{where}, {self.identity}"


class Roster:
    """The clients of one server. Numbers start at 1 and only grow."""

    def __init__(self, admission: Admission, audit: Audit | None = None) -> None:
        self.admission = admission
        self.audit = audit or Audit()
        self.offences = Offences()
        self.tally = Tally()
        self.clients: dict[int, Client] = {}
        self.unopened = 0  # clients that ended before they had a session
        self.backends: set[str] = set()  # where sessions were opened, by the sockets' paths
        self.on_change: Callable[[Client], None] = nobody_listens  # it came, is open, or is gone
        self.on_session: Callable[[Client], None] = nobody_listens  # one is open in this process
        self._calls_over = self._forbidden_over = 0  # of sessions that have ended
        self.last = 0  # the highest number that was given

    @property
    def calls(self) -> int:
        """Of all sessions since the start. A call is what a session's own count takes for one:
        neither keepalive nor a packet of a stream."""
        pairs = [client.pair for client in self.clients.values()]
        return self._calls_over + sum(pair.up.calls for pair in pairs if pair is not None)

    @property
    def forbidden(self) -> int:
        """Calls that no rule allowed, of all sessions since the start."""
        pairs = [client.pair for client in self.clients.values()]
        return self._forbidden_over + sum(pair.up.forbidden for pair in pairs if pair is not None)

    def arrived(self, door: Door, place: Place, *, end: Callable[[str], None]) -> Client:
        self.last += 1
        client = Client(
            number=self.last,
            door=door,
            place=place,
            connected_s=time.time(),
            readonly=door.readonly,
            end=end,
        )
        place.end = end
        self.clients[client.number] = client
        self.on_change(client)
        return client

    def proved(self, client: Client) -> None:
        """The client has authenticated; saying so twice is harmless."""
        self.admission.proved(client.place)

    def opened(self, client: Client, pair: RelayedPair, end: Callable[[str], None]) -> None:
        """The session is open and belongs to the relay from here on, which can `end` it."""
        client.pair, client.end = pair, end
        client.place.end = end
        self.admission.opened(client.place)
        self.backends.add(client.backend)
        self.tally.session_opened(client.door.name, daemon_at(client.backend))
        self.audit.put(Event.OPENED, client.recorded)
        log.info(
            "session %d opened: %s, %s at %s%s%s",
            client.number,
            client,
            client.uri,
            client.backend,
            f", by {client.ruling}" if client.ruling else "",
            f", {client.tls}" if client.tls else "",
        )
        self.on_session(client)
        self.on_change(client)

    def elsewhere(self, client: Client) -> None:
        """Another process of this daemon has it, and told us."""
        self.clients[client.number] = client
        if client.pair is not None:
            self.admission.opened(client.place)

    def resumed(self, client: Client, pair: RelayedPair, end: Callable[[str], None]) -> None:
        """One that was elsewhere has come here with its open session."""
        client.pair, client.process = pair, 0
        client.end = client.place.end = end
        self.backends.add(client.backend)
        self.on_session(client)
        log.info("session %d goes on here: %s, %s at %s", client.number, client, *client.target)

    def moved(self, client: Client, process: int) -> None:
        """Its session goes on in another process."""
        self._free(client)
        log.info("session %d goes on in process %d: %s", client.number, process, client)

    def handed_on(self, client: Client) -> None:
        """The process that has it tells another one from now on."""
        self._free(client)

    def left_behind(self, client: Client) -> None:
        """Its session goes on in the process that is started when this one has ended."""
        self._free(client)
        log.info("session %d goes on after the restart: %s", client.number, client)

    def came_back(self, client: Client, pair: RelayedPair, end: Callable[[str], None]) -> None:
        """The process before has left its session behind."""
        client.pair = pair
        self.elsewhere(client)
        self.resumed(client, pair, end)
        self.on_change(client)

    def gone_elsewhere(self, client: Client) -> None:
        """The process that had it says that it has ended, and has logged it."""
        self._left(client)

    def _left(self, client: Client) -> None:
        self._free(client)
        self.on_change(client)

    def _free(self, client: Client) -> None:
        del self.clients[client.number]
        # It held the session that holds the client, and with it all that the peer has sent.
        client.end = client.place.end = _has_ended
        self.admission.left(client.place)

    def ended(self, client: Client, reason: str, level: int = logging.INFO) -> None:
        """The client is gone, for whatever reason."""
        self._left(client)
        lasted_ns = time.monotonic_ns() - client.started_ns
        seconds = lasted_ns / 1e9
        pair = client.pair
        if pair is None:
            self.unopened += 1
            log.log(
                level,
                "client %d ended before a session was open: %s: %s; %.3f s",
                client.number,
                client,
                reason,
                seconds,
            )
        else:
            self._calls_over += pair.up.calls
            self._forbidden_over += pair.up.forbidden
            self.tally.session_ended(daemon_at(client.backend), lasted_ns)
            self.audit.put(
                Event.ENDED,
                client.recorded,
                {"reason": reason, "seconds": seconds, "calls": pair.up.calls},
            )
            refused = (
                f", {pair.up.refusals} attempts to replace its identity or connection refused"
                if pair.up.refusals
                else ""
            )
            denied = f", {pair.up.forbidden} calls denied by rule" if pair.up.forbidden else ""
            log.log(
                logging.WARNING if refused else level,
                "session %d ended: %s, %s at %s: %s; %.3f s, %d bytes up, %d bytes down,"
                " %d calls, %d errors%s",
                client.number,
                client,
                client.uri,
                client.backend,
                reason,
                seconds,
                pair.up.moved,
                pair.down.moved,
                pair.up.calls,
                pair.down.errors,
                denied + refused,
            )

    def relay_ended(self, pair: RelayedPair) -> None:
        """The relay's report of a session's end, in the control plane's thread."""
        client = self.clients[pair.number]
        if pair.offended:
            self.offences.note(client.place.holder)
        self.ended(client, pair.reason)


def _has_ended(_why: str) -> None:
    """Nothing is left to end."""


def nobody_listens(_client: Client) -> None:
    """Until another process has to know."""
