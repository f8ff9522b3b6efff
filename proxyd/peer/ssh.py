"""Whether a process of this host belongs to somebody who came through sshd.

Two signs, either of which will do:

* one of its ancestors is sshd, run by root: nobody else can make such a process;
* it is in a login session that sshd has opened, which systemd-logind knows (the process's control
  group names the session). Its ancestors may have ended.

Neither is a fence. Whoever may run what he likes on this host can leave his session (at, cron,
`systemd-run --user`), and is then a local user like any other.
"""

import os
import re
from collections.abc import Iterator
from typing import Final

_NAMES: Final = frozenset({"sshd", "sshd-session", "sshd-auth", "dropbear"})
# Where only root puts programs. A user's hard link to a program that runs as root is elsewhere.
_PLACES: Final = ("/usr/", "/sbin/", "/bin/", "/lib", "/opt/", "/nix/store/", "/gnu/store/")
_MOST_ANCESTORS: Final = 32
_LONGEST: Final = 4096
_GONE: Final = " (deleted)"  # the program was replaced by a newer one
# As logind makes them; a user's own groups are all below one called user@UID.service.
_SESSION: Final = re.compile(r"/user\.slice/user-\d+\.slice/session-([0-9A-Za-z]+)\.scope")
_SESSIONS: Final = "/run/systemd/sessions"
_ROOTS: Final = ["Uid:", "0", "0", "0", "0"]
_PARENT: Final = 1  # in /proc/PID/stat, counted behind the name's closing bracket


def came_by_ssh(pid: int) -> bool:
    """Looks into /proc, for some tens of microseconds. False for a process that has ended."""
    if pid <= 0:
        return False
    return _in_session_of_sshd(pid) or any(map(_is_sshd, _ancestors(pid)))


def _ancestors(pid: int) -> Iterator[int]:
    for _ in range(_MOST_ANCESTORS):
        try:
            pid = int(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[_PARENT])
        except (OSError, ValueError, IndexError):
            return
        if pid <= 1:
            return
        yield pid


def _is_sshd(pid: int) -> bool:
    try:
        status = _read(f"/proc/{pid}/status").splitlines()
        # Not by the owner of /proc/PID, which is root for whoever lets nobody look at himself.
        if not any(line.split() == _ROOTS for line in status):
            return False
        return _is_named_so(pid)
    except OSError:
        return False


def _is_named_so(pid: int) -> bool:
    """By its program; where that may not be seen, as by a service without capabilities, by what it
    is called, which somebody who may become root by sudo can choose."""
    try:
        program = os.readlink(f"/proc/{pid}/exe").removesuffix(_GONE)
    except PermissionError:
        return _read(f"/proc/{pid}/comm").rstrip("\n") in _NAMES
    return os.path.basename(program) in _NAMES and program.startswith(_PLACES)


def _in_session_of_sshd(pid: int) -> bool:
    try:
        groups = _read(f"/proc/{pid}/cgroup").splitlines()
    except OSError:
        return False
    for line in groups:
        found = _SESSION.fullmatch(line.partition("::")[2])
        if found is not None:
            return _opened_by_sshd(found[1])
    return False


def _opened_by_sshd(session: str) -> bool:
    try:
        text = _read(f"{_SESSIONS}/{session}")
    except OSError:
        return False
    return "SERVICE=sshd" in text.splitlines()


def _read(path: str) -> str:
    """The beginning of a small file that the kernel or systemd writes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _LONGEST).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
