"""Judges which files the service may read.

It is root without capabilities (units/virtproxyd.service), so to owners and modes it is a user
like any other: uid 0 and gid 0. The doctor, with all that makes root strong, reads the same files
and finds them in order.
"""

import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from typing import Final

from proxyd.config.quoting import one_line
from proxyd.doctor.findings import Finding, error
from proxyd.doctor.state import HostState
from proxyd.doctor.units import listed
from proxyd.doctor.ways import Step, Way

RELOAD: Final = "systemctl reload-or-restart virtproxyd.service"

_SHIFT: Final = {"u": 6, "g": 3, "o": 0}  # of a class's bits in a mode
# What else the unit takes from its service: ProtectHome= and PrivateTmp=.
_HIDDEN: Final = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 (no file)


def judge(state: HostState) -> Iterator[Finding]:
    """One finding with every file that the service is to read and may not."""
    files = [*state.configuration.files]
    files += state.tls.files if state.tls else ()
    files += (way for sasl in state.sasl for way in sasl.files)
    found = in_the_way(state, files)
    if not found:
        return
    yield error(
        "unreadable-files",
        f"The service may not {', nor '.join(_told(*each) for each in found.items())}.",
        "It runs as root without capabilities, so root's usual right to read everything does not"
        " hold for it.",
        _fix(found),
    )


def in_the_way(state: HostState, files: Iterable[Way]) -> dict[Step, list[Way]]:
    """The directories and files that stop the service, each with the files that it wants there."""
    found: dict[Step, list[Way]] = {}
    if not state.obeys_modes:
        return found
    for way in dict.fromkeys(files):
        for step in way.steps:
            if not _may(step):
                found.setdefault(step, []).append(way)
    return found


def _may(step: Step) -> bool:
    """Whether uid 0 and gid 0 may search the directory, or read the file."""
    wanted = stat.S_IXOTH if step.directory else stat.S_IROTH
    return bool(step.mode >> _SHIFT[_class_of(step)] & wanted)


def _class_of(step: Step) -> str:
    """Which bits of the mode hold for the service: the first that fit, also if others have more."""
    return "u" if step.uid == 0 else "g" if step.gid == 0 else "o"


def _told(step: Step, ways: list[Way]) -> str:
    verb = "enter" if step.directory else "read"
    behind = dict.fromkeys(one_line(way.path) for way in ways if way.path != step.path)
    wanted = f" for {listed(behind)}" if behind else ""
    return f"{verb} {one_line(step.path)} ({step.owner}, mode {step.mode:04o}){wanted}"


def _fix(found: dict[Step, list[Way]]) -> Iterator[str]:
    steps = (step for ways in found.values() for way in ways for step in way.steps)
    if any(step.path.startswith(_HIDDEN) for step in steps):
        yield (
            "# the service sees nothing below /home, /root, /run/user, /tmp and /var/tmp: what lies"
            " there is rather moved, and its new place named in the configuration"
        )
    for step, ways in found.items():
        yield _mended(step, secret=any(way.secret for way in ways))
    yield RELOAD
    yield (
        "# or leave owners and modes as they are: systemctl edit virtproxyd.service, [Service]"
        " CapabilityBoundingSet=CAP_DAC_READ_SEARCH, and restart it"
    )


def _mended(step: Step, *, secret: bool) -> str:
    name = _quoted(step.path)
    if secret and not step.directory:
        return f"chown root: {name} && chmod 0600 {name}"
    who, right = _class_of(step), "x" if step.directory else "r"
    if who == "o" and not step.mode & stat.S_IRWXG:
        # No member of the group loses anything by it, and nobody but root's gains.
        return f"chgrp root {name} && chmod g+{right} {name}"
    return f"chmod {who}+{right} {name}"


def _quoted(path: str) -> str:
    """As a word for bash that a terminal shows as it is."""
    if path.isprintable():
        return shlex.quote(path)
    spelled = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in os.fsencode(path)
    )
    return f"$'{spelled}'"
