"""The whole examination: fills a HostState, and judges it.

Looking asks systemd, the kernel, the daemons behind and polkit, and reads files. Nothing is
changed, and what may not be seen by this user is left open rather than guessed. Judging is a pure
function; the worst comes first, among equals in the order in which one would mend them.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from proxyd.doctor import (
    addresses,
    backends,
    configuration,
    files,
    polkit,
    program,
    rules,
    sasl,
    startable,
    tls,
    units,
)
from proxyd.doctor.findings import Finding, note, sentence
from proxyd.doctor.state import HostState
from proxyd.doctor.surroundings import Surroundings
from proxyd.doctor.unitnames import PROXY

_GUEST: Final = ("qemu-system-", "qemu-kvm")
_SYSTEMDS: Final = ("systemctl ", "journalctl ", "proxyd switch ")


def gather(around: Surroundings, *, config: str | None, deadline_s: float) -> HostState:
    """The state of this host. Takes a little more than the deadline at most."""
    read = configuration.read_configuration(around, config)
    settings = read.settings
    seen, no_systemd = units.look_at_units()
    paths, ports = addresses.claimed(settings, seen, around.runtime_dir)
    return HostState(
        as_root=os.geteuid() == 0,
        runtime_dir=around.runtime_dir,
        configuration=read,
        no_systemd=no_systemd,
        units=seen,
        programs=units.look_at_programs(),
        proxy_program=units.started_by(seen.get(f"{PROXY}.service")),
        addresses=tuple(addresses.look_at(paths=paths, ports=ports)),
        backends=backends.look_behind(around, settings, deadline_s=deadline_s),
        tls=tls.look_at_tls(around, settings, seen),
        sasl=sasl.look_at_sasl(around, settings, seen),
        polkit=polkit.look_at_polkit(settings, deadline_s=deadline_s),
        guests=count_guests(),
        switching=around.switching(),
        program=around.program(settings),
        rules=around.rules(settings),
    )


def count_guests() -> int:
    """QEMU processes, whoever started them."""
    return sum(name.startswith(_GUEST) for name in addresses.programs())


def judge(state: HostState) -> list[Finding]:
    """Every finding of this state, the worst first."""
    found = [
        *_sight(state),
        *configuration.judge(state),
        *units.of_modes(state),
        *addresses.judge(state),
        *startable.judge(state),
        *units.judge(state),
        *program.judge(state),
        *backends.judge(state),
        *tls.judge(state),
        *sasl.judge(state),
        *polkit.judge(state),
        *rules.judge(state),
        *files.judge(state),
    ]
    if state.no_systemd:
        found = [replace(each, fix=tuple(map(_by_hand, each.fix))) for each in found]
    return sorted(found, key=lambda finding: -finding.severity)


def _by_hand(line: str) -> str:
    """A line of a fix for a host where systemd obeys nobody."""
    return f"# by hand, what this would do: {line}" if line.startswith(_SYSTEMDS) else line


def _sight(state: HostState) -> Iterator[Finding]:
    """What we were not able to look at."""
    if state.no_systemd:
        yield note(
            "no-systemd",
            "systemd does not answer here, so no unit was looked at.",
            f"{sentence(state.no_systemd)} In a container or under another init this is as it"
            " should be; then proxyd is started by hand: proxyd -d.",
        )
    if not state.as_root:
        yield note(
            "not-root",
            "This is not root, so not everything can be seen.",
            "Whose a socket is, keys and certificates, and how root is answered stay open.",
            ["sudo proxyd doctor"],
        )
