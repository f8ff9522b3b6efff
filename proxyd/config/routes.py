"""From the name in a client's CONNECT_OPEN to a daemon's socket (docs/protocol/routing.md).

A name comes from the client and goes to a daemon that runs as root, so it is never passed on as
it came. It is taken apart, everything that could make a daemon dial out, run a program or load
a driver into itself is refused, and what goes on is put together anew: `driver:///path` and the
driver's own query. Percent-escapes are undone before anything is looked at, because the daemon
undoes them as well.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from proxyd.config.addresses import socket_name, socket_unit
from proxyd.wire import failure
from proxyd.wire.failure import Failure

# To take a name of both limits apart takes 0.6 ms, in which nothing else of the process runs.
MAX_NAME: Final = 4096  # longer than any driver's URI; PATH_MAX for the test driver's file
MAX_PARAMETERS: Final = 64  # of its query; no driver knows ten
_REMEMBERED: Final = 64  # names: clients of one host use the same few

_URI: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):"
    r"(?://(?P<authority>[^/?#]*))?"
    r"(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?"
    r"(?:#.*)?"
)
# RFC 3986's characters, escapes whole; anything else a client's library has escaped by itself.
_LEGAL: Final = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


def _spellings(kept: bytes) -> tuple[str, ...]:
    """How each byte is written."""
    return tuple(
        chr(byte) if byte in kept or (byte < 0x80 and chr(byte).isalnum()) else f"%{byte:02X}"
        for byte in range(256)
    )


_IN_PATH: Final = _spellings(b"-._~/:@!$&'()*+,;=")
_IN_QUERY: Final = _spellings(b"-._~/:@")

# What a client's own library takes out of a query. Two of them would make the daemon act.
_DANGEROUS: Final = frozenset({"socket", "command"})
_CLIENT_SIDE: Final = frozenset(
    {
        "name",
        "auth",
        "sshauth",
        "netcat",
        "keyfile",
        "pkipath",
        "known_hosts",
        "known_hosts_verify",
        "tls_priority",
        "mode",
        "proxy",
        "no_sanity",
        "no_verify",
        "no_tty",
        "authfile",
    }
)

# Drivers that live inside the monolithic daemons: no modular daemon serves them.
_INSIDE: Final = frozenset(
    {
        "test",
        "esx",
        "gsx",
        "vpx",
        "hyperv",
        "openvz",
        "parallels",
        "vmwareplayer",
        "vmwarews",
        "vmwarefusion",
    }
)
_TYPO_HOSTS: Final = frozenset({"system", "session"})

# Those that have a modular daemon (docs/protocol/routing.md, section 2).
_DRIVERS: Final = (
    "qemu",
    "xen",
    "lxc",
    "vbox",
    "bhyve",
    "vz",
    "ch",
    "interface",
    "network",
    "nodedev",
    "nwfilter",
    "secret",
    "storage",
)

# Which daemons an empty name looks for, in this order (docs/protocol/routing.md, section 5).
PROBED_SYSTEM: Final = ("xen", "qemu", "lxc", "vbox", "bhyve", "vz")
PROBED_SESSION: Final = ("qemu", "vbox")


class Unroutable(Exception):
    """The name leads nowhere, or may not be passed on; carries the error for the client."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason.message)
        self.failure = reason


class Uri(NamedTuple):
    """A client's name, taken apart and found harmless."""

    driver: str
    path: str
    query: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """The name that goes on to the daemon."""
        query = "&".join(
            f"{_escape(key, _IN_QUERY)}={_escape(value, _IN_QUERY)}" for key, value in self.query
        )
        path = _escape(self.path, _IN_PATH)
        return f"{self.driver}://{path}" + (f"?{query}" if query else "")


class Destination(NamedTuple):
    """Where a connection goes: the socket, and the name for the daemon's CONNECT_OPEN.

    `daemon` is a name for people; `unit` is what systemd would start, when it is known.
    """

    name: str
    daemon: str
    path: str
    unit: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTable:
    """`routes`: scheme to daemon or absolute path, over the rule `virt` + scheme + `d`.

    `system_dir` and `session_dir` are where the daemons' sockets are; the second is used by an
    unprivileged proxyd for names that mean the user's own daemons.
    """

    privileged: bool
    system_dir: str
    session_dir: str
    routes: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, name: str, *, readonly: bool) -> Destination:
        """The destination of a name that is not empty. Raises Unroutable."""
        driver, uri_path, written = _understood(name)
        target = self.routes.get(driver)
        if target is None and driver in _INSIDE:
            raise Unroutable(
                failure.driver_not_served(
                    f"no modular daemon serves '{driver}'; where one should, name it in"
                    f' proxyd_routes = [ "{driver}=/path/to/socket" ]'
                )
            )
        if target is not None and target.startswith("/"):
            # One socket for both kinds of access: a read-only connection is read-only by the
            # flag in its OPEN, which the daemon enforces (docs/protocol/routing.md, section 7).
            return Destination(written, target.rpartition("/")[2], target, None)
        daemon = target or f"virt{driver}d"
        session = not self.privileged and uri_path == "/session"
        path = self.socket_of(daemon, session=session, readonly=readonly)
        unit = socket_unit(daemon, readonly=readonly)
        return Destination(written, daemon, path, None if session else unit)

    def socket_of(self, daemon: str, *, session: bool, readonly: bool) -> str:
        """A daemon's socket. A user's daemons have none that is read-only."""
        stem = "libvirt" if daemon == "libvirtd" else daemon
        if session:
            return f"{self.session_dir}/{socket_name(stem)}"
        return f"{self.system_dir}/{socket_name(stem, readonly=readonly)}"

    def known(self) -> list[Destination]:
        """Where connections may go: what the routes name, then libvirt's own daemons."""
        path = "/system" if self.privileged else "/session"
        found: dict[str, Destination] = {}
        for driver in (*self.routes, *_DRIVERS):
            try:
                destination = self.resolve(f"{driver}://{path}", readonly=False)
            except Unroutable:  # a route for a name that no client may give, "qemu+ssh" say
                continue
            found.setdefault(destination.path, destination)
        return list(found.values())

    def probed(self, *, readonly: bool) -> Iterable[tuple[str, str]]:
        """For an empty name: sockets whose mere existence decides, and the name each stands for."""
        if self.privileged:
            names = [f"{driver}:///system" for driver in PROBED_SYSTEM]
        else:
            names = [f"{driver}:///session" for driver in PROBED_SESSION]
        for name in names:
            yield self.resolve(name, readonly=readonly).path, name


