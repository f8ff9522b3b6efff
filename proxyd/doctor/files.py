"""Which files the service may read: the way to each, as the kernel goes it, and whose it is.

Noted down are owners and modes of each directory that is searched, and of the file. Whether
somebody else may go there cannot be found out by trying, for the doctor is root and may go
everywhere, and finds in order what the service cannot read: that is root without capabilities
(units/virtproxyd.service), so to owners and modes a user like any other, uid 0 and gid 0.
"""

import errno
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterable, Iterator
from typing import Final

from proxyd.config.quoting import one_line
from proxyd.doctor.findings import RELOAD, Finding, error, listed
from proxyd.doctor.state import HostState, Step, Way

_MOST_LINKS: Final = 40  # as many as the kernel follows
_SHIFT: Final = {"u": 6, "g": 3, "o": 0}  # of a class's bits in a mode
# What else the unit takes from its service: ProtectHome= and PrivateTmp=.
_HIDDEN: Final = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 (no file)


def way_to(path: str, *, secret: bool) -> Way:
    """An absolute path's. Reads directories and links, not the file."""
    steps: dict[Step, None] = {}  # an absolute link begins at / again
    try:
        for step in _steps(path):
            steps[step] = None
    except PermissionError:
        pass  # what has been seen so far holds
    except (OSError, ValueError):
        steps.clear()  # who looks for the file tells what is wrong
    return Way(path=path, secret=secret, steps=tuple(steps))


def _steps(path: str) -> Iterator[Step]:
    at, ahead, links = "/", _names(path), 0
    while ahead:
        yield _step(at, directory=True)
        name = ahead.pop()
        if name == "..":
            at = os.path.dirname(at)
            continue
        here = os.path.join(at, name)
        if not stat.S_ISLNK(os.lstat(here).st_mode):
            at = here
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(here)
        ahead += _names(target)
        at = "/" if target.startswith("/") else at
    yield _step(at, directory=False)


def _names(path: str) -> list[str]:
    """Those that a path consists of, the first at the end."""
    return [name for name in reversed(path.split("/")) if name not in {"", "."}]


def _step(path: str, *, directory: bool) -> Step:
    status = os.lstat(path)
    return Step(
        path=path,
        directory=directory,
        uid=status.st_uid,
        gid=status.st_gid,
        mode=stat.S_IMODE(status.st_mode),
        owner=f"{_user(status.st_uid)}:{_group(status.st_gid)}",
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def judge(state: HostState) -> Iterator[Finding]:
    """One finding with every file that the service is to read and may not."""
    files = [*state.configuration.files]
    files += state.tls.files if state.tls else ()
    files += (way for sasl in state.sasl for way in sasl.files)
    files += state.rules.files if state.rules else ()
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
