"""A client that reads slowly keeps nobody waiting but itself, and loses nothing."""

import math
import sys
import time

import pytest

from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.command import held_open
from tests.bed.daemon import accepts, short_directory
from tests.bed.frozen import sockets_of, wait_until_still
from tests.bed.waiting import wait_until
from tests.system.rpc import opened

pytestmark = pytest.mark.system

WINDOW_S = 0.5
ALONE = 4  # windows
MOST_ADDED_NS = 2_000_000


@pytest.fixture
def front(make_proxyd):
    """A proxyd before a prompt daemon (test) and one that floods (qemu)."""
    with short_directory() as directory:
        prompt, flood = directory / "prompt", directory / "flood"
        with fake("prompt_daemon", prompt), fake("flood_daemon", flood):
            for path in (prompt, flood):
                wait_until(lambda path=path: path.exists() and accepts(path), 10, "it listens")
            yield make_proxyd(
                {
                    "proxyd_routes": [f"test={prompt}", f"qemu={flood}"],
                    "proxyd_parting_timeout": 2,  # the flood never ends by itself
                },
                backend_dir=directory,
            )


def fake(name, *arguments):
    return held_open([sys.executable, "-m", f"tests.fakes.{name}", *map(str, arguments)])


def p99_ns(client, seconds):
    """Of small calls, one after the other."""
    took = []
    until = time.perf_counter_ns() + int(seconds * 1e9)
    while (began := time.perf_counter_ns()) < until:
        assert client.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
        took.append(time.perf_counter_ns() - began)
    took.sort()
    return took[math.ceil(len(took) * 0.99) - 1]


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.long)])
def test_a_slow_reader_keeps_a_fast_client_waiting_no_longer(front, capsys, seconds):
    with opened(front.sock) as fast:
        sockets, threads = wait_until_still(front), front.threads()
        memory = front.rss_kib()
        alone = [p99_ns(fast, WINDOW_S) for _ in range(ALONE)]
        with fake("slow_reader", front.sock, "qemu:///system") as slow:
            wait_until(lambda: sockets_of(front) == sockets + 2, 10, "it reads")
            beside = [p99_ns(fast, WINDOW_S) for _ in range(int(seconds / WINDOW_S))]
            grown = front.rss_kib() - memory
            packets, _ = slow.communicate(timeout=10)
        assert slow.returncode == 0
        wait_until(lambda: sockets_of(front) == sockets, 10, "its session is over")
        assert front.threads() <= threads
    with capsys.disabled():
        shown = [[round(each / 1e3) for each in sorted(found)] for found in (alone, beside)]
        print(f"\np99 of a small call in us alone {shown[0]}, beside a slow reader {shown[1]}")
    assert int(packets) >= seconds
    assert grown < 4096
    # What the machine does besides is in some windows, what a slow reader costs in all of them.
    assert min(beside) <= 2 * min(alone) + MOST_ADDED_NS
    assert "Traceback" not in front.log_text()
