"""How long sessions stand still while they move, the doors are closed, and what all of it costs."""

import gc
import json
import select
import subprocess
import time

import pytest

from proxyd.wire import remote
from proxyd.wire.programs import Remote
from tests.bed.command import clean_environment
from tests.bed.thousands import front, room, sessions
from tests.bed.traffic import Traffic
from tests.bed.upgrading import cpu_s, peak_kib, rss_kib, upgrading

__all__ = ["front", "room"]

pytestmark = pytest.mark.system

PING = remote.call(Remote.CONNECT_GET_LIB_VERSION, 7).pack()
ACTIVE = 64  # that have a call under way all the time
LEAST_S = 1.0
LONGEST_PAUSE_MS = 1000
LONGEST_DOOR_MS = 3000
DEADLINE_S = 60


class Talking:
    """Sessions that send their next call when they have their last reply."""

    def __init__(self, opened):
        self.poll = select.epoll()
        self.by_number = {sock.fileno(): sock for sock in opened}
        for sock in opened:
            self.poll.register(sock, select.EPOLLIN)
            sock.send(PING)

    def go_on(self, until):
        """Each session's longest wait for an answer, in ms, the shortest first."""
        began = time.perf_counter()
        last = dict.fromkeys(self.by_number, began)
        longest = dict.fromkeys(self.by_number, 0.0)
        while not until() or time.perf_counter() - began < LEAST_S:
            for number, _ in self.poll.poll(0.05):
                sock = self.by_number[number]
                assert sock.recv(4096), "a session was cut off"
                now = time.perf_counter()
                longest[number] = max(longest[number], now - last[number])
                last[number] = now
                sock.send(PING)
        now = time.perf_counter()
        return sorted(1e3 * max(longest[each], now - last[each]) for each in longest)


def told(gaps):
    if not gaps:
        return "none"
    at = [gaps[len(gaps) // 2], gaps[min(len(gaps) - 1, int(len(gaps) * 0.99))], gaps[-1]]
    return " ".join(
        f"{name} {each:.1f}" for name, each in zip(("p50", "p99", "max"), at, strict=True)
    )


@pytest.mark.parametrize(
    ("count", "active"),
    [
        pytest.param(0, 0, marks=pytest.mark.long),
        pytest.param(200, ACTIVE, marks=pytest.mark.long),
        (2000, ACTIVE),
        pytest.param(2000, 2000, marks=pytest.mark.long),
    ],
)
def test_the_pause_of_a_session(front, count, active, capsys):
    with upgrading(front) as upgraded, sessions(front, count) as opened, Traffic() as traffic:
        # Those at the beginning move first, those at the end last.
        talking = Talking(opened[:: max(1, count // active)][:active] if active else [])
        traffic.start("newcomers", sock=str(front.sock), sessions=1, by_tls=0, pause_s=0.002)
        traffic.opened()
        gc.disable()
        try:
            began = time.perf_counter()
            quiet = talking.go_on(lambda: time.perf_counter() - began > LEAST_S)
            old = upgraded.pid
            before = cpu_s(old), rss_kib(old)
            command = subprocess.Popen(
                upgraded.words("upgrade", "--json"),
                stdout=subprocess.PIPE,
                text=True,
                env=clean_environment(upgraded.environment),
            )
            moving = talking.go_on(lambda: command.poll() is not None)
        finally:
            gc.enable()
        done = json.loads(command.communicate(timeout=DEADLINE_S)[0])
        upgraded.took_over(done["pid"])
        spent = cpu_s(old) - before[0] if old in upgraded.processes else None
        peak = peak_kib(old) if old in upgraded.processes else None
        upgraded.gone(old)
        door = traffic.stop()["newcomers"]
        new = upgraded.pid
        with capsys.disabled():
            print(f"\n{count} sessions, {active} active: upgrade {done['seconds']:.2f} s")
            print(f"longest wait in ms: without {told(quiet)}; with {told(moving)}")
            print(f"a newcomer's longest visit: {door['longest_ms']} ms of {door['sessions']}")
            print(f"old: CPU {spent} s, RSS {before[1]} KiB, peak {peak} KiB")
            print(f"new: CPU {cpu_s(new):.2f} s, RSS {rss_kib(new)} KiB, peak {peak_kib(new)} KiB")
        assert done["moved"] >= count
        assert not door["faults"]
        assert door["longest_ms"] < LONGEST_DOOR_MS
        if active == ACTIVE:
            assert moving[-1] - quiet[-1] < LONGEST_PAUSE_MS
