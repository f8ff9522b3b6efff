"""Who listens where: looked up in the kernel's tables, and judged.

What is in the tables is not connected to, so no daemon is started by looking: a client that goes
at once, for one that cannot start, has systemd try until it gives up, and with it the socket. That
the path of a listener leads to it still is told by the kernel, which knows the file that it made.
Of other users' processes only root sees the descriptors; then a socket has no process to show. A
path that is not in the tables may yet lead to a listener in another network namespace, a
container's: that is found out by connecting, and the kernel then tells who it is.

Judged are addresses that somebody else has, or several have, and dead sockets.
"""

import os
import shlex
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from struct import Struct
from typing import Final, TypeVar

from proxyd.config.quoting import one_line
from proxyd.config.settings import Settings
from proxyd.doctor.findings import Finding, error, listed, warning
from proxyd.doctor.orders import lines, listening, started_anew
from proxyd.doctor.state import (
    PROXYD,
    SYSTEMD,
    Address,
    HostState,
    Process,
    port_name,
    program_of,
)
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.unitnames import (
    LOCAL,
    MONOLITHIC,
    NETWORK,
    PORTS,
    PROXY,
    legacy_paths,
    sockets_of,
    suffixes_of,
)
from proxyd.doctor.units import contested
from proxyd.process.sockets import (
    Unseen,
    all_pids,
    bound_files,
    command_line,
    holders,
    short_name,
    shown_command,
    tcp_listeners,
    unix_listeners,
)

_LONGEST_COMMAND: Final = 120
_CREDENTIALS: Final = Struct("3i")  # pid, uid, gid
_Key = TypeVar("_Key", str, int)


def claimed(
    settings: Settings, units: Mapping[str, Unit], runtime_dir: str
) -> tuple[list[str], list[int]]:
    """The paths and ports of libvirtd and virtproxyd: the usual, and what was set otherwise."""
    directory = os.path.abspath(settings.unix_sock_dir or runtime_dir)
    paths = list(legacy_paths(directory).values())
    ports = [*PORTS.values(), _port_number(settings.tcp_port), _port_number(settings.tls_port)]
    for suffix in (*LOCAL, *NETWORK):
        unit = units.get(f"{PROXY}{suffix}.socket")
        for address in unit.listen if unit else ():
            if address.startswith("/"):
                paths.append(address)
            else:
                ports.append(_port_number(address.rpartition(":")[2]))
    return list(dict.fromkeys(paths)), [port for port in dict.fromkeys(ports) if port]


def look_at(*, paths: Collection[str], ports: Collection[int]) -> list[Address]:
    """The addresses in this order, each once. Reads /proc."""
    unix = _grouped((os.path.realpath(path), inode) for path, inode in unix_listeners())
    tcp = _grouped(tcp_listeners())
    at = {path: unix.get(os.path.realpath(path), []) for path in paths}
    on = {port: tcp.get(port, []) for port in ports}
    wanted = {inode for inodes in (*at.values(), *on.values()) for inode in inodes}
    holding = holders(wanted)
    processes = {pid: _process(pid) for pids in holding.values() for pid in pids}

    lost = _lost(at)

    def address(name: str, inodes: list[str], *, there: bool) -> Address:
        owners = {processes[pid] for inode in inodes for pid in holding.get(inode, ())}
        return Address(
            name=name,
            there=there,
            listening=len(inodes),
            owners=tuple(sorted(owners, key=lambda process: process.pid)),
            lost=name in lost,
        )

    found = [
        address(path, at[path], there=os.path.lexists(path)) if at[path] else _elsewhere(path)
        for path in at
    ]
    return found + [address(port_name(port), on[port], there=bool(on[port])) for port in on]


def _lost(at: Mapping[str, Collection[str]]) -> set[str]:
    """The paths that lead to none of the sockets that were bound there and listen still."""
    bound = {path: inodes for path, inodes in at.items() if inodes}
    try:
        files = bound_files() if bound else {}
    except Unseen:  # a kernel that does not say; then what is gone is all that can be seen
        return {path for path in bound if not os.path.exists(path)}
    suspected = {
        path
        for path, inodes in bound.items()
        if not any(files[inode].is_at(path) for inode in inodes if inode in files)
    }
    # Not every file system numbers its files for the kernel as it does for us.
    return {path for path in suspected if not _elsewhere(path).listening}


def _elsewhere(path: str) -> Address:
    """Who listens at a path that our tables do not have."""
    there, listening = os.path.lexists(path), 0
    owners: tuple[Process, ...] = ()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
            listening, pid = 1, _peer(sock)
            owners = (_process(pid),) if pid else ()
        except (PermissionError, BlockingIOError):  # not for us, or a full queue
            listening = 1
        except OSError:
            pass  # there is none, or nobody behind it
    return Address(name=path, there=there, listening=listening, owners=owners)


def _peer(sock: socket.socket) -> int:
    """The process that called listen(); 0 if it cannot be seen from our namespace of processes."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[0])


def programs() -> Iterator[str]:
    """The kernel's short name of each process there is."""
    return filter(None, map(short_name, all_pids()))


def _grouped(pairs: Iterable[tuple[_Key, str]]) -> dict[_Key, list[str]]:
    groups: dict[_Key, list[str]] = {}
    for key, inode in pairs:
        groups.setdefault(key, []).append(inode)
    return groups


def _process(pid: int) -> Process:
    words, comm = command_line(pid), short_name(pid)
    # As /sbin/init it does not say in its command line what it is.
    program = comm if pid == 1 else program_of(words) or comm
    return Process(pid, one_line(program), shown_command(words, _LONGEST_COMMAND))


def _port_number(text: str) -> int:
    """0 for one that cannot be known."""
    try:
        return int(text) if text.isdecimal() else socket.getservbyname(text, "tcp")
    except OSError:
        return 0


def judge(state: HostState) -> Iterator[Finding]:
    """What is wrong with who listens where."""
    return chain(_taken(state), _doubled(state), _stale(state), _lost_ones(state))


def _taken(state: HostState) -> Iterator[Finding]:
    """Addresses that the proxy is to have and somebody else has."""
    taken: dict[Process, dict[str, str]] = {}
    settled = {ours.name for ours, *_ in contested(state)}  # once one of the two is switched to
    for address in state.addresses:
        wanted_by = _wanted_by(state, address)
        others = _others(address)
        if others and wanted_by and not (others[0].program == MONOLITHIC and wanted_by in settled):
            taken.setdefault(others[0], {})[address.name] = wanted_by
    for owner, wishes in taken.items():
        yield error(
            "address-taken",
            f"{owner} listens on {listed(wishes)}, which {listed(wishes.values())}"
            f" want{'s' if len(wishes) == 1 else ''}.",
            _who_is_reached(state, wishes),
            _settled(state, owner, wishes),
        )


def _others(address: Address) -> list[Process]:
    """Who listens there besides the proxy and systemd, which listens for it."""
    return [owner for owner in address.owners if owner.program not in {SYSTEMD, PROXYD, PROXY}]


def _who_is_reached(state: HostState, names: Collection[str]) -> str:
    if any(each.listening > 1 for each in state.addresses if each.name in names):
        return "Each has a socket of its own there, and clients reach the one that came last."
    return "A socket has one owner: clients reach that one, and the proxy does not start."


def _settled(state: HostState, owner: Process, wishes: Mapping[str, str]) -> list[str]:
    """libvirtd's own units are a matter of the host's mode; what was started by hand is stopped."""
    if owner.program == MONOLITHIC and any(unit.active for unit in state.units_of(MONOLITHIC)):
        return [f"proxyd switch --to {state.meant()}"]
    told = f"# stop it if it is not needed: {owner.command or owner.program}"
    stop = [told, f"kill {owner.pid}"]
    suffixes = [suffix for suffix in suffixes_of(PROXY) if _unit(suffix) in wishes.values()]
    if not suffixes:
        return [*stop, "# then start proxyd anew"]
    return [*stop, *lines(listening(state.unit, PROXY, suffixes))]


