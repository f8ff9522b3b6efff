"""Clients of all kinds that go on until they are told to stop, and hold every answer to its call.

`python -m tests.bed.traffic KIND OPTIONS` says "open" when all of them are, ends with its stdin,
and says then in one line of JSON what became of it: how many calls, the slowest, each fault.
"""

import hashlib
import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from proxyd.wire import remote
from proxyd.wire.frame import Frame, FrameBuffer, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Keepalive, Program, Remote
from proxyd.wire.remote import OpenArguments, is_keepalive, keepalive
from proxyd.wire.xdr import Writer
from tests.bed.command import held_open
from tests.system.rpc import RpcClient
from tests.system.sasl_client import by_gssapi
from tests.system.tls_client import opened_over_tls

URI: Final = "test:///default"
KEEPALIVE_FEATURE: Final = 10  # of libvirt's drivers: this side may be asked whether it lives
DOMAIN_LOOKUP_BY_NAME, DOMAIN_RESUME, DOMAIN_SUSPEND = 23, 28, 34
POOL_LOOKUP_BY_NAME, VOL_LOOKUP_BY_NAME, VOL_UPLOAD, VOL_DOWNLOAD = 84, 95, 208, 209
REGISTER, LIFECYCLE = 316, 318
SUSPENDED, RESUMED = 3, 4
PING_EVERY_S: Final = 1.0
SETTLES_S: Final = 20.0
_MOST_FAULTS: Final = 20
_PIECE: Final = 65536


@dataclass
class Account:
    """What one kind of clients has seen."""

    kind: str
    calls: int = 0
    sessions: int = 0
    bytes: int = 0
    events: int = 0
    pings: int = 0  # that the other side has sent
    pongs: int = 0
    slowest_ms: float = 0.0  # call
    longest_ms: float = 0.0  # visit, from the connection to the goodbye
    faults: list[str] = field(default_factory=list)


class Book:
    """The account of many threads."""

    def __init__(self, kind: str) -> None:
        self.account = Account(kind)
        self._lock = threading.Lock()

    def fault(self, what: str) -> None:
        with self._lock:
            if len(self.account.faults) < _MOST_FAULTS:
                self.account.faults.append(f"{time.time():.3f} {what}")

    def add(self, **more: int) -> None:
        with self._lock:
            for name, amount in more.items():
                setattr(self.account, name, getattr(self.account, name) + amount)

    @contextmanager
    def timed(self, what: str = "slowest_ms") -> Iterator[None]:
        began = time.perf_counter()
        yield
        took_ms = round((time.perf_counter() - began) * 1e3, 1)
        with self._lock:
            setattr(self.account, what, max(getattr(self.account, what), took_ms))


class Talker(RpcClient):
    """One who answers whether it lives, asks that itself, and keeps the events that come."""

    def __init__(self, where: Any, book: Book) -> None:
        super().__init__(where)
        self._book = book
        self._pinged = time.monotonic()
        self._unanswered = 0
        self.events: list[Frame] = []

    @classmethod
    def of(cls, client: RpcClient, book: Book) -> "Talker":
        """That client, from here on."""
        made = cls(client.sock, book)
        made.serial = client.serial
        return made

    def lives(self) -> None:
        """What libvirt's clients say when they are open."""
        feature = Writer().i32(KEEPALIVE_FEATURE).take()
        self.ask(Remote.CONNECT_SUPPORTS_FEATURE, feature)

    def _receive(self) -> Frame | None:
        while (frame := super()._receive()) is not None:
            if is_keepalive(frame.header):
                if frame.header.procedure == Keepalive.PING:
                    self._book.add(pings=1)
                    self.send(keepalive(Keepalive.PONG).pack())
                else:
                    self._book.add(pongs=1)
                    self._unanswered = 0
            elif frame.header.type == FrameType.MESSAGE:
                self.events.append(frame)
            else:
                return frame
        return None

    def ask(self, procedure: int, payload: bytes = b"") -> Frame:
        """A call that has to be answered, and by no error. Raises ConnectionError."""
        if time.monotonic() - self._pinged >= PING_EVERY_S:
            self._pinged = time.monotonic()
            self._unanswered += 1
            if self._unanswered > 2:
                raise ConnectionError(f"{self._unanswered} PINGs are not answered")
            self.send(keepalive(Keepalive.PING).pack())
        with self._book.timed():
            reply = self.call(procedure, payload)
        if reply is None:
            raise ConnectionError(f"the connection was closed over call {procedure}")
        if (reply.header.serial, reply.header.procedure) != (self.serial, procedure):
            raise ConnectionError(f"{reply.header} to call {procedure}, serial {self.serial}")
        if reply.header.status != Status.OK:
            raise ConnectionError(f"call {procedure} failed: {reply.payload[:200]!r}")
        self._book.add(calls=1)
        return reply


