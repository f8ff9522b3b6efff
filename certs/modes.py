"""Who may read and change the files, and the directories that they are in."""

import os
import pwd
import shlex
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from proxyd.pki.problems import Problem

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def of_directories(paths: Iterable[Path], owners: Collection[int]) -> Iterator[Problem]:
    """Directories in which somebody else could put files of his own."""
    for path in paths:
        found = _status(path)
        if found is None:
            continue  # what should be in it is told of
        if not stat.S_ISDIR(found.st_mode):
            yield _problem(
                path, "it is no directory", f"move it away: mv {_quoted(path)} ELSEWHERE"
            )
            continue
        yield from _of_owner(path, found, owners)
        if found.st_mode & _OTHERS_WRITE:
            text = "others may put their own files into it"
            yield _problem(path, text, f"chmod go-w {_quoted(path)}")


def of_files(
    paths: Iterable[Path], keys: Collection[Path], owners: Collection[int]
) -> Iterator[Problem]:
    """Files that somebody else could change, and keys that somebody else could read."""
    for path in paths:
        found = _status(path)
        if found is None or not stat.S_ISREG(found.st_mode):
            continue
        yield from _of_owner(path, found, owners)
        if path in keys:
            yield from _of_key(path, found.st_mode)
        elif found.st_mode & _OTHERS_WRITE:
            yield _problem(path, "others may change it", f"chmod go-w {_quoted(path)}")


def of_readers(paths: Iterable[Path]) -> Iterator[Problem]:
    """What every user needs to come in as a client and cannot reach. For root's own tree."""
    for path in paths:
        found = _status(path)
        if found is None:
            continue
        needed = 0o555 if stat.S_ISDIR(found.st_mode) else 0o444
        if found.st_mode & needed != needed:
            text = "not every user may read it, and virsh needs it"
            fix = f"chmod {needed | 0o200:o} {_quoted(path)}"
            yield Problem(path=str(path), text=text, fix=fix, fatal=False)


def _of_owner(path: Path, found: os.stat_result, owners: Collection[int]) -> Iterator[Problem]:
    if found.st_uid not in owners:
        text = f"it belongs to {_user(found.st_uid)}, who may change it at any time"
        yield _problem(path, text, f"chown {_user(min(owners))} {_quoted(path)}")


def _of_key(path: Path, mode: int) -> Iterator[Problem]:
    fix = f"chmod 600 {_quoted(path)}"
    if mode & _OTHERS_WRITE:
        yield _problem(path, "others may change this key", fix)
    elif mode & stat.S_IROTH:
        text = "its mode lets every user of this host read this key"
        yield _problem(path, text, f"{fix}; and replace the key if anybody could reach it")
    elif mode & stat.S_IRGRP:
        text = "its group may read this key"
        yield Problem(path=str(path), text=text, fix=f"{fix}, unless it is to", fatal=False)


def _problem(path: Path, text: str, fix: str) -> Problem:
    return Problem(path=str(path), text=text, fix=fix, fatal=True)


def _status(path: Path) -> os.stat_result | None:
    """None where there is nothing, or nothing that we may see."""
    try:
        return path.stat()
    except OSError:
        return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
