"""The way to a file as the kernel goes it: each directory that it searches, then the file.

What is noted down are owners and modes. Whether somebody else may go there cannot be found out by
trying, for the doctor is root and may go everywhere.
"""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_MOST_LINKS: Final = 40  # as many as the kernel follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A directory that is searched or the file that is read, by its path without symbolic links.

    `mode` has the permission bits alone; `owner` is USER:GROUP, for people.
    """

    path: str
    directory: bool
    uid: int
    gid: int
    mode: int
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """`path` is how the settings call the file; `secret` whether it is nobody else's to read.

    There are no steps to a file that is not there, and fewer where this user may not look further.
    """

    path: str
    secret: bool
    steps: tuple[Step, ...] = ()


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