def open_session(where: Any, book: Book, uri: str = URI) -> Talker:
    """By a UNIX socket."""
    talker = Talker(where, book)
    talker.ask(Remote.AUTH_LIST)
    talker.ask(Remote.CONNECT_OPEN, OpenArguments(uri, 0).pack())
    book.add(sessions=1)
    return talker


class Crowd:
    """Threads that begin when all are there, and end when they are told to."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.stop = threading.Event()
        self._here: list[threading.Thread] = []
        self._ready = threading.Semaphore(0)

    def add(self, clients: Any, *arguments: Any) -> None:
        """`clients` is a generator: it yields once when it is open."""
        thread = threading.Thread(target=self._live, args=(clients, arguments))
        self._here.append(thread)
        thread.start()

    def _live(self, clients: Any, arguments: tuple[Any, ...]) -> None:
        opened = False
        try:
            for _ in clients(self, *arguments):
                opened = True
                self._ready.release()
        except Exception as error:  # noqa: BLE001 (that is what is counted here)
            self.book.fault(f"{clients.__name__}{arguments[-1:]}: {error!r}")
        finally:
            if not opened:
                self._ready.release()

    def run(self) -> None:
        for _ in self._here:
            self._ready.acquire()
        print("open", flush=True)
        sys.stdin.readline()
        self.stop.set()
        for each in self._here:
            each.join()


# ---- The kinds


def pingpong(options: Mapping[str, Any]) -> Account:
    """So many sessions, each of which sends its next call when it has its last reply."""
    book = Book("pingpong")
    account = book.account
    sessions: dict[int, _PingPong] = {}
    poll = select.epoll()
    for _ in range(options["sessions"]):
        talker = open_session(options["sock"], book)
        talker.lives()
        talker.sock.setblocking(False)
        sessions[talker.sock.fileno()] = _PingPong(talker.sock, talker.serial)
        poll.register(talker.sock, select.EPOLLIN)
    poll.register(sys.stdin, select.EPOLLIN)
    print("open", flush=True)
    for each in sessions.values():
        each.call()
    stopping = False
    while any(each.waits for each in sessions.values()) if stopping else True:
        for number, _ in poll.poll(1):
            if number == sys.stdin.fileno():
                stopping = True
                poll.unregister(number)
                continue
            each = sessions[number]
            try:
                answered = each.read(account)
            except (OSError, ValueError) as error:
                book.fault(f"session {number}: {error}")
                poll.unregister(number)
                each.waits = False
                continue
            if answered and not stopping:
                each.call()
    for each in sessions.values():
        if each.frames.held:
            book.fault("bytes behind the last reply")
        each.sock.close()
    return account


class _PingPong:
    def __init__(self, sock: socket.socket, serial: int) -> None:
        self.sock = sock
        self.frames = FrameBuffer()
        self.waits = False
        self._serial = serial
        self._began = 0.0

    def call(self) -> None:
        self._serial += 1
        self._began = time.perf_counter()
        self.waits = True
        self.sock.send(remote.call(Remote.CONNECT_GET_LIB_VERSION, self._serial).pack())

    def read(self, account: Account) -> bool:
        """Whether the call is answered. Raises ValueError."""
        got = self.sock.recv(_PIECE)
        if not got:
            raise ValueError("the connection was closed")
        self.frames.feed(got)
        answered = False
        while (frame := self.frames.next_frame()) is not None:
            if is_keepalive(frame.header):
                account.pings += 1
                self.sock.send(keepalive(Keepalive.PONG).pack())
                continue
            if not self.waits or frame.header.serial != self._serial or len(frame.payload) != 8:
                raise ValueError(f"{frame.header} to call {self._serial}")
            took_ms = (time.perf_counter() - self._began) * 1e3
            account.slowest_ms = max(account.slowest_ms, round(took_ms, 1))
            account.calls += 1
            self.waits, answered = False, True
        return answered


def calling(crowd: Crowd, talker: Talker) -> Iterator[None]:
    """An open session that calls now and then."""
    talker.lives()
    yield
    while not crowd.stop.wait(0.02):
        talker.ask(Remote.CONNECT_GET_LIB_VERSION)
    talker.ask(Remote.CONNECT_CLOSE)


def gssapi(options: Mapping[str, Any]) -> Account:
    """Sessions by TCP, with Kerberos; the environment names the KDC."""

    def clients(crowd: Crowd, _number: int) -> Iterator[None]:
        with by_gssapi(options["address"], Path(options["tickets"])) as client:
            crowd.book.add(sessions=1)
            yield from calling(crowd, Talker.of(client, crowd.book))

    return _crowded("gssapi", clients, options["sessions"])


def tls(options: Mapping[str, Any]) -> Account:
    """Sessions by TLS."""

    def clients(crowd: Crowd, _number: int) -> Iterator[None]:
        with opened_over_tls(options["address"], Path(options["pkipath"])) as client:
            crowd.book.add(sessions=1)
            yield from calling(crowd, Talker.of(client, crowd.book))

    return _crowded("tls", clients, options["sessions"])


def newcomers(options: Mapping[str, Any]) -> Account:
    """Who connects, asks once and leaves, all the time."""

    def clients(crowd: Crowd, number: int) -> Iterator[None]:
        book = crowd.book
        by_tls = number < options["by_tls"]
        yield
        while not crowd.stop.wait(options.get("pause_s", 0.01)):
            with book.timed("longest_ms"), ExitStack() as stack:
                if by_tls:
                    pkipath = Path(options["pkipath"])
                    client = stack.enter_context(opened_over_tls(options["address"], pkipath))
                    talker = Talker.of(client, book)
                    book.add(sessions=1)
                else:
                    talker = open_session(options["sock"], book)
                    stack.callback(talker.close)
                talker.ask(Remote.CONNECT_GET_LIB_VERSION)
                talker.ask(Remote.CONNECT_CLOSE)

    return _crowded("newcomers", clients, options["sessions"])


def events(options: Mapping[str, Any]) -> Account:
    """One changes a domain all the time, the others hear of each change once."""
    book = Book("events")
    changes = [0]
    all_registered = threading.Barrier(options["sessions"] + 1)
    over = threading.Event()

    def listener(crowd: Crowd, _number: int) -> Iterator[None]:
        talker = open_session(options["sock"], book)
        talker.lives()
        talker.ask(REGISTER, Writer().i32(0).u32(0).take())
        all_registered.wait(SETTLES_S)
        yield
        while not over.wait(0.05):
            talker.ask(Remote.CONNECT_GET_LIB_VERSION)
        until = time.monotonic() + SETTLES_S
        while len(talker.events) < changes[0] and time.monotonic() < until:
            talker.ask(Remote.CONNECT_GET_LIB_VERSION)
        heard = [int.from_bytes(each.payload[-8:-4], "big") for each in talker.events]
        told = [SUSPENDED if at % 2 == 0 else RESUMED for at in range(changes[0])]
        if heard != told:
            book.fault(f"{len(heard)} events of {changes[0]}, in another order or not all")
        book.add(events=len(heard))
        talker.close()

    def changer(crowd: Crowd) -> Iterator[None]:
        talker = open_session(options["sock"], book)
        name = Writer().string("test").take()
        domain = talker.ask(DOMAIN_LOOKUP_BY_NAME, name).payload
        all_registered.wait(SETTLES_S)
        yield
        try:
            while not crowd.stop.wait(0.02):
                for procedure in (DOMAIN_SUSPEND, DOMAIN_RESUME):
                    talker.ask(procedure, domain)
                    changes[0] += 1
        finally:
            over.set()
            talker.close()

    crowd = Crowd(book)
    for number in range(options["sessions"]):
        crowd.add(listener, number)
    crowd.add(changer)
    crowd.run()
    return book.account


def bulk(options: Mapping[str, Any]) -> Account:
    """Volumes of the pool "bulk" down and up, at a pace that keeps everybody waiting a little."""
    size, pace = options["size"], options["bytes_a_second"]
    directory = Path(options["pool"])
    with (directory / "source.img").open("rb") as source:
        content = source.read(size)
    digest = hashlib.sha256(content).digest()

    def clients(crowd: Crowd, number: int) -> Iterator[None]:
        talker = open_session(options["sock"], crowd.book, "qemu:///system")
        talker.lives()
        pool = talker.ask(POOL_LOOKUP_BY_NAME, Writer().string("bulk").take()).payload
        up = number % 2
        name = f"up{number}.img" if up else "source.img"
        volume = talker.ask(VOL_LOOKUP_BY_NAME, pool + Writer().string(name).take()).payload
        yield
        while not crowd.stop.is_set():
            whole = Writer().u64(0).u64(size).u32(0).take()
            talker.ask(VOL_UPLOAD if up else VOL_DOWNLOAD, volume + whole)
            if up:
                _send_up(crowd, talker, content, pace)
                with (directory / name).open("rb") as file:
                    found = hashlib.sha256(file.read(size)).digest()
            else:
                found = _take_down(crowd, talker, pace)
            if found != digest:
                raise ValueError("what came is not what was sent")
            crowd.book.add(bytes=size)
        talker.close()

    return _crowded("bulk", clients, options["sessions"])


def _take_down(crowd: Crowd, talker: Talker, pace: int) -> bytes:
    seen = hashlib.sha256()
    while True:
        with crowd.book.timed():
            frame = talker.receive()
        if frame is None:
            raise ConnectionError("the connection was closed in a stream")
        header = frame.header
        if (header.procedure, header.serial) != (VOL_DOWNLOAD, talker.serial):
            raise ConnectionError(f"{header} in a stream")
        if not frame.payload:
            if header.status == Status.OK:
                return seen.digest()
            talker.send(_packet(VOL_DOWNLOAD, talker.serial, Status.OK))
            continue
        seen.update(frame.payload)
        crowd.stop.wait(len(frame.payload) / pace)


def _send_up(crowd: Crowd, talker: Talker, content: bytes, pace: int) -> None:
    for at in range(0, len(content), _PIECE):
        piece = content[at : at + _PIECE]
        with crowd.book.timed():
            talker.send(_packet(VOL_UPLOAD, talker.serial, Status.CONTINUE, piece))
        crowd.stop.wait(len(piece) / pace)
    talker.send(_packet(VOL_UPLOAD, talker.serial, Status.OK))
    frame = talker.receive()
    if frame is None or (frame.header.status, frame.header.serial) != (Status.OK, talker.serial):
        raise ConnectionError(f"the end of a stream was answered by {frame}")


def _packet(procedure: int, serial: int, status: Status, content: bytes = b"") -> bytes:
    header = Header(Program.REMOTE, VERSION, procedure, FrameType.STREAM, serial, status)
    return Frame(header, content).pack()


def _crowded(kind: str, clients: Any, count: int) -> Account:
    crowd = Crowd(Book(kind))
    for number in range(count):
        crowd.add(clients, number)
    crowd.run()
    return crowd.book.account


# libvirt's own client: a descriptor in each call, and one in each reply. What it has passed is the
# end of a pipe, whose other end tells when nobody has it any more.
DESCRIPTORS: Final = """
import json, libvirt, os, socket, sys, threading, time
options = json.loads(sys.argv[1])
account = {"kind": "descriptors", "calls": 0, "slowest_ms": 0.0, "faults": []}
lock, stop, pipes = threading.Lock(), threading.Event(), []
libvirt.virEventRegisterDefaultImpl()
def turn():
    while True:
        libvirt.virEventRunDefaultImpl()
