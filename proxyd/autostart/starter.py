"""Starts a user's own daemons when a client asks for one (docs/protocol/autostart.md).

    lock ─ is it there by now? ─ launch ─ wait until it accepts ─ unlock

Nobody starts the daemons of an ordinary user: libvirt's clients do, and so a proxyd of that user
does. They and we exclude each other by libvirt's lock; the clients of one proxyd share an attempt.
It belongs to none of them. When those who wait for it go, it still runs to its end, which is
bounded: given up half-way it would leave a daemon behind that is about to listen, and the next
client would start a second one, which fails over the first one's pid file.

A daemon that was started stays when proxyd ends, as it would with any other client.
"""

import errno
import logging
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import trio

from proxyd.autostart.launch import CannotLaunch, Launched, find_program, launch
from proxyd.autostart.lock import StartLock, take_lock
from proxyd.config.addresses import socket_name
from proxyd.config.routes import Destination
from proxyd.wire import failure
from proxyd.wire.failure import Failure

# Those of docs/protocol/routing.md, section 2, that serve an ordinary user. A scheme is the
# client's choice, so what else may be called virt…d on PATH must not run because of one.
SESSION_DAEMONS: Final = frozenset(
    {
        "virtqemud",
        "virtvboxd",
        "virtchd",
        "virtinterfaced",
        "virtnetworkd",
        "virtnodedevd",
        "virtsecretd",
        "virtstoraged",
    }
)

# libvirt's clients: 500 tries, 10 ms apart.
_PAUSE_S: Final = 0.01
_PATIENCE_S: Final = 5.0
# One that ends at once may have met another of its kind, started without the lock, whose socket
# will be there in a moment.
_GRACE_S: Final = 1.0

log = logging.getLogger("rpc.netsocket")


