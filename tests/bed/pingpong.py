"""Sessions that never rest, each with a ledger: what was asked, and that this is what came back.

The daemon behind answers a call with its payload (tests/fakes/moody_daemon.py). A byte that is
lost, doubled or somebody else's is an error of the session's; so is its end.
"""

import itertools
import socket
import threading

from proxyd.wire.frame import Status
from tests.bed.waiting import wait_until
from tests.fakes.moody_daemon import ECHOES
from tests.relay.frames import noise
from tests.system.rpc import RpcClient

SIZES = (0, 40, 3000, 70_000)
PIPELINED = 3
DEADLINE_S = 30.0
URI = "test:///default"


class Session:
    """One of them, in a thread of its own. `error` is why it is over."""

    def __init__(self, name, client):
        self.name = name
        self.client = client
        self.rounds = 0
        self.error = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._play, name=f"session {name}", daemon=True)
        self._thread.start()

    @property
    def alive(self):
        return not self.error

    def _play(self):
        try:
            for number in itertools.count():
                if self._over.is_set():
                    return
                self._once(number)
                self.rounds += 1
        except Exception as error:  # noqa: BLE001 (all of it is for whoever asks)
            self.error = repr(error)

    def _once(self, number):
        asked = []
        for at in range(PIPELINED):
            payload = noise(SIZES[(number + at) % len(SIZES)], number * PIPELINED + at)
            self.client.send(self.client.frame(ECHOES, payload))
            asked.append((self.client.serial, payload))
        for serial, payload in asked:
            frame = self.client.receive()
            if frame is None:
                raise EOFError(f"at call {serial}")
            assert (frame.header.serial, frame.header.status) == (serial, Status.OK)
            assert frame.payload == payload, f"call {serial} came back as something else"

    def stop(self):
        self._over.set()
        self._thread.join()
        self.client.close()


class Sessions:
    def __init__(self):
        self.all = []
        self._names = itertools.count(1)

    def open(self, client):
        made = Session(next(self._names), client)
        self.all.append(made)
        return made

    def open_by(self, path, count):
        for _ in range(count):
            client = RpcClient(path)
            assert client.open(URI).header.status == Status.OK
            self.open(client)

    @property
    def alive(self):
        return [each for each in self.all if each.alive]

    def go_on(self):
        """Those that do, seen at their calls; the others have met their end, and are taken out."""
        before = {each: each.rounds for each in self.alive}
        wait_until(
            lambda: all(each.rounds > at + 1 or not each.alive for each, at in before.items()),
            DEADLINE_S,
            "every session goes on or is over",
        )
        lost = [each for each in self.all if not each.alive]
        for each in lost:
            self.all.remove(each)
            each.stop()
        return lost

    def stop(self):
        for each in self.all:
            each.stop()


class Visitors:
    """Whoever comes all the time. `closed` are those that met a closed door, `cut` were let in."""

    def __init__(self, path):
        self.path = path
        self.served = 0
        self.closed = []
        self.cut = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._come, name="visitors", daemon=True)
        self._thread.start()

    def _come(self):
        while not self._over.is_set():
            with socket.socket(socket.AF_UNIX) as sock:
                try:
                    sock.connect(str(self.path))
                except OSError as error:
                    self.closed.append(repr(error))
                else:
                    self._visit(RpcClient(sock))
            self._over.wait(0.03)

    def _visit(self, client):
        try:
            replies = [client.open(URI), client.call(ECHOES, b"here")]
            assert [each.header.status for each in replies] == [Status.OK] * 2
            self.served += 1
        except Exception as error:  # noqa: BLE001 (all of it is for whoever asks)
            self.cut.append(repr(error))

    def are_served(self):
        """From now on."""
        before = self.served
        wait_until(lambda: self.served > before + 1, DEADLINE_S, "newcomers are served")

    def stop(self):
        self._over.set()
        self._thread.join()
