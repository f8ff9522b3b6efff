"""Which versions of the distribution's parts are here, as each tells it of itself.

Where they differ in what a test expects, the test says so by these.
"""

import functools
import re
from typing import Final

from tests.bed.command import run_to_end

DEADLINE_S: Final = 30.0
Version = tuple[int, ...]


def libvirt() -> Version:
    """The daemon's; its clients and tools are of the same source: (11, 3, 0)."""
    return told("libvirtd", "--version")


def openssl() -> Version:
    """The command's, and of libssl for programs of the distribution: (3, 5, 1)."""
    return told("openssl", "version")


def polkit() -> Version:
    """(126,) or, as it was counted before, (0, 105)."""
    return told("pkaction", "--version")


def systemd() -> Version:
    """(257, 13), say."""
    return told("systemctl", "--version")


@functools.cache
def told(*command: str) -> Version:
    """The first number with its parts in what a command says."""
    said = run_to_end(command, deadline_s=DEADLINE_S).succeeded()
    found = re.search(r"\d+(\.\d+)*", said)
    assert found is not None, said
    return tuple(int(part) for part in found[0].split("."))
