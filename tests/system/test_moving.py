"""virsh and libvirtd notice nothing of sessions that move all the time."""

import itertools
import os
import socket
import threading
import time
from contextlib import suppress

import pytest

from proxyd.endpoint.moving import endpoint_from
from proxyd.endpoint.plain import UnixEndpoint
from proxyd.relay.guards import NOTHING_GUARDED
from proxyd.relay.loop import RelayLoop
from proxyd.relay.moving import ends_in, pair_from
from proxyd.relay.pair import RelayedPair
from tests.bed.daemon import short_directory
from tests.bed.virsh import held_virsh, unix_uri, virsh
from tests.bed.volumes import DEADLINE_S, PART, pool
from tests.bed.waiting import wait_until
from tests.relay.moving import from_text, to_text

__all__ = ["pool"]

pytestmark = pytest.mark.system

EVERY_S = 0.002


class Shuttle:
    """Passes clients of its socket on to a daemon's, from two relay threads in turn."""

    def __init__(self, directory, daemon):
        self.path = directory / "shuttle"
        self.moves = 0
        self.ended = []
        self._daemon = daemon
        self._numbers = itertools.count(1)
        self._live = {}  # the loop of each session that has not ended
        self._over = threading.Event()
        self._loops = [RelayLoop(self._report, parting_timeout_s=lambda: 60) for _ in range(2)]
        self._listener = socket.create_server(str(self.path), family=socket.AF_UNIX)
        ways = [*(loop.run for loop in self._loops), self._accept, self._move_all]
        self._threads = [threading.Thread(target=each) for each in ways]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for loop in self._loops:
            loop.stop("the test is over")
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _report(self, pair):
        del self._live[pair.number]
        self.ended.append(pair)

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                daemon = socket.socket(socket.AF_UNIX)
                daemon.connect(str(self._daemon))
                ends = UnixEndpoint(client), UnixEndpoint(daemon)
                for end in ends:
                    end.take_descriptors()
                loop = self._loops[0]
                pair = RelayedPair(
                    next(self._numbers),
                    *ends,
                    pipes=loop.pipes,
                    figures=loop.figures,
                    clock=loop.clock,
                    now_ns=time.monotonic_ns(),
                    parts=True,
                    guards=NOTHING_GUARDED,
                )
                self._live[pair.number] = loop
                loop.adopt(pair)

    def _move_all(self):
        while not self._over.wait(EVERY_S):
            for number, loop in list(self._live.items()):
                answered = threading.Event()
                loop.freeze(
                    number,
                    lambda frozen, loop=loop, answered=answered: self._moved(
                        frozen, loop, answered
                    ),
                )
                answered.wait(1)

    def _moved(self, frozen, loop, answered):
        """In the thread of the loop that the session leaves."""
        if frozen is not None:
            (other,) = (each for each in self._loops if each is not loop)
            state = from_text(to_text(frozen.state))
            sockets = (socket.socket(fileno=os.dup(each)) for each in frozen.descriptors)
            pair = pair_from(
                state,
                *(endpoint_from(*each) for each in zip(ends_in(state), sockets, strict=True)),
                pipes=other.pipes,
                figures_of=lambda _: other.figures,
                clock=other.clock,
                guards=NOTHING_GUARDED,
            )
            self._live[pair.number] = other
            other.resume(pair)
            loop.let_go(frozen)
            self.moves += 1
        answered.set()

    @property
    def bugs(self):
        return sum(loop.bugs + loop.partings.bugs for loop in self._loops)


@pytest.fixture
def shuttle(qemu_backend):
    with short_directory() as directory, Shuttle(directory, qemu_backend.sock) as shuttle:
        yield shuttle
        wait_until(lambda: not shuttle._live, 20, "all sessions have ended")
    assert shuttle.bugs == 0
    assert not [each.reason for each in shuttle.ended if "error" in each.reason]


def test_a_volume_goes_down_and_up_unchanged(shuttle, pool, tmp_path):
    uri = unix_uri("qemu:///system", shuttle.path)
    got = tmp_path / "got"

    down = f"vol-download source.img {got} --pool bulk --length {PART}"
    virsh(uri, down, deadline_s=DEADLINE_S).succeeded()
    up = f"vol-upload target.img {got} --pool bulk"
    virsh(uri, up, deadline_s=DEADLINE_S).succeeded()

    with (pool / "source.img").open("rb") as source:
        beginning = source.read(PART)
    assert got.read_bytes() == beginning
    assert (pool / "target.img").read_bytes() == beginning
    assert shuttle.moves > 20


def test_calls_have_their_answers(shuttle):
    uri = unix_uri("qemu:///system", shuttle.path)
    commands = "version; pool-list --all; nodeinfo; capabilities; " * 30
    virsh(uri, commands, deadline_s=DEADLINE_S).succeeded()
    assert shuttle.moves > 20


def test_events_go_on(shuttle, qemu_backend):
    uri = unix_uri("test:///default", shuttle.path)
    direct = unix_uri("test:///default", qemu_backend.sock)
    with held_virsh(uri, "event", "--all", "--loop", "--timestamp") as watching:
        wait_until(lambda: shuttle.moves > 50, 20, "it moves")
        for _ in range(5):
            virsh(direct, "suspend test; resume test").succeeded()
        before = shuttle.moves
        wait_until(lambda: shuttle.moves > before + 50, 20, "it goes on to move")
        watching.terminate()
        told, _ = watching.communicate(timeout=20)
    assert told.count("Suspended") == 5, told
    assert told.count("Resumed") == 5, told
