"""Programs of another Debian release, from the private trees that script/tree makes.

A command that runs in one has mounts of its own, sees the checkout and /tmp where they are, and
shares all else with its caller: processes, network, control groups.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).resolve().parents[2] / "script" / "tree"
RELEASES: Final = ("bookworm", "trixie")


@dataclass(frozen=True, slots=True)
class Tree:
    """A release's tree with all that the tests need, once it is made."""

    release: str

    def make(self) -> None:
        """Minutes, where it is not there; as root, and with the release's packages in reach."""
        subprocess.run([SCRIPT, "make", self.release, "test"], check=True)

    def command(self, *words: str) -> list[str]:
        """The words that run this command in the tree."""
        # What PATH and HOME are in there is the tree's own affair; /tmp is the caller's.
        shared = ["env", "PROXYD_TREE_TMP=shared"]
        return [*shared, str(SCRIPT), "enter", self.release, "test", *words]