def _unit(suffix: str) -> str:
    return f"{PROXY}{suffix}.socket"


def _wanted_by(state: HostState, address: Address) -> str:
    """The unit or the setting that is to listen there, if it has not got it; or ""."""
    usual = {path: suffix for suffix, path in state.legacy_paths().items()}
    usual |= {port_name(port): suffix for suffix, port in PORTS.items()}
    for suffix in suffixes_of(PROXY):
        unit = state.unit(f"{PROXY}{suffix}.socket")
        names = [_address_name(each) for each in unit.listen]
        if unit.wanted and address.name in (names or [a for a in usual if usual[a] == suffix]):
            return unit.name
    settings = state.configuration.settings
    if state.activated or not (state.proxied or state.no_systemd):
        return ""
    for key, listens, port in (
        ("listen_tcp = 1", settings.listen_tcp, settings.tcp_port),
        ("listen_tls = 1", settings.listen_tls, settings.tls_port),
    ):
        if listens and address.name == f"port {port}":
            return key
    return ""


def _address_name(listen: str) -> str:
    port = listen.rpartition(":")[2]
    return listen if listen.startswith("/") or not port.isdecimal() else port_name(int(port))


def _doubled(state: HostState) -> Iterator[Finding]:
    """A daemon that binds a path of its own takes it from the one before, which never learns."""
    for address in state.addresses:
        if _others(address) and _wanted_by(state, address):
            continue  # _taken or _claims has named it
        if address.name.startswith("/") and address.listening > 1:
            who = f" ({listed(map(str, address.owners))})" if address.owners else ""
            yield error(
                "two-listeners",
                f"{address.listening} sockets listen on {address.name}{who}.",
                "Clients reach the one that came last; the others wait for clients in vain.",
                [
                    "# stop the daemon that was started by hand, then (which ends sessions)",
                    *_made_anew(state, address.name),
                ],
            )


def _stale(state: HostState) -> Iterator[Finding]:
    for address in state.addresses:
        if address.name.startswith("/") and address.there and not address.listening:
            active = state.unit(_socket_unit_at(state, address.name)).active
            yield warning(
                "stale-socket",
                f"{address.name} is there, and nobody listens behind it.",
                "Clients that choose by what exists connect to it and are refused.",
                _made_anew(state, address.name) if active else [f"rm {shlex.quote(address.name)}"],
            )


def _lost_ones(state: HostState) -> Iterator[Finding]:
    """Whoever listens there does not notice, and clients find nobody."""
    lost = [address for address in state.addresses if address.lost]
    by_fix: dict[tuple[str, ...], list[str]] = {}
    for address in lost:
        by_fix.setdefault(tuple(_made_anew(state, address.name)), []).append(address.name)
    for fix, names in by_fix.items():
        yield error(
            "socket-lost",
            f"{listed(names)} {'leads' if len(names) == 1 else 'lead'} to nobody, though somebody"
            " listens who was bound there.",
            "The file was removed or replaced: no client gets in by it until the socket is made"
            " anew, which ends the sessions of the service.",
            fix,
        )


def _made_anew(state: HostState, path: str) -> list[str]:
    """A socket, with all of its daemon's that listen."""
    name = _socket_unit_at(state, path)
    daemon = MONOLITHIC if name.startswith(MONOLITHIC) else PROXY
    suffix = name.removeprefix(daemon).removesuffix(".socket")
    if state.unit(name).active:
        return lines(listening(state.unit, daemon, [suffix], anew=True))
    if state.belongs(daemon) and state.unit(f"{daemon}.service").active:
        return lines(started_anew(state.unit, daemon))
    return ["# start the daemon anew that listens there"]


def _socket_unit_at(state: HostState, path: str) -> str:
    for daemon in (PROXY, MONOLITHIC):
        for name in sockets_of(daemon):
            if path in state.unit(name).listen and state.unit(name).wanted:
                return name
    suffix = next((s for s, p in state.legacy_paths().items() if p == path), "")
    return f"{PROXY}{suffix}.socket"
