"""What everybody else feels while somebody attacks: one measure for all attacks.

    with watched_proxyd(make_proxyd, …) as front, Bystander(front) as bystander:
        felt = bystander.beside(lambda directory: hostile(SCRIPT, directory))
        felt.check()

An attacker busy on a small machine is felt by everybody, whatever it talks to. So each round
measures twice: with the attackers at a sink that swallows what they send, in a directory where
things are called as in proxyd's, and with the same attackers at proxyd. Rounds alternate, so what
the machine does besides is in both, and medians are compared. The attackers' own daemon behind
proxyd is the sink, too: no hypervisor has a part in it.
"""

import itertools
import math
import os
import signal
import socket
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from proxyd.cli.admin_client import Connection, NoAnswer, Refusal
from proxyd.wire.frame import Status
from proxyd.wire.remote import OPEN_READONLY
from tests.bed.command import held_open
from tests.bed.daemon import ConfigValue, accepts, descriptors, short_directory
from tests.bed.hostile import (
    DAEMON,
    Ended,
    Hostile,
    cpu_ticks,
    family,
    hostile,
    is_alive,
    stuck_threads,
)
from tests.bed.libvirtd import kill_if_there
from tests.bed.proxyd import Proxyd
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient

HOSTILE_URI: Final = "lxc:///system"  # leads to the sink
URI: Final = "test:///default"  # leads to a real daemon
NAMES: Final = ("libvirt-sock", "libvirt-sock-ro", "libvirt-admin-sock", "virtproxyd-admin-sock")

ROUNDS: Final = 3
WINDOW_S: Final = 0.35
WARM_UP_S: Final = 0.05  # of a window, not counted
PATIENCE_S: Final = 5.0  # of somebody who is not served at all
CALM_S: Final = 0.1
MOST_CALM_TICKS: Final = 2  # of 10 ms
WATCHDOG_S: Final = 3.0
COURIER = "of a child: python"
DRAIN_S: Final = 1
PARTING_S: Final = 2

# The goals. The machine's own hiccups are in the margins.
MOST_SLOWER: Final = 2.0
MARGIN_US: Final = 2000.0
SERVED_S: Final = 1.0
ADMIN_S: Final = 1.0
STOP_MARGIN_S: Final = 2.0

CALLS: Final = """
import time
from hostile_kit import *
sock = open_session(sys.argv[1], sys.argv[2])
sock.settimeout(float(sys.argv[3]))
call = frame(CONNECT_GET_LIB_VERSION, serial=7)

def once():
    began = time.perf_counter()
    sock.sendall(call)
    receive(sock)
    return (time.perf_counter() - began) * 1e6

say("ready")
while True:
    warm_up, window = hear()
    until = time.perf_counter() + warm_up
    took = []
    try:
        while time.perf_counter() < until:
            once()
        until += window
        while not took or time.perf_counter() < until:
            took.append(once())
    except TimeoutError:
        say(None)
        break
    took.sort()
    say([len(took), *(took[int(len(took) * part)] for part in (0.5, 0.99)), took[-1]])
"""


@dataclass(frozen=True, slots=True)
class Window:
    """Small calls, one after the other; infinite where none was answered."""

    calls: int = 0
    p50_us: float = float("inf")
    p99_us: float = float("inf")
    worst_us: float = float("inf")