threading.Thread(target=turn, daemon=True).start()
def passing(domain, number):
    mine, theirs = os.pipe()
    pipes.append(mine)
    count = 1 + number % 3
    domain.FDAssociate(f"g{number}", [theirs] * count, 0)
    os.close(theirs)
def receiving(domain, number):
    flags = libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH
    with socket.socket(fileno=domain.openGraphicsFD(0, flags)) as graphics:
        graphics.settimeout(20)
        assert graphics.recv(12) == b"RFB 003.008\\n"
def live(number, opened):
    try:
        connection = libvirt.open(options["uri"])
        connection.setKeepAlive(1, 5)
        domain = connection.lookupByName(options["domain"])
        opened.release()
        act = receiving if options["running"] and number % 2 else passing
        while not stop.wait(0.05):
            began = time.perf_counter()
            act(domain, number)
            took = (time.perf_counter() - began) * 1e3
            with lock:
                account["calls"] += 1
                account["slowest_ms"] = max(account["slowest_ms"], round(took, 1))
        connection.close()
    except Exception as error:
        with lock:
            account["faults"].append(f"{time.time():.3f} {error!r}")
        opened.release()
opened = threading.Semaphore(0)
threads = [threading.Thread(target=live, args=(n, opened)) for n in range(options["sessions"])]
for each in threads: each.start()
for each in threads: opened.acquire()
print("open", flush=True)
sys.stdin.readline()
stop.set()
for each in threads: each.join()
for each in pipes:
    os.set_blocking(each, False)
    until = time.monotonic() + 20
    while True:
        try:
            assert os.read(each, 1) == b""
            break
        except BlockingIOError:
            if time.monotonic() > until:
                account["faults"].append("a descriptor that was passed is still open")
                break
            time.sleep(0.05)
