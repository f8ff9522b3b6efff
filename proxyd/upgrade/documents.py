"""What two processes of this daemon tell each other of a client (admin/document.py reads it).

A field that has a default need not be there: the other process may be of an older release.
"""

import socket
from dataclasses import dataclass
from typing import Final

from proxyd.admin import document
from proxyd.admission.admission import Admission
from proxyd.admission.holder import Holder, Rank
from proxyd.config.listeners import Door
from proxyd.config.transports import Transport
from proxyd.negotiation.identity import ClientIdentity
from proxyd.negotiation.terms import TlsTerms
from proxyd.peer.credentials import gids_of
from proxyd.rules.grant import Grant, Level
from proxyd.rules.ruling import Ruling
from proxyd.rules.subject import San
from proxyd.session.roster import Client
from proxyd.upgrade.format import Unreadable
from proxyd.wire.programs import AuthMethod

PAGE: Final = 16  # clients in one message: a millisecond of the interpreter


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorTold:
    """By which listener it came in, and what was asked of it there."""

    name: str
    transport: int
    method: int
    readonly: bool
    own_uid_only: bool

    @classmethod
    def of(cls, door: Door) -> "DoorTold":
        return cls(
            name=door.name,
            transport=int(door.transport),
            method=int(door.method),
            readonly=door.readonly,
            own_uid_only=door.own_uid_only,
        )

    def door(self) -> Door:
        """Raises ValueError."""
        return Door(
            name=self.name,
            transport=Transport(self.transport),  # type: ignore[call-arg]  # by its number
            method=AuthMethod(self.method),
            readonly=self.readonly,
            own_uid_only=self.own_uid_only,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderTold:
    """Who pays for its place."""

    name: str
    rank: int
    uid: int | None

    @classmethod
    def of(cls, holder: Holder) -> "HolderTold":
        return cls(name=holder.name, rank=int(holder.rank), uid=holder.uid)

    def holder(self) -> Holder:
        """Raises ValueError."""
        return Holder(self.name, Rank(self.rank), self.uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresTold:
    """Of an open session; `active_ns` is CLOCK_MONOTONIC, which both processes share."""

    calls: int
    errors: int
    bytes_up: int
    bytes_down: int
    unanswered: int
    streams: int
    active_ns: int
    timed: int = 0
    timed_ns: int = 0
    forbidden: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NameTold:
    """One of its certificate's names."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RulingTold:
    """Under which rule it is: whatever the file says by now, it goes on to be."""

    line: int
    text: str
    holder: str
    by_ssh: bool
    level: str
    name: str
    words: tuple[str, ...]
    sessions: int
    calls_per_s: float
    idle_s: int
    until_s: float

    @classmethod
    def of(cls, ruling: Ruling | None) -> "RulingTold | None":
        if ruling is None:
            return None
        grant = ruling.grant
        return cls(
            line=ruling.line,
            text=ruling.text,
            holder=ruling.holder,
            by_ssh=ruling.by_ssh,
            level=grant.level.value,
            name=grant.name,
            words=grant.words,
            sessions=grant.sessions,
            calls_per_s=grant.calls_per_s,
            idle_s=grant.idle_s,
            until_s=grant.until_s,
        )

    def ruling(self) -> Ruling:
        """Raises ValueError."""
        return Ruling(
            line=self.line,
            text=self.text,
            holder=self.holder,
            by_ssh=self.by_ssh,
            grant=Grant(
                level=Level(self.level),
                name=self.name,
                words=self.words,
                sessions=self.sessions,
                calls_per_s=self.calls_per_s,
                idle_s=self.idle_s,
                until_s=self.until_s,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTold:
    """One client; without `figures` it has no session yet."""

    number: int
    door: DoorTold
    holder: HolderTold
    anonymous: bool
    connected_s: float
    started_ns: int
    address: str
    identity: ClientIdentity
    known: bool
    certificate: str
    mechanism: str
    readonly: bool
    uri: str
    backend: str
    tls: TlsTerms | None
    figures: FiguresTold | None
    names: tuple[NameTold, ...] = ()
    gids: tuple[int, ...] | None = None
    ruling: RulingTold | None = None

    @classmethod
    def of(cls, client: Client) -> "ClientTold":
        return cls(
            number=client.number,
            door=DoorTold.of(client.door),
            holder=HolderTold.of(client.place.holder),
            anonymous=client.anonymous,
            connected_s=client.connected_s,
            started_ns=client.started_ns,
            address=client.address,
            identity=client.identity,
            known=client.known,
            certificate=client.certificate,
            mechanism=client.mechanism,
            readonly=client.readonly,
            uri=client.uri,
            backend=client.backend,
            tls=client.tls,
            figures=figures_of(client),
            names=tuple(NameTold(kind=each.kind, value=each.value) for each in client.names),
            gids=client.gids,
            ruling=RulingTold.of(client.ruling),
        )

    def san(self) -> tuple[San, ...]:
        return tuple(San(each.kind, each.value) for each in self.names)

    def client(self, admission: Admission) -> Client:
        """One that comes with its session, and gets a place."""
        place = admission.seat(self.holder.holder(), anonymous=self.anonymous)
        return Client(
            number=self.number,
            door=self.door.door(),
            place=place,
            connected_s=self.connected_s,
            started_ns=self.started_ns,
            address=self.address,
            identity=self.identity,
            known=self.known,
            certificate=self.certificate,
            mechanism=self.mechanism,
            readonly=self.readonly,
            uri=self.uri,
            backend=self.backend,
            tls=self.tls,
            names=self.san(),
            gids=self.gids,
            ruling=None if self.ruling is None else self.ruling.ruling(),
            end=place.end,
        )


def learn_groups(client: Client, sock: socket.socket) -> None:
    """Of a client of this host, by its socket, if a release that knew no rules has not told."""
    if client.gids is None and not client.door.transport.traits.by_network:
        client.gids = gids_of(sock)


def figures_of(client: Client) -> FiguresTold | None:
    """None of one that has no session yet."""
    pair = client.pair
    if pair is None:
        return None
    return FiguresTold(
        calls=pair.up.calls,
        errors=pair.down.errors,
        bytes_up=pair.up.moved,
        bytes_down=pair.down.moved,
        unanswered=pair.unanswered,
        streams=len(pair.ledger.streams or ()),
        active_ns=pair.active_ns,
        timed=pair.stopwatch.timed,
        timed_ns=pair.stopwatch.sum_ns,
        forbidden=pair.up.forbidden,
    )


def client_told(found: object) -> ClientTold:
    """What a message says of a client. Raises Unreadable."""
    try:
        told = document.read(ClientTold, found)
        told.door.door()
        told.holder.holder()
        if told.ruling is not None:
            told.ruling.ruling()
    except (document.Unreadable, ValueError) as error:
        raise Unreadable(f"a client: {error}") from error
    return told


def figures_told(found: object) -> FiguresTold:
    """Likewise of its figures."""
    try:
        return document.read(FiguresTold, found)
    except document.Unreadable as error:
        raise Unreadable(f"figures: {error}") from error
