"""A real libvirtd that asks a real polkitd about each call: `access_drivers = [ "polkit" ]`.

What it asks is in its log, by thread: the call that was dispatched, and each action behind it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from proxyd.rules.permissions import PERMISSIONS
from tests.bed.libvirtd import Libvirtd
from tests.bed.polkit import Polkitd, PrivateBus

ALLOW_ALL: Final = """
polkit.addRule(function (action, subject) { return polkit.Result.YES; });
"""
_ACTION: Final = """
<action id="org.libvirt.api.{id}"><description>{id}</description><message>{id}</message>
  <defaults><allow_any>no</allow_any><allow_inactive>no</allow_inactive>
    <allow_active>no</allow_active></defaults></action>
"""
_POLICY: Final = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/PolicyKit/1/policyconfig.dtd">
<policyconfig>{actions}</policyconfig>
"""
_DISPATCHED: Final = re.compile(
    r": (\d+): debug : virNetServerProgramDispatch:\d+ : prog=(\d+) ver=\d+ type=(\d+) status=\d+"
    r" serial=(\d+) proc=(\d+)"
)
_ASKED: Final = re.compile(
    r": (\d+): debug : virAccessDriverPolkitCheck:\d+ : Check action 'org\.libvirt\.api\.([^']+)'"
)


@dataclass
class Dispatched:
    """A call, and the permissions that were asked for while it was carried out, in order."""

    program: int
    procedure: int
    serial: int
    asked: list[str] = field(default_factory=list)


def action(permission: str) -> str:
    """polkit's name for one of libvirt's permissions."""
    return permission.replace(":", ".").replace("_", "-")


@contextmanager
def guarded_libvirtd(directory: Path, rule: str = ALLOW_ALL) -> Iterator[Libvirtd]:
    """Root's, whose polkitd goes by this rule. Everybody has to get into `directory`."""
    with PrivateBus(directory) as bus:
        polkitd = Polkitd(directory, bus)
        actions = "".join(_ACTION.format(id=action(each)) for each in sorted(PERMISSIONS))
        (polkitd.actions / "org.libvirt.api.policy").write_text(_POLICY.format(actions=actions))
        polkitd.rule(rule)
        place = directory / "libvirtd"
        place.mkdir()
        config = {
            "access_drivers": ["polkit"],
            "unix_sock_rw_perms": "0777",  # polkit lets root do everything, whatever a rule says
            "log_filters": "1:rpc.netserverprogram 1:access.accessdriverpolkit",
            "log_outputs": f"1:file:{place / 'asked'}",
        }
        daemon = Libvirtd(place, config=config, environment=bus.environment)
        with polkitd, daemon:
            yield daemon


def asked_of(daemon: Libvirtd) -> list[Dispatched]:
    """All calls so far."""
    calls: list[Dispatched] = []
    present: dict[str, Dispatched] = {}
    for line in (daemon.directory / "asked").read_text(errors="replace").splitlines():
        if found := _DISPATCHED.search(line):
            thread, program, kind, serial, procedure = found.groups()
            if kind in {"0", "4"}:
                call = Dispatched(int(program), int(procedure), int(serial))
                present[thread] = call
                calls.append(call)
        elif found := _ASKED.search(line):
            thread, name = found.groups()
            kind, _, word = name.partition(".")
            if thread in present:
                present[thread].asked.append(f"{kind}:{word}".replace("-", "_"))
    return calls
