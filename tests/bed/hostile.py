"""A hostile user: a script of the test's, run as somebody who owns nothing here.

It runs in a session of its own under the distribution's interpreter and may import
hostile_kit and fuse, which are copied to where it can read them. The test and the script talk in
JSON, one value a line. Whatever it becomes, at the end all of it is killed and gone.
"""

import json
import os
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.bed.command import as_user, clean_environment
from tests.bed.daemon import short_directory
from tests.bed.libvirtd import every_pid, kill_if_there
from tests.bed.python_libvirt import INTERPRETER
from tests.bed.waiting import wait_until

NOBODY: Final = 65534
DAEMON: Final = 1  # another account that every Debian has and that owns nothing
FUSE: Final = "/dev/fuse"
MODULES: Final = ("hostile_kit.py", "fuse.py")
READY_S: Final = 20.0
GONE_S: Final = 10.0


def fuse_device(directory: Path) -> str:
    """A /dev/fuse that everybody may open, as on most hosts; "" where there is none to be had."""
    if not os.path.exists(FUSE):
        return ""
    path = directory / "fuse"
    os.mknod(path, stat.S_IFCHR | 0o666, os.stat(FUSE).st_rdev)
    path.chmod(0o666)  # whatever the mask
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError:  # a file system without devices
        return ""
    return str(path)


class Ended(Exception):
    """The script has ended instead of saying something; the text is what it left on stderr."""


class Hostile:
    """The running script. `directory` is its own; others may read there."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self._process = process
        self.directory = directory
        self._held = b""

    @property
    def pid(self) -> int:
        """Of its first process, and the number of its session."""
        return self._process.pid

    def say(self, value: Any) -> None:
        """What its hear() returns."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        self._process.stdin.flush()

    def go(self) -> None:
        """Lets it out of get_ready()."""
        self.say("go")

    def hear(self, deadline_s: float = READY_S) -> Any:
        """The next value that it says. Raises Ended, and TimeoutError when it says nothing."""
        assert self._process.stdout is not None
        end = time.monotonic() + deadline_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._held:
                left = end - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise TimeoutError(
                        f"the script said nothing within {deadline_s:g} s\n{self.complaints()}"
                    )
                more = os.read(self._process.stdout.fileno(), 65536)
                if not more:
                    raise Ended(self.complaints() or "it said nothing more and ended")
                self._held += more
        line, _, self._held = self._held.partition(b"\n")
        return json.loads(line)

    def complaints(self) -> str:
        """What is on its stderr so far."""
        return (self.directory / "stderr").read_text(errors="replace")

    def pause(self) -> None:
        """SIGSTOP for the script and its children, but for servers of its file systems."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT for them."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL for all of it; returns when nothing of it is left."""
        self._process.kill()

        def gone() -> bool:
            for pid in members(self.pid):
                kill_if_there(pid)
            return not members(self.pid)

        wait_until(gone, GONE_S, "every process of the script is gone")
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        # Its number stays taken until it has been waited for, and that happens in kill().
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


@contextmanager
def hostile(
    script: str,
    *arguments: str | os.PathLike[str],
    user: int = NOBODY,
    environment: Mapping[str, str] | None = None,
    nofile: int | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Hostile]:
    """Start a script with these sys.argv[1:]; it is there until the block ends.

    `nofile` is its limit of open files, soft and hard.
    """
    with short_directory(0o755) as directory:
        own = directory / "own"
        own.mkdir()
        os.chown(own, user, user)
        for module in MODULES:
            shutil.copy(Path(__file__).with_name(module), directory / module)
        (directory / "script.py").write_text(script)
        limit = [] if nofile is None else ["prlimit", f"--nofile={nofile}:{nofile}"]
        with (
            (directory / "stderr").open("wb") as stderr,
            subprocess.Popen(
                [
                    *limit,
                    *(INTERPRETER, "-u", "-B", str(directory / "script.py")),
                    *map(os.fspath, arguments),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=own,
                env=clean_environment(environment),
                pass_fds=pass_fds,
                start_new_session=True,
                **as_user(user),
            ) as process,
        ):
            running = Hostile(process, directory)
            try:
                yield running
            finally:
                running.kill()
                if sys.exc_info()[0] is not None and running.complaints():
                    print(f"the hostile script said:\n{running.complaints()}", file=sys.stderr)


def members(session: int) -> list[int]:
    """The living processes of a session; one that has ended and was not waited for is none."""
    return [pid for pid in every_pid() if _stat(pid)[:2] == (True, session)]


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than one that was not waited for."""
    return _stat(pid)[0]


def stuck_threads(pid: int) -> list[str]:
    """Names of threads in uninterruptible sleep."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            name, _, rest = (task / "stat").read_text().rpartition(")")
            if rest.split()[0] == "D":
                found.append(name.partition("(")[2])
    return found


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {each: _stat(each)[2] for each in every_pid()}
    found = [pid]
    for each in found:  # grows while it is gone through
        found += [child for child, parent in parents.items() if parent == each]
    return found


def cpu_ticks(pid: int) -> int:
    """The time that a process and those of its children that have ended have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))


def _stat(pid: int) -> tuple[bool, int, int]:
    """Whether it lives, its session, its parent."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False, 0, 0
    return fields[0] not in "ZX", int(fields[3]), int(fields[1])
