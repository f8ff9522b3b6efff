"""The program that runs here, started once more beside itself.

It gets the command line, the directory and the environment of this one, and one end of a channel.
What it says on stderr until it serves is kept, so that whoever asked learns why it did not start:
an error of its configuration, or a traceback of a release that was installed by half.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from proxyd.config.quoting import one_line
from proxyd.upgrade.channel import Channel, channel_pair

CHANNEL: Final = "PROXYD_HANDOVER_FD"
STDERR: Final = "PROXYD_HANDOVER_STDERR"
_STDERR_FD: Final = 2
_LONGEST_WORDS: Final = 2000
_LONGEST_LINE: Final = 500
_ENDED_EVERY_S: Final = 0.005
_BY_ITSELF: Final = (
    "it is of a release that cannot take over and wanted to start by itself: to have it,"
    " restart the daemon once (systemctl restart virtproxyd), which ends all sessions"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaunch:
    """How this process was started. `environ` is what was taken out of its own at the start."""

    argv: Sequence[str]
    directory: str
    environ: Mapping[str, str]

    @classmethod
    def of_this_process(cls, directory: str, environ: Mapping[str, str]) -> "Relaunch":
        return cls(argv=tuple(sys.orig_argv), directory=directory, environ=environ)

    def start(self) -> "Started":
        """Blocks for the time of a fork. Raises OSError."""
        ours, theirs = channel_pair()
        with theirs:
            try:
                said = os.memfd_create("proxyd-stderr", os.MFD_CLOEXEC)
                try:
                    process = self._run(theirs.fileno(), said)
                except BaseException:
                    os.close(said)
                    raise
            except BaseException:
                ours.close()
                raise
        return Started(process, Channel(ours), said)

    def _run(self, channel: int, said: int) -> subprocess.Popen[bytes]:
        stderr = os.dup(_STDERR_FD)
        try:
            environ = {
                **os.environ,
                **self.environ,
                CHANNEL: str(channel),
                STDERR: str(stderr),
            }
            return subprocess.Popen(
                self.argv,
                cwd=self.directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stderr=said,
                pass_fds=(channel, stderr),
            )
        finally:
            os.close(stderr)


@dataclass(slots=True)
class Started:
    """A process that is about to take over, or not."""

    process: subprocess.Popen[bytes]
    channel: Channel
    _said: int
    _killed: bool = False  # by this process

    @property
    def pid(self) -> int:
        return self.process.pid

    def ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        """It serves nobody from now on."""
        if not self.ended():
            self._killed = True
            self.process.kill()

    def why(self) -> str:
        """What kept it from starting, as far as it has said so."""
        said = self._words()
        if f"pid {os.getpid()}" in said:  # it has met this very process
            said = f"{_BY_ITSELF} ({said})"
        status = self.process.poll()
        if self._killed or status is None:
            return said or "it gave no reason"
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return f"{said} ({how})" if said else f"it ended with {how} and gave no reason"

    def _words(self) -> str:
        """The last line: of a complaint that is all, of a traceback what it comes to."""
        size = os.fstat(self._said).st_size
        words = os.pread(self._said, _LONGEST_WORDS, max(0, size - _LONGEST_WORDS))
        lines = [line for line in words.decode("utf-8", "replace").splitlines() if line.strip()]
        return one_line(lines[-1])[:_LONGEST_LINE].removeprefix("proxyd: ") if lines else ""

    def close(self) -> None:
        self.channel.close()
        if self._said >= 0:
            os.close(self._said)
            self._said = -1


async def has_ended(started: Started, seconds: float) -> None:
    """Waits for it, without a thread: there may be none to be had."""
    end = trio.current_time() + seconds
    while not started.ended() and trio.current_time() < end:  # noqa: ASYNC110 (nobody tells)
        await trio.sleep(_ENDED_EVERY_S)


def speak_for_ourselves(stderr: int) -> None:
    """Behind a start: what was said on stderr, and all that will be, goes where it went before."""
    with suppress(OSError):
        size = os.fstat(_STDERR_FD).st_size
        said = os.pread(_STDERR_FD, size, 0)
        os.dup2(stderr, _STDERR_FD)
        os.write(_STDERR_FD, said)
    with suppress(OSError):
        os.close(stderr)