@functools.lru_cache(_REMEMBERED)
def _understood(name: str) -> tuple[str, str, str]:
    """Driver and path of a client's name, and how it is written for the daemon.

    Raises Unroutable. No more is kept of a name than of the name itself.
    """
    uri = parse_name(name)
    return uri.driver, uri.path, str(uri)


def parse_name(name: str) -> Uri:
    """Takes a client's name apart. Raises Unroutable for what is no URI or is not allowed."""
    if len(name) > MAX_NAME:
        raise Unroutable(failure.bad_uri(f"a URI of more than {MAX_NAME} characters"))
    if name.lower() == "xen":
        name = "xen:///system"
    parsed = _URI.fullmatch(name)
    # Without a scheme a URI is a path, whose first segment has no colon.
    if not _LEGAL.fullmatch(name) or (
        parsed is None and ":" in re.split("[/?#]", name, maxsplit=1)[0]
    ):
        raise Unroutable(failure.bad_uri(f"unable to parse URI {name!r}"))
    if parsed is None:
        raise Unroutable(failure.no_driver(f"{name!r}: it has no scheme"))
    driver, plus, transport = parsed["scheme"].partition("+")
    if plus and transport.lower() != "unix":
        _refuse(f"transport '{transport}' in a name would make a daemon dial out or run a program")
    _check_host(driver, parsed["authority"] or "")
    path = _unescape(parsed["path"])
    if path and not path.startswith("/"):
        # `qemu:system`: put together anew, its path would stand where a host does.
        raise Unroutable(failure.bad_uri(f"unable to parse URI {name!r}: its path is relative"))
    if path.rstrip("/").lower() == "/embed":
        _refuse(f"'{driver}:///embed' would load the driver into a daemon")
    if driver == "xen" and not path:
        path = "/system"
    uri = Uri(driver, path, tuple(_driver_query(parsed["query"] or "")))
    if len(str(uri)) > MAX_NAME:
        raise Unroutable(failure.bad_uri(f"a URI of more than {MAX_NAME} characters"))
    return uri


def _check_host(driver: str, authority: str) -> None:
    if authority in _TYPO_HOSTS and driver in {"qemu", "vbox", "vz"}:
        hint = f"'{authority}' stands where a host would: did you mean {driver}:///{authority}?"
        raise Unroutable(failure.uri_typo(hint))
    if authority:
        _refuse(f"host '{authority}' in a name would make a daemon dial out")


def _driver_query(query: str) -> Iterable[tuple[str, str]]:
    """The parameters that are the driver's own, unescaped, in their order."""
    items = re.split("[&;]", query, maxsplit=MAX_PARAMETERS)
    if len(items) > MAX_PARAMETERS:
        raise Unroutable(failure.bad_uri(f"a URI of more than {MAX_PARAMETERS} parameters"))
    for item in items:
        key, _, value = item.partition("=")
        key, value = _unescape(key), _unescape(value)
        if key.lower() in _DANGEROUS:
            _refuse(f"parameter '{key}' in a name would choose what a daemon connects to or runs")
        if key and key.lower() not in _CLIENT_SIDE:
            yield key, value


def _refuse(why: str) -> None:
    raise Unroutable(failure.uri_not_allowed(f"{why}; not through this proxy"))


def _unescape(text: str) -> str:
    """Percent-escapes undone. What is then a control character was meant to deceive."""
    plain, *escaped = text.encode("ascii").split(b"%")  # _LEGAL holds it to that, escapes whole
    raw = plain + b"".join(bytes.fromhex(each[:2].decode()) + each[2:] for each in escaped)
    if _CONTROL.search(raw):
        raise Unroutable(failure.bad_uri("a control character is hidden in the URI"))
    return raw.decode("utf-8", "surrogateescape")


def _escape(text: str, spellings: tuple[str, ...]) -> str:
    return "".join(map(spellings.__getitem__, text.encode("utf-8", "surrogateescape")))
