"""Clients that die in the midst of transfers, at every stage and in every way.

Each is a connection of our own that speaks frames; `Mortal` knows a pool with two volumes. What it
does is drawn from a random number generator, so that the same seed gives the same deaths.
"""

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from proxyd.wire.frame import Frame, FrameType, Header, Status
from proxyd.wire.programs import VERSION, Program
from proxyd.wire.xdr import Writer
from tests.bed.libvirtd import Libvirtd
from tests.bed.virsh import unix_uri, virsh

SIZE: Final = 48 << 20
URI: Final = "qemu:///system"
NODE_GET_INFO: Final = 6
GET_CAPABILITIES: Final = 7
POOL_LOOKUP_BY_NAME: Final = 84
VOL_LOOKUP_BY_NAME: Final = 95
UPLOAD: Final = 208
DOWNLOAD: Final = 209
ENDS: Final = ("closes", "resets", "half-closes")
STAGES: Final = (
    "opening",
    "downloading",
    "downloading, unread",
    "aborting",
    "uploading",
    "uploading in a packet",
    "uploading at once",
    "finishing",
    "idle",
)
PATIENCE_S: Final = 20.0

Door = Callable[[], AbstractContextManager[Any]]  # an opened RpcClient


@contextmanager
def pool_of(backend: Libvirtd, directory: Path) -> Iterator[None]:
    """The pool "dying" of a daemon, in that directory."""
    for name in ("source", "target"):
        with (directory / name).open("wb") as file:
            file.truncate(SIZE)
    uri = unix_uri(URI, backend.sock)
    begin = f"capabilities; pool-define-as dying dir --target {directory}; pool-start dying"
    virsh(uri, begin).succeeded()
    yield


class Mortal:
    """Opens sessions by `door` and dies in them. `volumes` as `volumes_of` found them."""

    def __init__(self, door: Door, volumes: dict[str, bytes]) -> None:
        self._door = door
        self._volumes = volumes

    def die(self, rng: random.Random, stage: str, end: str, *, calls: int, streams: int) -> None:
        """One whole life."""
        with self._door() as client, suppress(ConnectionError):
            for _ in range(streams):
                self._come_to(client, rng, stage)
            stream = client.serial
            for _ in range(calls):
                client.send(client.frame(rng.choice((NODE_GET_INFO, GET_CAPABILITIES))))
            if stage == "uploading in a packet":
                wire = _packet(stream, UPLOAD, Status.CONTINUE, bytes(262120))
                client.send(wire[: rng.randrange(28, len(wire))])
            self._end(client, end)

    def _come_to(self, client: Any, rng: random.Random, stage: str) -> None:
        if stage == "idle":
            return
        if "download" in stage or stage in ("opening", "aborting"):
            client.send(self._opening(client, DOWNLOAD))
            if stage != "opening":
                self._hear(client, 1 if "unread" in stage else rng.randint(2, 4))
            if stage == "aborting":
                client.send(_packet(client.serial, DOWNLOAD, Status.ERROR))
            return
        client.send(self._opening(client, UPLOAD))
        if stage != "uploading at once":
            self._hear(client, 1)
        for _ in range(rng.randint(1, 3)):
            packet = bytes(rng.choice((100, 262120)))
            client.send(_packet(client.serial, UPLOAD, Status.CONTINUE, packet))
        if stage == "finishing":
            client.send(_packet(client.serial, UPLOAD, Status.OK))

    def _opening(self, client: Any, procedure: int) -> bytes:
        volume = self._volumes["source" if procedure == DOWNLOAD else "target"]
        wire = client.frame(procedure, volume + Writer().u64(0).u64(0).u32(0).take())
        assert isinstance(wire, bytes)
        return wire

    def _hear(self, client: Any, frames: int) -> None:
        for _ in range(frames):
            frame = client.receive()
            if frame is None or frame.header.status == Status.ERROR:
                return

    def _end(self, client: Any, end: str) -> None:
        sock = getattr(client.sock, "sock", client.sock)
        if end == "resets":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif end == "half-closes":
            socket.socket.shutdown(sock, socket.SHUT_WR)
            sock.settimeout(PATIENCE_S)
            with suppress(OSError):
                while socket.socket.recv(sock, 1 << 18):
                    pass


def _packet(serial: int, procedure: int, status: Status, payload: bytes = b"") -> bytes:
    header = Header(Program.REMOTE, VERSION, procedure, FrameType.STREAM, serial, status)
    return Frame(header, payload).pack()


def volumes_of(door: Door) -> dict[str, bytes]:
    """The two volumes as calls take them."""
    found = {}
    with door() as client:
        pool = client.call(POOL_LOOKUP_BY_NAME, Writer().string("dying").take())
        for name in ("source", "target"):
            volume = client.call(VOL_LOOKUP_BY_NAME, pool.payload + Writer().string(name).take())
            assert volume.header.status == Status.OK
            found[name] = volume.payload
    return found


def deaths(
    mortals: list[Mortal], count: int, *, seed: int, at_a_time: int = 4, until: int = 5
) -> list[str]:
    """So many clients die; returns what went wrong with some before they could, `until` too many
    did."""
    wrong: list[str] = []
    numbers = iter(range(count))
    lock = threading.Lock()

    def live() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None or len(wrong) >= until:
                return
            rng = random.Random(f"{seed} {number}")
            mortal = mortals[number % len(mortals)]
            stage, end = STAGES[number % len(STAGES)], rng.choice(ENDS)
            calls, streams = rng.choice((0, 0, 1, 3)), rng.choice((1, 1, 2, 3))
            try:
                mortal.die(rng, stage, end, calls=calls, streams=streams)
            except Exception as error:  # noqa: BLE001 (a thread has nobody to tell)
                wrong.append(f"{number} {stage}, {end}, {calls}, {streams}: {error!r}")

    threads = [threading.Thread(target=live) for _ in range(at_a_time)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong
