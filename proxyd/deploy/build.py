"""Which build of proxyd this is: of a package, of a wheel, or a checkout."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import proxyd

# Written where proxyd is packaged (script/package_environment.py) or made a wheel (setup.py).
_FILE: Final = "build.json"
_KEYS: Final = ("commit", "package", "release")
_PATIENCE_S: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Each is "" where it is not known.

    `commit` is the source's; `package` the version of the Debian package that has brought it, and
    `release` the release of Debian that this was made for.
    """

    commit: str = ""
    package: str = ""
    release: str = ""

    @classmethod
    def this(cls, directory: Path | None = None) -> Self:
        """The one whose package directory this is. Does not raise; asks git in a checkout."""
        directory = directory or Path(proxyd.__file__).parent
        try:
            read = json.loads((directory / _FILE).read_bytes())
        except FileNotFoundError:
            return cls(commit=_commit(directory.parent))
        except (OSError, ValueError):
            return cls()
        if not isinstance(read, dict):
            return cls()
        return cls(**{key: str(read.get(key, "")) for key in _KEYS})

    def told(self) -> str:
        """In a line."""
        if self.package:
            return f"Debian package {self.package}, for {self.release}, of commit {self.commit}"
        return f"of commit {self.commit}" if self.commit else "of an unknown commit"


def _commit(checkout: Path) -> str:
    if not (checkout / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
