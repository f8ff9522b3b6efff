"""What this process was started from, and whether that is still what is installed.

A program goes on with the code that it has, whatever becomes of its files: an update of it, or of
a library of which it has the old one mapped, takes effect when it is started anew. So it remembers
the files of its package at its start, by name, size and time, which a package manager gives to
each of them; and the kernel says which of the files that it has mapped exist no more.

The package alone is looked at: a Python library that is replaced goes unseen, unless it brings
machine code with it that is mapped.
"""

import functools
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import proxyd
from proxyd.wire.programs import Own

_VERSION: Final = re.compile(r'^__version__ = "([^"]{1,64})"$', re.MULTILINE)
_LONGEST_SOURCE: Final = 65536
# `address perms offset dev inode path`, of what is executed; memory without a file is no library.
_MAPPED: Final = re.compile(r"^\S+ ..x\S+ \S+ \S+ [1-9]\d* +(/.*) \(deleted\)$", re.MULTILINE)
_NO_FILES: Final = ("/memfd:", "/dev/", "/SYSV")
_PROC: Final = "/proc"
_MAPS: Final = "/proc/self/maps"
_OUR_UNIT: Final = "virtproxyd.service"

_Files = dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Between what runs and what is installed.

    `changed` are files of the package that were replaced, removed or added; `installed` is its
    release now, "" where there is none; `libraries` are mapped files that are there no more.
    """

    changed: int
    gone: bool
    release: str
    installed: str
    libraries: tuple[str, ...]

    def told(self) -> tuple[str, ...]:
        """A text each; none where there is no difference."""
        return tuple(self._texts())

    def _texts(self) -> Iterator[str]:
        if self.gone:
            yield "its files were removed"
        elif self.changed and self.installed not in {"", self.release}:
            yield f"{self.release} runs, {self.installed} is installed"
        elif self.changed:
            are = "is" if self.changed == 1 else "are"
            yield f"{self.changed} of its files {are} not what it was started from"
        if self.libraries:
            names = ", ".join(sorted({os.path.basename(each) for each in self.libraries}))
            were = "was" if len(self.libraries) == 1 else "were"
            yield f"{names} {were} replaced, and the old one is in use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Made once, as early as can be; `words` and `directory` are how it was started, and where."""

    release: str
    package: Path
    files: _Files
    words: tuple[str, ...]
    directory: str

    @classmethod
    def of(cls, package: Path, release: str) -> Self:
        """The one whose files are there now."""
        return cls(
            release=release,
            package=package,
            files=dict(_files(package)),
            words=tuple(_words()),
            directory=_here(),
        )

    @classmethod
    @functools.cache
    def at_start(cls) -> "Program":
        """The one that this process is; whoever asks first has it remembered."""
        return cls.of(Path(proxyd.__file__).parent, proxyd.__version__)

    def difference(self) -> Difference:
        """Between what was there and what is there now. Reads files: for a thread."""
        now: _Files = dict(_files(self.package))
        return Difference(
            changed=sum(self.files.get(each) != now.get(each) for each in self.files | now),
            gone=bool(self.files) and not now,
            release=self.release,
            installed=_release(self.package),
            libraries=tuple(_lost_libraries()),
        )

    def remedy(self) -> str:
        """The command that makes this process what is installed."""
        if "UPGRADE" in Own.__members__:
            return "proxyd upgrade"
        return _restart(os.getpid(), self.words, self.directory)


def restart_of(pid: int) -> str:
    """The command that starts a daemon of this host anew, in the way in which it was started; ""
    where that cannot be seen."""
    try:
        words = Path(f"{_PROC}/{pid}/cmdline").read_bytes().decode(errors="surrogateescape")
        directory = os.readlink(f"{_PROC}/{pid}/cwd")
    except OSError:
        return ""
    return _restart(pid, words.rstrip("\0").split("\0"), directory)


def _restart(pid: int, words: Sequence[str], directory: str) -> str:
    unit, manager = _unit(pid)
    if unit:
        return f"systemctl {manager}restart {unit}"
    # `tail` waits for its end: until then it holds the pid file and the addresses.
    # A name of ours in quotes stays as it is, wherever texts are made pasteable (invocation.py).
    again = " ".join(f"'{each}'" if each == "proxyd" else shlex.quote(each) for each in words)
    return f"kill {pid}; tail --pid={pid} -f /dev/null; cd {shlex.quote(directory)} && {again}"


def _unit(pid: int) -> tuple[str, str]:
    """The service whose main process this is, and the option that says whose systemd has it.

    What somebody starts from a shell, or a service starts beside itself, is in a service's control
    group as well, and is not to be started by starting that one.
    """
    group = ""
    with suppress(OSError):
        lines = Path(f"{_PROC}/{pid}/cgroup").read_text(errors="replace").splitlines()
        group = next((line.partition("::")[2] for line in lines if line.startswith("0::")), "")
    unit = os.path.basename(group)
    if not unit.endswith(".service") or (unit != _OUR_UNIT and not _is_systemds(pid)):
        return "", ""
    return unit, "--user " if "/user@" in os.path.dirname(group) else ""


def _is_systemds(pid: int) -> bool:
    """Whether systemd itself has started this very process (systemd.exec(5))."""
    try:
        environ = Path(f"{_PROC}/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"SYSTEMD_EXEC_PID={pid}".encode() in environ


def _files(directory: Path, within: str = "") -> Iterator[tuple[str, tuple[int, int]]]:
    """Size and time of each, by its name in the package; of a directory that is gone, none."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            name = f"{within}{entry.name}"
            if entry.name.startswith(".") or entry.name == "__pycache__":
                continue  # what Python or an editor makes there
            with suppress(OSError):
                if entry.is_dir():
                    yield from _files(Path(entry.path), f"{name}/")
                else:
                    found = entry.stat()
                    yield name, (found.st_size, found.st_mtime_ns)


def _release(package: Path) -> str:
    with suppress(OSError), (package / "__init__.py").open(errors="replace") as source:
        found = _VERSION.search(source.read(_LONGEST_SOURCE))
        return found[1] if found else ""
    return ""


def _lost_libraries() -> list[str]:
    """Files that this process executes and that were removed, or replaced, since."""
    try:
        maps = Path(_MAPS).read_text(errors="surrogateescape")
    except OSError:
        return []
    return sorted({path for path in _MAPPED.findall(maps) if not path.startswith(_NO_FILES)})


def _words() -> Iterator[str]:
    """The command line, as it works in another shell: there `python` may be another one."""
    if path := os.environ.get("PYTHONPATH"):
        yield from ("env", f"PYTHONPATH={path}")
    yield from (sys.executable, *sys.orig_argv[1:])


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # somebody has removed it
        return "/"
