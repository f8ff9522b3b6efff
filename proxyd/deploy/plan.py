"""What an installation does to each file, decided before anything is written.

nothing there ─────────────────────────────────► create
as we put it there, and now there is a newer ──► update
as we put it there, and no longer wanted ──────► remove
as it would be written ────────────────────────► keep
changed, or somebody else's:  ours, or in /etc ► keep, and the new one beside it
                              another's ───────► refuse, and with it the whole installation
"""

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from proxyd.deploy.layout import Item
from proxyd.deploy.manifest import Manifest, below, digest

_BESIDE: Final = ".proxyd-new"


class Action(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    KEEP = "keep"
    REMOVE = "remove"
    REFUSE = "refuse"

    @property
    def writes(self) -> bool:
        return self in {Action.CREATE, Action.UPDATE}


@dataclass(frozen=True, slots=True)
class Step:
    """One file. `why` is empty where the action says it all."""

    action: Action
    path: str
    why: str = ""
    content: bytes = b""
    mode: int = 0o644


class NoFile(Exception):
    """Something else is at a file's path, and is not followed or touched; the text says what."""


def installing(wanted: Iterable[Item], manifest: Manifest, root: Path) -> list[Step]:
    """The steps that give the host below `root` its files. Reads, and changes nothing."""
    steps = [step for item in wanted for step in _place(item, manifest, root)]
    named = {step.path for step in steps}
    gone = [path for path in manifest.files if path not in named]
    return [*steps, *(step for path in gone for step in _take_away(path, manifest, root))]


def uninstalling(manifest: Manifest, root: Path) -> list[Step]:
    """The steps that take all of that away again, but for what has been changed since."""
    return [step for path in manifest.files for step in _take_away(path, manifest, root)]


def content_at(path: Path) -> bytes | None:
    """What a regular file holds, None if there is none. Raises NoFile, OSError."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise NoFile(f"it is a symbolic link to {path.readlink()}")
    if not stat.S_ISREG(found.st_mode):
        raise NoFile("it is no regular file")
    return path.read_bytes()


def _place(item: Item, manifest: Manifest, root: Path) -> Iterator[Step]:
    try:
        there = content_at(below(root, item.path))
    except NoFile as error:
        yield Step(Action.REFUSE, item.path, f"{error}; move it away")
        return
    if there == item.content:
        yield Step(Action.KEEP, item.path)
    elif there is None:
        yield Step(Action.CREATE, item.path, "", item.content, item.mode)
    elif manifest.owns(item.path, there):
        yield Step(Action.UPDATE, item.path, "", item.content, item.mode)
    elif item.administrators or item.path in manifest.files:
        yield from _place_beside(item, manifest, root)
    else:
        yield Step(
            Action.REFUSE,
            item.path,
            "it was not put there by proxyd install; if no package owns it (dpkg -S, rpm -qf), move"
            " it away",
        )


def _place_beside(item: Item, manifest: Manifest, root: Path) -> Iterator[Step]:
    beside = _beside(item)
    try:
        there = content_at(below(root, beside))
    except NoFile as error:
        yield Step(Action.REFUSE, beside, f"{error}; move it away")
        return
    if there is None and manifest.owns(beside, item.content):
        yield Step(Action.KEEP, item.path, "changed, and so left alone")
        yield Step(Action.KEEP, beside, "removed by somebody who needs it no more")
        return
    yield Step(Action.KEEP, item.path, f"changed, and so left alone; the new one is {beside}")
    if there is None:
        yield Step(Action.CREATE, beside, "", item.content, item.mode)
    elif there != item.content:
        yield Step(Action.UPDATE, beside, "", item.content, item.mode)


def _take_away(path: str, manifest: Manifest, root: Path) -> Iterator[Step]:
    try:
        there = content_at(below(root, path))
    except NoFile as error:
        yield Step(Action.KEEP, path, f"{error} now, and so left alone")
        return
    if there is None:
        return
    if manifest.owns(path, there):
        yield Step(Action.REMOVE, path)
    else:
        yield Step(Action.KEEP, path, "changed since it was installed, and so left alone")


def _beside(item: Item) -> str:
    return item.beside or item.path + _BESIDE


def after(steps: Iterable[Step], manifest: Manifest) -> Manifest:
    """The manifest for when these steps of an installation are done."""
    files = {step.path: [digest(step.content)] for step in steps if step.action.writes}
    for step in steps:
        if step.action is Action.KEEP and step.path in manifest.files:
            files[step.path] = manifest.files[step.path]
    return Manifest(files, manifest.directories, manifest.former)
