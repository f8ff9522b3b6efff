"""What a daemon has of the process before it, and gives to the next one (upgrade/)."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from proxyd.listen.inherited import Inherited
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.process.pidfile import PidFileError, acquire_pid_file, succeed_pid_file
from proxyd.upgrade.incoming import Predecessor
from proxyd.upgrade.relaunch import Relaunch

log = logging.getLogger("daemon.upgrade")


class OwnPidFile:
    """The pid file, if this daemon is to have one. `given_back` releases it."""

    def __init__(self, path: str, given_back: ExitStack) -> None:
        self._path = path
        self._given_back = given_back

    def take(self) -> None:
        """Of a daemon that starts by itself. Raises StartFailed."""
        if not self._path:
            return
        try:
            self._given_back.callback(acquire_pid_file(self._path).release)
        except PidFileError as error:
            raise StartFailed(Exit.FAILED, str(error)) from error

    def succeed(self) -> None:
        """Of one that takes over, or takes back. Sessions are worth more than the file."""
        if not self._path:
            return
        try:
            self._given_back.callback(succeed_pid_file(self._path).release)
        except PidFileError as error:
            log.error("%s; it still names the process before", error)


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
