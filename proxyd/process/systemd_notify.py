"""What systemd is told of us, and the watchdog that it keeps (docs/protocol/systemd.md, section 2).

A message is one datagram of lines NAME=VALUE to the socket that NOTIFY_SOCKET names. Nothing here
waits for it to be read: when systemd is too busy and its queue is full, the message is lost, and
the log says so at debug level. A watchdog that missed one is fed by the next.
"""

import array
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Self

import trio

from proxyd.config.addresses import daemon_at
from proxyd.config.quoting import one_line
from proxyd.session.roster import Client

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_LONGEST_PATH: Final = 107  # of a sockaddr_un, without the NUL
_MOST_DIGITS: Final = 18  # of microseconds
_LONGEST_STATUS: Final = 500  # a line of `systemctl status`; systemd drops what exceeds a page
_MOST_BACKENDS: Final = 10
_STATUS_EVERY_S: Final = 1.0
_AGAIN_S: Final = 0.02  # systemd's queue is full

log = logging.getLogger("daemon.virtproxyd")


class Notifier:
    """Tells systemd how it goes; without NOTIFY_SOCKET, nobody.

    `watchdog_s` is how long systemd goes without a watchdog() before it kills; 0 is for ever.
    """

    def __init__(self, address: str | bytes = "", watchdog_s: float = 0) -> None:
        self.watchdog_s = watchdog_s
        self._address = address
        self._socket: socket.socket | None = None
        self._reloads = 0  # that go on, or wait for one that does
        self._stops = False
        self._silent = False
        self.environ: dict[str, str] = {}  # for the process that takes over from this one
        if address:
            # Kept open: when descriptors have run out, the watchdog wants its food all the same.
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str], *, pid: int) -> Self:
        """The one that the environment of the process `pid` asks for.

        Takes the variables away: a daemon that we start must not speak for us. So it is called
        once, and before a fork, after which WATCHDOG_PID would be another's.
        """
        path, watchdog_usec, watchdog_pid = (environ.pop(each, "") for each in _VARIABLES)
        watched = watchdog_pid in {"", str(pid)}
        notifier = cls(_address(path), _seconds(watchdog_usec) if path and watched else 0)
        if path:
            notifier.environ["NOTIFY_SOCKET"] = path
            if notifier.watchdog_s:
                notifier.environ["WATCHDOG_USEC"] = watchdog_usec
        return notifier

    def be_silent(self) -> None:
        """Another process of the service is the one that systemd listens to."""
        self._silent = True

    def speak(self) -> None:
        """This one is, from now on."""
        self._silent = False

    @property
    def is_heard(self) -> bool:
        """Whether this process is the one that systemd listens to."""
        return self._socket is not None and not self._silent

    @property
    def address(self) -> str | bytes:
        """Where systemd hears us; empty without one."""
        return self._address

    def close(self) -> None:
        """Says nothing from now on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ready(self) -> None:
        """Start-up, or all that was being reloaded, is over."""
        if not self._stops:
            self._send("READY=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows, one line."""
        self._send(f"STATUS={one_line(text)[:_LONGEST_STATUS]}")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Around a reload, from when it was asked for until it is over, well or not.

        Each is told when it begins, because systemd waits for one that is no older than its own
        signal (Type=notify-reload). The end is told once, when none is left: systemd takes it for
        the end of whichever it waits for.
        """
        self._reloads += 1
        if not self._stops:
            self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self._reloads -= 1
            if not self._reloads:
                self.ready()

    def stopping(self) -> None:
        """The end begins; of a reload systemd hears nothing from now on."""
        self._stops = True
        self._send("STOPPING=1")

    def main_pid(self, pid: int) -> None:
        """The daemon is this process, and not the one that was started (`--daemon`).

        systemd believes it only where the unit says NotifyAccess=all.
        """
        self._send(f"MAINPID={pid}")

    def extend_timeout(self, seconds: float) -> None:
        """What goes on (start, reload, stop) may take so long, counted from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def watchdog(self) -> None:
        """We live."""
        self._send("WATCHDOG=1")

    async def store(self, name: str, descriptors: Sequence[int]) -> bool:
        """Asks to keep them for the next start of the service, should it follow at once; False
        where nobody listens. That it was done only `heard` can tell.

        They are kept as they are, whatever happens at their other ends.
        """
        return await self._send_surely(
            "FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=descriptors
        )

    def unstore(self, name: str) -> None:
        """All that is kept by this name is kept no longer."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    async def heard(self) -> bool:
        """Waits until systemd has dealt with all that it was told; False where nobody listens.

        It closes the descriptor that comes with this message when it is its turn.
        """
        ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            with _closing(theirs):
                listens = await self._send_surely("BARRIER=1", descriptors=[theirs])
            if listens:
                await trio.lowlevel.wait_readable(ours)
        finally:
            os.close(ours)
        return listens

    async def _send_surely(self, *lines: str, descriptors: Sequence[int]) -> bool:
        """Waits for room in systemd's queue, which cannot be waited for otherwise."""
        while not self._send(*lines, descriptors=descriptors):
            if not self.is_heard:
                return False
            await trio.sleep(_AGAIN_S)
        return True

    def _send(self, *lines: str, descriptors: Sequence[int] = ()) -> bool:
        """Whether the message is in systemd's queue."""
        if self._socket is None or self._silent:
            return False
        message = "\n".join(lines).encode("utf-8", "replace")
        rights = array.array("i", descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        try:
            self._socket.sendmsg([message], ancillary, socket.MSG_NOSIGNAL, self._address)
        except OSError as error:
            log.debug("systemd was not told %s: %s", lines[0], os.strerror(error.errno or 0))
            return False
        return True


async def feed_watchdog(notifier: Notifier, relay_answers: Callable[[], Awaitable[None]]) -> None:
    """Feeds the watchdog at half its interval, for as long as the relay thread answers.

    That this task runs shows that trio's loop does; `relay_answers` returns when the relay's loop
    has taken an order. If either is stuck, systemd ends the process and starts another.
    """
    if not notifier.watchdog_s:
        return
    half_s = notifier.watchdog_s / 2
    while True:
        with trio.move_on_after(half_s) as patience:
            await relay_answers()
        if patience.cancelled_caught:
            log.error("the relay thread has not answered for %g s", half_s)
        else:
            notifier.watchdog()
            await trio.sleep(half_s)


async def keep_status(
    notifier: Notifier,
    clients: Callable[[], Iterable[Client]],
    wait_change: Callable[[], Awaitable[None]],
    notes: Callable[[], Sequence[str]] = tuple,
) -> None:
    """Tells systemd at most once a second what is open, and what `notes` says is to be known.

    `wait_change` returns when a client has come or gone, or when there are other notes.
    """
    told = ""
    while True:
        text = "; ".join([status_of(clients()), *notes()])
        if text != told:
            notifier.status(text)
            told = text
        # That somebody's session has been opened is not told: one looks for it.
        if all(client.pair is not None for client in clients()):
            await wait_change()
        await trio.sleep(_STATUS_EVERY_S)  # a burst is one line


def status_of(clients: Iterable[Client]) -> str:
    """As in `3 sessions, 1 being opened, backends: virtqemud 2, virtnetworkd 1`."""
    backends = Counter[str]()
    being_opened = 0
    for client in clients:
        if client.pair is None:
            being_opened += 1
        else:
            backends[daemon_at(client.backend)] += 1
    sessions = backends.total()
    text = f"{sessions} session{'' if sessions == 1 else 's'}, {being_opened} being opened"
    if not backends:
        return text
    named = [f"{name} {count}" for name, count in backends.most_common(_MOST_BACKENDS)]
    more = ["…"] if len(backends) > _MOST_BACKENDS else []
    return f"{text}, backends: {', '.join(named + more)}"


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)


def _address(path: str) -> str | bytes:
    """What sendto() takes; nothing for an address of a kind that is not known here."""
    raw = os.fsencode(path)
    if not raw.startswith((b"/", b"@")) or len(raw) > _LONGEST_PATH:
        return b""
    return b"\0" + raw[1:] if raw.startswith(b"@") else raw


def _seconds(usec: str) -> float:
    if usec.isascii() and usec.isdecimal() and len(usec) <= _MOST_DIGITS:
        return int(usec) / 1e6
    return 0
