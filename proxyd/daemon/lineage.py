"""What a daemon has of the process before it, and gives to the next one (upgrade/)."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from proxyd.listen.inherited import Inherited
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.process.pidfile import (
    PidFile,
    PidFileError,
    acquire_pid_file,
    remove_unfinished,
    succeed_pid_file,
)
from proxyd.upgrade.predecessor import Predecessor
from proxyd.upgrade.relaunch import Relaunch

log = logging.getLogger("daemon.upgrade")


class OwnPidFile:
    """The pid file, if this daemon is to have one. `given_back` releases it."""

    def __init__(self, path: str, given_back: ExitStack) -> None:
        self._path = path
        self._held: PidFile | None = None
        given_back.callback(self._hold, None)

    def take(self) -> None:
        """Of a daemon that starts by itself. Raises StartFailed."""
        if not self._path:
            return
        try:
            self._hold(acquire_pid_file(self._path))
        except PidFileError as error:
            raise StartFailed(Exit.FAILED, str(error)) from error

    def succeed(self) -> None:
        """Of one that takes over. Sessions are worth more than the file."""
        if not self._path:
            return
        try:
            self._hold(succeed_pid_file(self._path))
        except PidFileError as error:
            log.error("%s; it still names the process before", error)

    def keep(self) -> None:
        """Of the one that is the daemon, whoever has begun to succeed to it, and if it could not
        be had before."""
        if self._held is None or not self._held.is_in_place:
            self.succeed()
            return
        with suppress(OSError):  # the next one does
            remove_unfinished(self._path)

    def _hold(self, held: PidFile | None) -> None:
        before, self._held = self._held, held
        if before is not None:
            before.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """`relaunch` starts the next process, `predecessor` is the one before, if there is one; `kept`
    is what one that has ended has left with systemd."""

    relaunch: Relaunch
    pid_file: OwnPidFile
    watched: bool = False  # somebody waits for the end of this very process, and takes it for ours
    predecessor: Predecessor | None = None
    inherited: Inherited = field(default_factory=Inherited)
    kept: Sequence[int] = ()