@dataclass(slots=True)
class Felt:
    """All figures of one attack.

    `stop_s` is what SIGTERM took while it went on until the daemon's process had ended, `gone_s`
    until those that it had started had, too.
    """

    quiet: list[Window] = field(default_factory=list)
    beside: list[Window] = field(default_factory=list)
    new_client_s: list[float] = field(default_factory=list)
    admin_s: list[float] = field(default_factory=list)
    kick_s: float = 0.0
    starved_s: float = 0.0  # the longest time without food for the watchdog
    most_descriptors: int = 0
    stop_s: float = 0.0
    gone_s: float = 0.0
    stuck: list[str] = field(default_factory=list)  # threads in uninterruptible sleep at its end
    left: list[str] = field(default_factory=list)  # what else was wrong, most of it afterwards

    @property
    def is_over(self) -> bool:
        """Somebody is not served at all any more: there is nothing left to measure."""
        return math.isinf(max(self.beside[-1].p99_us, *self.new_client_s[-1:], *self.admin_s[-1:]))

    @property
    def slower(self) -> float:
        """How many times as long the p99 is."""
        return _median(self.beside) / _median(self.quiet)

    @property
    def is_close(self) -> bool:
        """Whether more rounds may tell what the machine did from what the attack did."""
        waits = max(*self.new_client_s, *self.admin_s)
        return self.misses_pace and waits < SERVED_S

    @property
    def misses_pace(self) -> bool:
        return _median(self.beside) - MARGIN_US > MOST_SLOWER * _median(self.quiet)

    def __str__(self) -> str:
        return (
            f"p99 {_median(self.quiet):.0f} -> {_median(self.beside):.0f} us ({self.slower:.1f} x),"
            f" worst {max((each.worst_us for each in self.beside), default=0) / 1e3:.0f} ms,"
            f" new client {max(self.new_client_s, default=0):.2f} s,"
            f" admin {max(self.admin_s, default=0):.2f} s, kick {self.kick_s:.2f} s,"
            f" watchdog {self.starved_s:.1f} s, descriptors <= {self.most_descriptors},"
            f" SIGTERM {self.stop_s:.2f} s, all of it {self.gone_s:.2f} s"
            f"{f', stuck: {self.stuck}' if self.stuck else ''}{'; '.join(['', *self.left])}"
        )

    def check(self) -> None:
        """All of the goals, and all of the misses in one message."""
        worst_s = max(each.worst_us for each in self.beside) / 1e6
        misses = [
            text
            for missed, text in (
                (self.misses_pace, "calls of others are slowed down"),
                (worst_s > SERVED_S, "a call of somebody else hangs"),
                (statistics.median(self.new_client_s) > SERVED_S, "a new client waits"),
                (statistics.median(self.admin_s) > ADMIN_S, "the administrator waits"),
                (self.kick_s > ADMIN_S, "a kicked client stays"),
                (self.starved_s > WATCHDOG_S, "the watchdog starves"),
                (self.stop_s > DRAIN_S + STOP_MARGIN_S, "SIGTERM does not end it in time"),
                (
                    self.gone_s > DRAIN_S + STOP_MARGIN_S >= self.stop_s and not self.stuck,
                    "it leaves processes behind",
                ),
                # Whoever closes what the attacker has passed waits for his file system for as long
                # as that likes, SIGKILL included: that is a courier's part, one for a user.
                (self.stuck not in ([], [COURIER]), "threads are left in uninterruptible sleep"),
            )
            if missed
        ]
        misses += self.left
        assert not misses, f"{', '.join(misses)}: {self}"


def _median(windows: list[Window]) -> float:
    return statistics.median(each.p99_us for each in windows)


class Watchdog:
    """systemd's end of NOTIFY_SOCKET: when it was fed."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path = directory / "notify"
        self._socket.bind(os.fspath(self.path))
        self._fed = [time.monotonic()]
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    @property
    def environment(self) -> Mapping[str, str]:
        usec = int(WATCHDOG_S * 1e6)
        return {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": str(usec)}

    def longest_s(self, since: float) -> float:
        """The longest time without food since that moment."""
        times = [since, *(fed for fed in self._fed if fed > since), time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            if b"WATCHDOG=1" in message:
                self._fed.append(time.monotonic())

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Scene:
    """A proxyd with its watchdog, and the directory of the sink in proxyd's place."""

    front: Proxyd
    watchdog: Watchdog
    sink: Path


@contextmanager
def scene(
    backend: Path,
    *,
    backend_dir: Path,
    config: Mapping[str, ConfigValue | None] | None = None,
    hostile_daemon: Path | None = None,
    **options: Any,
) -> Iterator[Scene]:
    """proxyd before a real daemon (`backend`, for URI) and the sink (for HOSTILE_URI).

    Everybody may read and write there. `hostile_daemon` takes the place of the sink behind proxyd.
    """
    with ExitStack() as stack:
        sink = stack.enter_context(short_directory(0o755))
        path = sink / "sink"
        command = [sys.executable, "-m", "tests.fakes.sink_daemon", str(path)]
        stack.enter_context(held_open(command))
        wait_until(lambda: path.exists() and accepts(path), 10, "the sink listens")
        for name in NAMES:
            (sink / name).symlink_to(path)
        directory = stack.enter_context(short_directory(0o755))
        watchdog = Watchdog(directory)
        stack.callback(watchdog.close)
        settings: dict[str, ConfigValue | None] = {
            "proxyd_routes": [f"test={backend}", f"lxc={hostile_daemon or path}"],
            "unix_sock_rw_perms": "0777",
            "proxyd_drain_timeout": DRAIN_S,
            # The sink never answers: what is left of a session there is given up after this time.
            "proxyd_parting_timeout": PARTING_S,
            "log_level": 3,  # as it is by itself
            **(config or {}),
        }
        front = Proxyd(
            directory,
            backend_dir=backend_dir,
            config=settings,
            environment=watchdog.environment,
            **options,
        )
        front.start()
        try:
            yield Scene(front, watchdog, sink)
        finally:
            front.daemon.kill()


