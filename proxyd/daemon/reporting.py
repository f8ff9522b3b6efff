"""What `proxyd status` and `proxyd clients` are told: plain values, as JSON has them.

Keys are added and never renamed. Names that end in `_s` are seconds, in `_ms` milliseconds;
`…_at` is a time since the epoch.
"""

import datetime as dt
import itertools
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import trio

from proxyd import __version__
from proxyd.admin.visitors import AdminServer
from proxyd.config.listening import Transport
from proxyd.config.routes import Destination
from proxyd.daemon.idle import IdleExit
from proxyd.daemon.in_force import InForce, Options
from proxyd.daemon.log_settings import LogSettings
from proxyd.daemon.reload import Reloader
from proxyd.negotiation.identity import ClientIdentity
from proxyd.session.handover import Relay
from proxyd.session.probing import Answered, probe
from proxyd.session.roster import Client, Roster

if TYPE_CHECKING:
    from cryptography import x509

_HOLDERS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Reads the live daemon; changes nothing."""

    in_force: InForce
    options: Options
    roster: Roster
    admin: AdminServer
    relay: Relay
    logs: LogSettings
    idle: IdleExit
    reloader: Reloader
    started_at: float

    async def status(self, *, ask_daemons: bool) -> dict[str, Any]:
        """Waits for daemons, two seconds at most, if they are to be asked."""
        backends = await self._backends(ask_daemons=ask_daemons)
        admission = self.roster.admission
        return {
            "version": __version__,
            "pid": os.getpid(),
            "state": "draining" if admission.closed else "serving",
            "started_at": self.started_at,
            "uptime_s": time.time() - self.started_at,
            "configuration": self.options.source.path,
            "idle_exit_s": self.idle.seconds,
            "listeners": self._listeners(),
            "limits": {
                "clients": admission.clients,
                "max_clients": admission.max_clients,
                "unauthenticated": admission.anonymous,
                "max_unauthenticated": admission.max_anonymous,
                "admin_clients": self.admin.admission.clients,
                "max_admin_clients": self.admin.admission.max_clients,
                "descriptor_room": self.in_force.descriptor_room,
                "waiting": admission.standing,
                "silent": admission.callers - admission.standing,
                "most_places": [
                    {"holder": name, "clients": places}
                    for name, places in admission.holdings.largest(_HOLDERS_SHOWN)
                ],
            },
            "backends": backends,
            "certificates": self._certificates(),
            "last_reload": self._last_reload(),
            "relay": self._relay(),
            "log": {"dropped": self.logs.logs.dropped, "lost": self.logs.logs.lost},
        }

    def _listeners(self) -> list[dict[str, Any]]:
        clients = Counter(client.door.name for client in self.roster.clients.values())
        listening = [
            {
                "name": door.name,
                "address": _address(listener.getsockname()),
                "transport": door.transport.name.lower(),
                "authentication": door.method.name.lower(),
                "readonly": door.readonly,
                "clients": clients[door.name],
            }
            for listener, door in self.in_force.doors
        ]
        return listening + [
            {
                "name": door.name,
                "address": _address(listener.getsockname()),
                "transport": "admin",
                "authentication": "uid",
                "readonly": False,
                "clients": None,  # of both together, in `limits`
            }
            for listener, door in self.in_force.admin_doors
        ]

    async def _backends(self, *, ask_daemons: bool) -> list[dict[str, Any]]:
        sessions = Counter(
            client.backend for client in self.roster.clients.values() if client.pair is not None
        )
        routes = self.in_force.routes
        found = _of_interest(routes.known(), set(routes.routes.values()), sessions)
        answers: dict[str, Answered] = {}
        if ask_daemons:
            async with trio.open_nursery() as nursery:

                async def ask(destination: Destination) -> None:
                    answers[destination.path] = await probe(destination)

                for destination in found:
                    nursery.start_soon(ask, destination)
        return [_backend(each, sessions[each.path], answers.get(each.path)) for each in found]

    def _certificates(self) -> list[dict[str, Any]]:
        tls = self.in_force.tls
        if tls is None:
            return []
        shown = tls.credentials
        listed = [("server", pair.certificate) for pair in shown.pairs]
        listed += [("ca", authority) for authority in shown.authorities]
        return [_certificate(role, certificate) for role, certificate in listed] + [
            {
                "role": "crl",
                "subject": each.issuer.rfc4514_string(),
                **_expiry(each.next_update_utc),
            }
            for each in shown.revocations
        ]

    def _last_reload(self) -> dict[str, Any] | None:
        last = self.reloader.last
        if last is None:
            return None
        return {"at": last.at_s, "succeeded": last.succeeded, "text": last.text}

    def _relay(self) -> dict[str, Any]:
        loops = self.relay.loops
        return {
            "threads": len(loops),
            "sessions": sum(client.pair is not None for client in self.roster.clients.values()),
            "calls": sum(sum(loop.figures.up.frames) for loop in loops),
            "bytes_up": sum(sum(loop.figures.up.bytes) for loop in loops),
            "bytes_down": sum(sum(loop.figures.down.bytes) for loop in loops),
            "errors": sum(sum(loop.figures.down.errors) for loop in loops),
            "tls_in_kernel": sum(map(_in_kernel, self.roster.clients.values())),
            "own_errors": sum(loop.bugs for loop in loops),
        }


def described(roster: Roster, *, after: int, most: int) -> list[dict[str, Any]]:
    """So many clients with numbers above `after`, in the order in which they came."""
    now, now_ns = time.time(), time.monotonic_ns()
    above = (client for client in roster.clients.values() if client.number > after)
    return [_client(client, now, now_ns) for client in itertools.islice(above, most)]


def _client(client: Client, now: float, now_ns: int) -> dict[str, Any]:
    pair = client.pair
    seconds = (now_ns - client.started_ns) / 1e9
    return {
        "id": client.number,
        "listener": client.door.name,
        "transport": client.transport.name.lower(),
        "address": client.address,
        "who": str(client.identity) if client.known else "not known yet",
        "identity": _identity(client.identity),
        "authenticated": not client.anonymous,
        "readonly": client.readonly,
        "state": "negotiating" if pair is None else "open",
        "uri": client.uri,
        "backend": client.backend,
        "connected_at": now - seconds,
        "age_s": seconds,
        "idle_s": 0.0 if pair is None else (now_ns - pair.active_ns) / 1e9,
        "calls": 0 if pair is None else pair.up.calls,
        "errors": 0 if pair is None else pair.down.errors,
        "bytes_up": 0 if pair is None else pair.up.moved,
        "bytes_down": 0 if pair is None else pair.down.moved,
    }


def _in_kernel(client: Client) -> bool:
    """Whether the kernel encrypts its bytes."""
    if client.pair is None or client.transport is not Transport.TLS:
        return False
    return bool(getattr(client.pair.client.endpoint, "in_kernel", False))


def _identity(identity: ClientIdentity) -> dict[str, Any]:
    values = ((each.name, getattr(identity, each.name)) for each in fields(identity))
    return {name: value for name, value in values if value is not None}


def _of_interest(
    known: Sequence[Destination], named: set[str], sessions: Counter[str]
) -> list[Destination]:
    """Daemons that a route names, that have a socket, or that sessions are at; never none."""
    found = [
        each
        for each in known
        if {each.daemon, each.path} & named or sessions[each.path] or os.path.exists(each.path)
    ]
    shown = {each.path for each in found}
    # Read-only sockets, the system's daemons behind a user's proxyd, drivers that nobody knows.
    found += [_destination(path) for path in sorted(sessions) if path not in shown]
    return found or list(known[:1])


def _destination(path: str) -> Destination:
    daemon = os.path.basename(path).removesuffix("-ro").removesuffix("-sock")
    return Destination(name="", daemon=daemon, path=path, unit=None)


def _backend(destination: Destination, sessions: int, answered: Answered | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "daemon": destination.daemon,
        "socket": destination.path,
        "present": os.path.exists(destination.path),
        "sessions": sessions,
    }
    if answered is not None:
        told |= {
            "answers": answered.ms is not None,
            "answered_ms": answered.ms,
            "trouble": answered.trouble,
        }
    return told


def _certificate(role: str, certificate: "x509.Certificate") -> dict[str, Any]:
    return {
        "role": role,
        "subject": certificate.subject.rfc4514_string(),
        **_expiry(certificate.not_valid_after_utc),
    }


def _expiry(ends: dt.datetime | None) -> dict[str, Any]:
    if ends is None:
        return {"expires_at": None, "days_left": None}
    left = ends - dt.datetime.now(dt.UTC)
    return {"expires_at": ends.timestamp(), "days_left": left.total_seconds() / 86400}


def _address(name: Any) -> str:
    if isinstance(name, bytes):
        return "@" + os.fsdecode(name[1:].rstrip(b"\0"))
    if isinstance(name, str):
        return name
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