print(json.dumps(account), flush=True)
"""

KINDS: Final = {each.__name__: each for each in (pingpong, gssapi, tls, newcomers, events, bulk)}


class Traffic:
    """Kinds that run at one time."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._running: list[tuple[str, subprocess.Popen[str]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(
        self, kind: str, environment: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        """Returns at once; `opened` waits."""
        told = json.dumps(options)
        command = [sys.executable, "-m", "tests.bed.traffic", kind, told]
        if kind == "descriptors":
            command = ["/usr/bin/python3", "-u", "-c", DESCRIPTORS, told]
        root = str(Path(__file__).parents[2])
        more = {"PYTHONPATH": root, **(environment or {})}
        process = self._stack.enter_context(held_open(command, environment=more))
        self._running.append((kind, process))

    def opened(self) -> None:
        for kind, process in self._running:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == "open\n", f"{kind}: {said!r}"

    def stop(self) -> dict[str, dict[str, Any]]:
        """All at one time; what became of each."""
        for _, process in self._running:
            assert process.stdin is not None
            process.stdin.close()
        found = {}
        for kind, process in self._running:
            assert process.stdout is not None
            found[kind] = json.loads(process.stdout.readline() or '{"faults": ["it died"]}')
        self._running.clear()
        return found


if __name__ == "__main__":
    print(json.dumps(asdict(KINDS[sys.argv[1]](json.loads(sys.argv[2])))), flush=True)