Start = Callable[[Path], AbstractContextManager[Hostile]]


class Bystander:
    """Another user with an open session before that proxyd, for as long as the block lasts."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.front = scene.front
        self._stack = ExitStack()
        self._session: Hostile | None = None

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def beside(
        self,
        start: Start,
        *,
        quiet: Start | None = None,
        meanwhile: Callable[[], str] = lambda: "",
        kicks: bool = False,
        rounds: int = ROUNDS,
    ) -> Felt:
        """What is felt beside attackers; `start` gets the directory whose sockets they attack.

        They say "ready" and then do nothing until they hear something. `quiet` starts what is in
        the quiet windows in place of the same attackers at the sink; `meanwhile` is done once a
        round and says what was wrong. At the end they are gone, and so must be all that they had;
        with `kicks` their sessions are first ended by the administrator.
        """
        felt = Felt()
        before = self._settled()
        began = time.monotonic()
        with (quiet or start)(self.scene.sink) as control, start(self.front.directory) as attackers:
            for each in (control, attackers):
                assert each.hear() == "ready"
                each.pause()
                each.go()
            while len(felt.beside) < rounds or (felt.is_close and len(felt.beside) < 3 * rounds):
                control.resume()
                felt.quiet.append(self.window())
                control.pause()
                attackers.resume()
                felt.beside.append(self.window())
                self.look(felt)
                wrong = meanwhile()
                if wrong and wrong not in felt.left:
                    felt.left.append(wrong)
                attackers.pause()
                if felt.is_over:
                    break
                self._calm_down()
            attackers.resume()
            felt.kick_s = self._kicked_s()
            attackers.pause()
            felt.starved_s = self.scene.watchdog.longest_s(began)
        if kicks:
            for each in filter(self._is_theirs, self._clients() or []):
                self._kick(each["id"])
        felt.left += self._left(before)
        return felt

    def stop_beside(self, start: Start, felt: Felt) -> None:
        """SIGTERM while they attack; how long it takes goes into `felt`. proxyd is gone then."""
        with start(self.front.directory) as attackers:
            with suppress(Ended, TimeoutError):  # it serves nobody any more
                attackers.hear(PATIENCE_S)
                attackers.go()
                self.window()
            stop(self.front, felt)

    def window(self) -> Window:
        """Small calls for a while; a session that is stuck or was ended is infinitely slow."""
        assert self._session is not None
        self._session.say([WARM_UP_S, WINDOW_S])
        try:
            found = self._session.hear(2 * PATIENCE_S)
        except (Ended, TimeoutError):
            found = None
        if found is None:
            self._stack.close()
            with suppress(Ended, TimeoutError):
                self._begin()
            return Window()
        return Window(*found)

    def _begin(self) -> None:
        made = hostile(
            CALLS, self.front.directory / "libvirt-sock-ro", URI, str(PATIENCE_S), user=DAEMON
        )
        self._session = self._stack.enter_context(made)
        assert self._session.hear(PATIENCE_S) == "ready"

    def look(self, felt: Felt) -> None:
        """One look at everything but small calls."""
        felt.new_client_s.append(self.new_client_s())
        felt.admin_s.append(self.admin_s())
        held = sum(len(descriptors(pid)) for pid in family(self.front.pid))
        felt.most_descriptors = max(felt.most_descriptors, held)

    def new_client_s(self) -> float:
        """From connecting to an open session."""
        began = time.monotonic()
        with socket.socket(socket.AF_UNIX) as sock:
            # Of a blocking socket, which waits its turn where the backlog is full.
            patience = struct.pack("@ll", *divmod(int(PATIENCE_S * 1e6), 1_000_000))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
            try:
                sock.connect(os.fspath(self.front.directory / "libvirt-sock-ro"))
                client = RpcClient(sock)
                sock.settimeout(PATIENCE_S)
                reply = client.open(URI, OPEN_READONLY)
            except (BlockingIOError, TimeoutError, ConnectionError):
                return float("inf")
            served = reply is not None and reply.header.status == Status.OK
        return time.monotonic() - began if served else float("inf")

    def admin_s(self) -> float:
        """The list of clients, as `proxyd clients` gets it."""
        began = time.monotonic()
        return time.monotonic() - began if self._clients() is not None else float("inf")

    def _kicked_s(self) -> float:
        """Until a session of the attackers' is gone from the list, after `proxyd kick`."""
        theirs = [each["id"] for each in self._clients() or [] if self._is_theirs(each)]
        if not theirs:
            return 0.0
        began = time.monotonic()
        if not self._kick(theirs[0]):
            return float("inf")
        while (clients := self._clients()) is None or any(
            each["id"] == theirs[0] for each in clients
        ):
            if time.monotonic() - began > PATIENCE_S:
                return float("inf")
        return time.monotonic() - began

    def _kick(self, number: int) -> bool:
        """Whether there was an answer."""
        try:
            with self._admin() as connection, suppress(Refusal):  # it has gone by itself
                connection.kick(number)
        except NoAnswer:
            return False
        return True

    def _clients(self) -> list[dict[str, Any]] | None:
        """All that the administrator sees, or None when he does not get to the end."""
        found: list[list[dict[str, Any]]] = []

        def ask(connection: Connection) -> None:
            with suppress(NoAnswer):
                found.append(connection.clients())

        try:
            with self._admin() as connection:
                asking = threading.Thread(target=ask, args=(connection,))
                asking.start()
                asking.join(PATIENCE_S)
                connection.sock.shutdown(socket.SHUT_RDWR)
                asking.join()
        except (NoAnswer, OSError):
            return None
        return found[0] if found else None

    def _is_theirs(self, client: Mapping[str, Any]) -> bool:
        return bool(client["identity"].get("uid") not in {0, DAEMON, None})

    def _admin(self) -> Connection:
        return Connection.open(os.fspath(self.front.admin_sock))

    def _calm_down(self) -> None:
        """Until proxyd has dealt with what the attackers left, which is not for a quiet window."""

        def is_calm() -> bool:
            before = cpu_ticks(self.front.pid)
            with suppress(TimeoutError):
                wait_until(lambda: False, CALM_S, "a moment")
            return cpu_ticks(self.front.pid) - before <= MOST_CALM_TICKS

        with suppress(TimeoutError):
            wait_until(is_calm, PATIENCE_S, "proxyd is calm")

    def _settled(self) -> int:
        """Its descriptors when nobody but us is there."""
        wait_until(self._is_alone, 10, "only the bystander is there")
        return len(self.front.descriptors())

    def _is_alone(self) -> bool:
        clients = self._clients()
        return clients is not None and len(clients) == 1

    def _left(self, before: int) -> list[str]:
        """What is not as it was before they came, or does not become so."""
        left = []
        for what, condition in (
            ("their sessions are not gone", self._is_alone),
            # A few pipes are kept by intent.
            ("their descriptors are left", lambda: len(self.front.descriptors()) <= before + 16),
            ("a normal client is not served", lambda: self.new_client_s() < PATIENCE_S),
        ):
            try:
                wait_until(condition, PATIENCE_S, what)
            except TimeoutError:
                left.append(what)
        if "Traceback" in self.front.log_text():
            left.append("there is a traceback in the log")
        return left


def stop(front: Proxyd, felt: Felt) -> None:
    """SIGTERM; how long it takes, infinite at the deadline, goes into `felt`.

    Then comes SIGKILL, and whoever does not even go by that is told: the process's threads.
    """
    pids = family(front.pid)
    began = time.monotonic()
    felt.stop_s = felt.gone_s = float("inf")

    def gone() -> bool:
        if front.daemon.running:
            return False
        felt.stop_s = min(felt.stop_s, time.monotonic() - began)
        return not any(map(is_alive, pids))

    front.daemon.send(signal.SIGTERM)
    with suppress(TimeoutError):
        wait_until(gone, DRAIN_S + PATIENCE_S, "all its processes are gone")
        felt.gone_s = time.monotonic() - began
    for pid in filter(is_alive, pids):
        kill_if_there(pid)
    with suppress(TimeoutError):
        wait_until(lambda: not any(map(is_alive, pids)), PATIENCE_S, "they are killed")
    felt.stuck = [
        f"{'its own' if pid == front.pid else 'of a child'}: {name}"
        for pid in pids
        for name in stuck_threads(pid)
    ]
