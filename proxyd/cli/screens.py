"""Status and clients as a person reads them. Everything that a client chose is plain text here."""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar, cast

from rich.console import Console, Group, RenderableType
from rich.text import Text

from proxyd import __version__
from proxyd.admin import document
from proxyd.cli.rows import Column, Rows
from proxyd.config.addresses import daemon_at
from proxyd.config.expiry import EXPIRY_DAYS
from proxyd.config.quoting import one_line
from proxyd.invocation import pasteable
from proxyd.process.health import Health
from proxyd.process.program import restart_of

if TYPE_CHECKING:
    from proxyd.cli.top import Rates

_BAD: Final = "bold red"
_DIM: Final = "dim"
# Characters of any text: a client may choose a name of thousands.
_LONGEST: Final = 200
_Told = TypeVar("_Told")

_CLIENT: Final = (
    Column("ID", right=True),
    Column("FROM", whole=True),
    Column("WHO"),
    Column("URI", whole=True),
    Column("DAEMON"),
    Column("AGE", right=True),
    Column("IDLE", right=True),
    Column("CALLS", right=True),
    Column("UP", right=True),
    Column("DOWN", right=True),
)
_TOP: Final = (
    *_CLIENT[:5],
    Column("CALLS/S", right=True),
    Column("MS", right=True),
    Column("UP/S", right=True),
    Column("DOWN/S", right=True),
)
_LISTENER: Final = (
    Column("LISTENER"),
    Column("ADDRESS", whole=True),
    Column("AUTHENTICATION"),
    Column("CLIENTS"),
)
_DAEMON: Final = (Column("DAEMON"), Column("SOCKET", whole=True), Column("SESSIONS"))
_CERTIFICATE: Final = (
    Column("CERTIFICATE"),
    Column("OF"),
    Column("KEY"),
    Column("FILE", whole=True),
    Column("ENDS"),
)
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def console() -> Console:
    """As wide as the terminal; where there is none, wide enough for any row."""
    return Console(
        width=None if sys.stdout.isatty() else 240,
        highlight=False,
        emoji=False,
        markup=False,
        no_color="NO_COLOR" in os.environ,
    )


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that an administrator should look at, and how bad it is."""

    level: Health
    text: str


def attention(found: document.Status) -> list[str]:
    """What an administrator should look at, a line each."""
    return [each.text for each in concerns(found)]


def concerns(found: document.Status) -> list[Concern]:
    """The same with how bad each is (docs/status.md, section 3), the worst ones first."""
    remedy = "" if found.program is None else one_line(found.program.remedy)  # to be pasted whole
    found = _plain(found)
    critical = [
        *_of_backends(found),
        *(f"{each.subject}: {each.text}" for each in found.faults),
        *(f"{each.name}: {each.broken}" for each in found.listeners if each.broken),
    ]
    warnings = list(_of_the_daemon(found, remedy))
    warnings += [f"clients by {each.way} are not served: {each.text}" for each in found.troubles]
    for each in found.certificates:
        left = each.days_left
        if left is not None and left < EXPIRY_DAYS:
            when = f"ended {-left:.0f} days ago" if left < 0 else f"ends in {left:.0f} days"
            text = f"the {each.role} certificate {each.subject} {when}: renew it"
            (critical if left < 0 else warnings).append(text)
    reload = found.last_reload
    if reload is not None and not reload.succeeded:
        warnings.append(f"the last reload failed: {reload.text}")
    warnings += _shortage(found.limits)
    warnings += _overdoing(found.limits)
    if found.log.dropped or found.log.lost:
        warnings.append(
            "log lines were lost: an output does not keep up or cannot be written, or somebody"
            " makes too many of one kind"
        )
    if found.relay.own_errors:
        warnings.append("sessions ended by errors of proxyd's own: the log has their tracebacks")
    return [Concern(Health.CRITICAL, text) for text in critical] + [
        Concern(Health.WARNING, text) for text in warnings
    ]


def _of_the_daemon(found: document.Status, remedy: str) -> Iterator[str]:
    if found.drain is not None:
        yield pasteable(f"{draining(found.drain)}: `proxyd drain --undo` lets in again")
    program = found.program
    if program is not None and program.outdated:
        what = "; ".join(program.outdated)
        yield pasteable(f"what runs is not what is installed: {what}. {mending(remedy)}")
    elif program is None:  # it does not know the question
        older = f"the daemon, proxyd {found.version}, is older than this command, {__version__}"
        yield pasteable(f"{older}. {mending(restart_of(found.pid))}")


def mending(remedy: str) -> str:
    """What to do about a program that is not what is installed."""
    if not remedy:
        return "To mend that, start it anew, which ends its sessions"
    ends = "" if remedy.startswith("proxyd ") else ", which ends its sessions"
    return f"To mend that{ends}: {remedy}"


def draining(drain: document.Drain) -> str:
    """That nobody new is let in, since when, and who is left."""
    left = f"{drain.left} session{'' if drain.left == 1 else 's'} left"
    return f"draining for {_span(time.time() - drain.since)}, nobody new is let in, {left}"


def _state(found: document.Status) -> str:
    if found.drain is None:
        return f"{found.state} for {_span(found.uptime_s)}"
    drained_s = time.time() - found.drain.since
    return f"draining for {_span(drained_s)}, up for {_span(found.uptime_s)}"


def _of_backends(found: document.Status) -> Iterator[str]:
    for each in found.backends:
        if each.missing:
            yield f"{each.daemon} was there and is gone: {each.socket} does not exist any more"
        elif each.answer and not each.answer.answers and (each.present or each.sessions):
            yield f"{each.daemon} does not answer: {each.answer.trouble}"


def health(found: Sequence[Concern]) -> Health:
    """The worst of them."""
    return max((each.level for each in found), default=Health.OK)


def _shortage(limits: document.Limits) -> list[str]:
    """That places are short, and who has them."""
    if limits.clients < limits.max_clients and not limits.waiting:
        return []
    held = ", ".join(f"{each.holder} {each.clients}" for each in limits.most_places)
    what = (
        "max_clients is reached, new clients wait: raise it, or see who is connected"
        if limits.clients >= limits.max_clients
        else f"{limits.waiting} clients wait for others to prove who they are"
    )
    return [f"{what} (most are of {held})" if held else what]


def _overdoing(limits: document.Limits) -> Iterator[str]:
    """Who does something too often."""
    if limits.over_rate:
        who = ", ".join(limits.over_rate)
        yield f"connections are refused, more a second than proxyd_connection_rate: of {who}"
    if limits.over_logins:
        who = ", ".join(limits.over_logins)
        yield f"logins are refused, more have failed than proxyd_login_failures: of {who}"


def status_view(
    found: document.Status, ago_s: Mapping[str, float] = MappingProxyType({})
) -> RenderableType:
    """The whole status, as one thing to print.

    `ago_s`: how old the answers of daemons are that were not asked just now, by their sockets.
    """
    found = _plain(found)
    limits, relay = found.limits, found.relay
    head = Text.assemble(
        (f"proxyd {found.version}", "bold"),
        f"  {_state(found)}, pid {found.pid}\nconfiguration {found.configuration}",
    )
    use = Text(
        f"clients {limits.clients} of {limits.max_clients},"
        f" unauthenticated {limits.unauthenticated} of"
        f" {limits.max_unauthenticated or 'any number'} by each user or way in,"
        f" administrators {limits.admin_clients} of {limits.max_admin_clients}\n"
        f"sessions {relay.sessions}, calls {relay.calls}, errors {relay.errors},"
        f" up {_size(relay.bytes_up)}, down {_size(relay.bytes_down)}"
        + (f", {relay.tls_in_kernel} encrypted by the kernel" if relay.tls_in_kernel else "")
        + "".join(
            f"\nprocess {each.pid}, which has handed over, serves {each.clients} of them to"
            " their end"
            for each in found.processes
        )
    )
    parts: list[RenderableType] = [head, use, _listeners(found), _backends(found, ago_s)]
    if found.certificates:
        parts.append(_certificates(found))
    reload = found.last_reload
    if reload is not None:
        ago = _span(time.time() - reload.at)
        parts.append(Text(f"{ago} ago: {reload.text}", style="" if reload.succeeded else _BAD))
    parts += [Text(f"! {line}", style=_BAD) for line in attention(found)]
    return Group(*parts)


def stale(view: RenderableType, why: str, age_s: float) -> RenderableType:
    """What was told last, when nobody answers any more."""
    head = f"no answer for {_span(age_s)}, what stands below is as old: {_plain(why)}"
    return Group(Text(head, style=_BAD), view)


def clients_view(
    clients: Sequence[document.Client], drain: document.Drain | None = None
) -> RenderableType:
    """A row for each; below them, whether nobody new is let in."""
    table = Rows(_CLIENT)
    for each in map(_plain, clients):
        is_open = each.state == "open"
        where = " ".join(filter(None, (each.listener, each.address)))
        table.add(
            str(each.id),
            where + (" (read-only)" if each.readonly else ""),
            _who(each),
            each.uri or each.state,
            daemon_at(each.backend),
            _span(each.age_s),
            _span(each.idle_s) if is_open else "",
            str(each.calls),
            _size(each.bytes_up),
            _size(each.bytes_down),
        )
    count = f"{len(clients)} client{'' if len(clients) == 1 else 's'}"
    shown = Group(table, Text(count, style=_DIM)) if clients else Text("nobody is connected")
    return shown if drain is None else Group(shown, Text(f"! {draining(drain)}", style=_BAD))


def top_view(shown: "Sequence[Rates]", everybody: "Sequence[Rates]") -> RenderableType:
    """A row for each of `shown`, and what all do together."""
    table = Rows(_TOP)
    for each in shown:
        client = _plain(each.client)
        table.add(
            str(client.id),
            " ".join(filter(None, (client.listener, client.address))),
            _who(client),
            client.uri,
            daemon_at(client.backend),
            f"{each.calls:.1f}",
            "" if each.latency_s is None else f"{each.latency_s * 1000:.2f}",
            _size(round(each.bytes_up)),
            _size(round(each.bytes_down)),
        )
    calls = sum(each.calls for each in everybody)
    moved = sum(each.bytes_up + each.bytes_down for each in everybody)
    together = f"{len(everybody)} open, {calls:.1f} calls/s, {_size(round(moved))}/s"
    return Group(Text(together, style=_DIM), table)


def _who(client: document.Client) -> str:
    """Its name, and for TLS what that is taken on; a daemon that is older does not say."""
    proof = client.authentication if client.transport == "tls" else ""
    return f"{client.who}, by {proof}" if proof else client.who


def _listeners(found: document.Status) -> Rows:
    table = Rows(_LISTENER)
    for each in found.listeners:
        table.add(
            each.name + (" (read-only)" if each.readonly else ""),
            Text(each.address, style=_BAD if each.broken else ""),
            each.authentication,
            "" if each.clients is None else str(each.clients),
        )
    return table


def _backends(found: document.Status, ago_s: Mapping[str, float]) -> Rows:
    parted = any(map(_partings, found.backends))
    more = [Column("PARTINGS")] if parted else []
    table = Rows([*_DAEMON, *more, Column("ANSWERS")])
    for each in found.backends:
        if each.missing:
            said = Text("missing", style=_BAD)
        elif each.answer is None:
            said = Text("not asked" if each.present else "no socket", style=_DIM)
        elif each.answer.answered_ms is not None:
            asked_s = ago_s.get(each.socket)
            when = "" if asked_s is None else f", {_span(asked_s)} ago"
            said = Text(f"in {each.answer.answered_ms:.1f} ms{when}")
        else:
            said = Text(each.answer.trouble, style=_BAD if each.present else _DIM)
        partings = [_partings(each)] if parted else []
        table.add(each.daemon, each.socket, str(each.sessions), *partings, said)
    return table


def _partings(of: document.Backend) -> str:
    """How many clients are gone whose daemon does not know yet, and how those before ended."""
    if of.partings is None:
        return ""
    named = {each.name: getattr(of.partings, each.name) for each in fields(of.partings)}
    return ", ".join(f"{many} {name.replace('_', ' ')}" for name, many in named.items() if many)


def _certificates(found: document.Status) -> Rows:
    table = Rows(_CERTIFICATE)
    for each in found.certificates:
        left = each.days_left
        if left is None:
            ends = Text("never")
        else:
            date = time.strftime("%Y-%m-%d", time.gmtime(each.expires_at))
            ends = Text(f"{date}, in {left:.0f} days", style=_BAD if left < EXPIRY_DAYS else "")
        table.add(each.role, each.subject, each.key or "", each.file or "", ends)
    return table


def _plain(found: _Told) -> _Told:
    """The same with all texts harmless: no control characters, no line ends, none too long."""
    plain: object = found
    if isinstance(found, str):
        plain = one_line(found[:_LONGEST] + "…" if len(found) > _LONGEST else found)
    elif isinstance(found, tuple):
        plain = tuple(map(_plain, found))
    elif is_dataclass(found) and not isinstance(found, type):
        changes = {each.name: _plain(getattr(found, each.name)) for each in fields(found)}
        plain = replace(found, **changes)
    return cast(_Told, plain)


def _span(seconds: float) -> str:
    """As short as top writes it: 4.2s, 17m03s, 5h12m, 3d04h."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit takes everything")
