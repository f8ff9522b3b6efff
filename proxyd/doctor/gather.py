"""Fills a HostState: asks systemd, the kernel, the daemons behind, polkit, and reads files.

Nothing is changed, and what may not be seen by this user is left open rather than guessed.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from proxyd.config.routes import Unroutable
from proxyd.config.settings import Settings, resolve
from proxyd.doctor.addresses import PROXYD, look_at, program_of, programs
from proxyd.doctor.answering import ask_all
from proxyd.doctor.proofs import look_at_polkit, look_at_sasl, look_at_tls
from proxyd.doctor.state import Backend, Configuration, HostState
from proxyd.doctor.surroundings import Surroundings, Unready
from proxyd.doctor.systemctl import NoSystemd, Unit, show
from proxyd.doctor.unitnames import (
    ALL_UNITS,
    DAEMONS,
    HYPERVISORS,
    LOCAL,
    NETWORK,
    PORTS,
    PROXY,
    SECONDARY,
    legacy_paths,
)
from proxyd.doctor.ways import way_to

_SBIN: Final = ("/usr/sbin", "/usr/local/sbin", "/sbin")
_GUEST: Final = ("qemu-system-", "qemu-kvm")
_ELF: Final = b"\x7fELF"


def gather(around: Surroundings, *, config: str | None, deadline_s: float) -> HostState:
    """The state of this host. Takes a little more than the deadline at most."""
    configuration = read_configuration(around, config)
    settings = configuration.settings
    units, no_systemd = look_at_units()
    paths, ports = _claimed(settings, units, around.runtime_dir)
    return HostState(
        as_root=os.geteuid() == 0,
        runtime_dir=around.runtime_dir,
        configuration=configuration,
        no_systemd=no_systemd,
        units=units,
        programs=look_at_programs(),
        proxy_program=_started_by(units.get(f"{PROXY}.service")),
        addresses=tuple(look_at(paths=paths, ports=ports)),
        backends=look_behind(around, settings, deadline_s=deadline_s),
        tls=look_at_tls(around, settings, units),
        sasl=look_at_sasl(around, settings, units),
        polkit=look_at_polkit(settings, deadline_s=deadline_s),
        guests=count_guests(),
    )


def read_configuration(around: Surroundings, config: str | None) -> Configuration:
    """What is in force; the defaults if that cannot be said."""
    path = config or around.config_file
    files = (way_to(path, secret=True),)
    try:
        loaded = around.load(config)
    except Unready as error:
        settings = resolve({}, privileged=True)
        return Configuration(path=path, settings=settings, trouble=str(error), files=files)
    doubts = tuple(map(str, loaded.doubts))
    return Configuration(path=path, settings=loaded.settings, doubts=doubts, files=files)


def look_at_units() -> tuple[dict[str, Unit], str]:
    """libvirt's units, or none of them and why."""
    try:
        return show(ALL_UNITS), ""
    except NoSystemd as error:
        return {}, str(error)


def look_at_programs() -> frozenset[str]:
    """The daemons whose program is installed."""
    return frozenset(
        daemon
        for daemon in DAEMONS
        if any(os.access(f"{sbin}/{daemon}", os.X_OK) for sbin in _SBIN)
    )


def count_guests() -> int:
    """QEMU processes, whoever started them."""
    return sum(name.startswith(_GUEST) for name in programs())


def look_behind(
    around: Surroundings, settings: Settings, *, deadline_s: float
) -> tuple[Backend, ...]:
    """Each daemon that a name can lead to, asked."""
    table = around.routing_table(settings)
    schemes: dict[str, list[str]] = {}
    found = {}
    for scheme in dict.fromkeys([*HYPERVISORS, *SECONDARY, *table.routes]):
        try:
            destination = table.resolve(f"{scheme}:///system", readonly=False)
        except Unroutable:  # a scheme that no URI can have
            continue
        found[destination.path] = destination
        schemes.setdefault(destination.path, []).append(scheme)
    replies = ask_all(found, deadline_s=deadline_s)
    return tuple(
        Backend(
            schemes=tuple(schemes[path]),
            daemon=destination.daemon,
            path=path,
            unit=destination.unit,
            routed=any(scheme in table.routes for scheme in schemes[path]),
            reply=replies[path],
        )
        for path, destination in found.items()
    )


def _claimed(
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


def _port_number(text: str) -> int:
    """0 for one that cannot be known."""
    try:
        return int(text) if text.isdecimal() else socket.getservbyname(text, "tcp")
    except OSError:
        return 0


def _started_by(service: Unit | None) -> str:
    """proxyd or libvirt's own virtproxyd; "" if neither can be told."""
    if service is None or not service.program:
        return ""
    arguments = service.command.removeprefix(service.program).split()
    program = program_of([service.program, *arguments])
    if program == PROXY and not _is_c(service.program):
        return PROXYD
    return program if program in {PROXYD, PROXY} else ""


def _is_c(path: str) -> bool:
    """libvirt's own is a program for the kernel, ours under that name a script."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(_ELF)) == _ELF
    except OSError:
        return True
