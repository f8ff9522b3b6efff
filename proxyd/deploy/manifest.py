"""What proxyd has put on a host: by that it knows its own files again, and removes no others."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

PATH: Final = "/var/lib/proxyd/installed.json"
_VERSION: Final = 1


class BadManifest(Exception):
    """The file cannot be understood; the text says what to do."""


def digest(content: bytes) -> str:
    """What a file's content is known by."""
    return hashlib.sha256(content).hexdigest()


@dataclass(slots=True)
class Manifest:
    """Paths without the destination directory.

    `files` has the digests of all that was ever put there and may be there still: two, if an
    update was interrupted. `directories` are those that did not exist before; `former` says what
    was the matter with units of the same names then (proxyd/deploy/former.py).
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    former: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, root: Path) -> Self:
        """The manifest of the host below `root`, empty if there is none. Raises BadManifest."""
        path = below(root, PATH)
        try:
            read = json.loads(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            raise BadManifest(_unreadable(path, str(error))) from error
        if not _is_one(read):
            raise BadManifest(_unreadable(path, "it does not say what was installed"))
        return cls(read["files"], read["directories"], read.get("former", {}))

    def encoded(self) -> bytes:
        """As a file."""
        everything: dict[str, object] = {
            "version": _VERSION,
            "files": self.files,
            "directories": self.directories,
        }
        if self.former:
            everything["former"] = self.former
        return json.dumps(everything, indent=1, sort_keys=True).encode() + b"\n"

    def owns(self, path: str, content: bytes) -> bool:
        """Whether this is what proxyd has put there, unchanged."""
        return digest(content) in self.files.get(path, ())


def below(root: Path, path: str) -> Path:
    """Where an absolute path of a host is while the host is a directory."""
    return root / path.removeprefix("/")


def _is_one(read: Any) -> bool:
    match read:
        case {"version": int(version), "files": dict(files), "directories": list(directories)}:
            pass
        case _:
            return False
    return (
        version == _VERSION
        and _is_former(read.get("former", {}))
        and all(_is_path(path) and isinstance(each, list) for path, each in files.items())
        and all(_is_path(path) for path in directories)
    )


def _is_former(former: object) -> bool:
    match former:
        case {"links": dict(links), "active": list(active)}:
            texts = [*links.values(), *active]
            return all(map(_is_path, links)) and all(isinstance(each, str) for each in texts)
        case _:
            return former == {}


def _is_path(path: object) -> bool:
    return isinstance(path, str) and path.startswith("/") and ".." not in path.split("/")


def _unreadable(path: Path, reason: str) -> str:
    return (
        f"{path}, which tells what proxyd has installed, cannot be read: {reason}; bring it back"
        " from a backup, or remove it, and no file that is there counts as proxyd's any more"
    )