class NotStarted(Exception):
    """There is no daemon; `failure` is what a client is told."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason.message)
        self.failure = reason


@dataclass(slots=True, eq=False)
class _Attempt:
    """One try, for all who wait for it. It failed if there is a failure when it is over."""

    daemon: str
    path: str
    over: trio.Event = field(default_factory=trio.Event)
    failure: Failure | None = None


class Starter:
    """Starts daemons; `run` is the task that does it, and must run for `start` to return.

    `runtime_dir` is where the user's daemons have their sockets, the one that follows from
    `environ`. `patience_s` bounds the wait for another's lock, and then that for the daemon.
    """

    def __init__(
        self,
        *,
        runtime_dir: str,
        environ: Mapping[str, str],
        euid: int,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._runtime_dir = runtime_dir
        self._environ = environ
        self._patience_s = patience_s
        # root's daemons are for systemd to start.
        self._may_start = euid != 0 and environ.get("LIBVIRT_AUTOSTART") != "0"
        self._attempts: dict[str, _Attempt] = {}
        # As many as there can be at one time: one a daemon.
        self._begin, self._begun = trio.open_memory_channel[_Attempt](len(SESSION_DAEMONS))

    def starts(self, destination: Destination) -> bool:
        """Whether this is a daemon of our user, where it listens when libvirt starts it."""
        return (
            self._may_start
            and destination.daemon in SESSION_DAEMONS
            and destination.path == f"{self._runtime_dir}/{socket_name(destination.daemon)}"
        )

    def can_start(self, destination: Destination) -> bool:
        """Whether that is one of ours whose program is installed."""
        return (
            self.starts(destination) and find_program(destination.daemon, self._environ) is not None
        )

    async def start(self, destination: Destination) -> None:
        """Returns as soon as the daemon accepts connections. Raises NotStarted.

        To be called when `starts` and a connection has failed with ENOENT or ECONNREFUSED.
        """
        if not self.starts(destination):
            raise ValueError(f"{destination.daemon} at {destination.path} is not ours to start")
        attempt = self._attempts.get(destination.daemon)
        if attempt is None:
            attempt = _Attempt(destination.daemon, destination.path)
            self._attempts[destination.daemon] = attempt
            self._begin.send_nowait(attempt)
        await attempt.over.wait()
        if attempt.failure is not None:
            raise NotStarted(attempt.failure)

    async def run(self) -> None:
        """Makes the attempts, until it is cancelled."""
        async with trio.open_nursery() as nursery:
            async for attempt in self._begun:
                nursery.start_soon(self._carry_out, attempt)

    async def _carry_out(self, attempt: _Attempt) -> None:
        try:
            await self._start_locked(attempt)
        except NotStarted as error:
            attempt.failure = error.failure
        except OSError as error:  # a directory that is not ours, no process or descriptor left
            number = error.errno or errno.EIO
            where = f" ('{error.filename}')" if error.filename else ""
            attempt.failure = failure.system_error(
                number, f"cannot start {attempt.daemon}: {os.strerror(number)}{where}"
            )
        except Exception as error:  # the net around one attempt: proxyd outlives it
            log.exception("starting %s: an error of proxyd's own", attempt.daemon)
            attempt.failure = failure.internal(f"cannot start {attempt.daemon}: {error}")
        finally:
            del self._attempts[attempt.daemon]
            attempt.over.set()
        if attempt.failure is not None:
            log.warning("%s", attempt.failure.message)

    async def _start_locked(self, attempt: _Attempt) -> None:
        lock = await self._locked(attempt)
        if lock is None:
            return
        try:
            await self._start(attempt)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(lock.release)

    async def _locked(self, attempt: _Attempt) -> StartLock | None:
        """The lock, or None when its owner has started the daemon meanwhile."""
        path = f"{self._runtime_dir}/{attempt.daemon}.lock"
        number = errno.ENOENT
        with trio.move_on_after(self._patience_s):
            # Tried again and again, since a wait in fcntl could not be cancelled.
            while (lock := await trio.to_thread.run_sync(take_lock, path)) is None:
                number = _refusal(attempt.path)
                if not number:
                    return None
                await trio.sleep(_PAUSE_S)
            return lock
        raise _not_started(
            attempt,
            number,
            f"another process has been starting {attempt.daemon} for {self._patience_s:g} s"
            f" (it has locked '{path}')",
        )

    async def _start(self, attempt: _Attempt) -> None:
        number = _refusal(attempt.path)
        if not number:  # whoever had the lock before us has started it
            return
        began = trio.current_time()
        launched = await self._launch(attempt, number)
        status: int | None = None
        try:
            with trio.move_on_after(self._patience_s) as limit:
                while number := _refusal(attempt.path):
                    if status is None and (status := launched.status()) is not None:
                        limit.deadline = min(limit.deadline, trio.current_time() + _GRACE_S)
                    await trio.sleep(_PAUSE_S)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(launched.let_go)
        if number:
            raise _not_started(attempt, number, self._what_went_wrong(launched, status))
        seconds = trio.current_time() - began
        log.info("started %s, pid %d, within %.2f s", launched.program, launched.pid, seconds)

    async def _launch(self, attempt: _Attempt, number: int) -> Launched:
        try:
            return await trio.to_thread.run_sync(launch, attempt.daemon, self._environ)
        except CannotLaunch as error:
            raise _not_started(attempt, number, str(error)) from error

    def _what_went_wrong(self, launched: Launched, status: int | None) -> str:
        program = launched.program
        if status is None:
            return (
                f"{program} was started, pid {launched.pid}, and does not accept connections"
                f" after {self._patience_s:g} s; its log says why"
            )
        end = f"with exit status {status}" if status >= 0 else f"by {_signal_name(-status)}"
        return f"{program} was started and ended {end}; run it by hand to see why"


def _refusal(path: str) -> int:
    """The errno with which a daemon that is not there yet refuses; 0 if it accepts.

    Raises OSError for what would be the same with any daemon.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(path)
        except BlockingIOError:  # it listens, and has more clients than it can accept right now
            return 0
        except (FileNotFoundError, ConnectionRefusedError) as error:
            return error.errno or errno.ECONNREFUSED
    return 0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _not_started(attempt: _Attempt, number: int, why: str) -> NotStarted:
    said = f"Failed to connect socket to '{attempt.path}': {os.strerror(number)}"
    return NotStarted(failure.system_error(number, f"{said} ({why})"))
