"""Thousands of sessions: the one that works is as quick beside them, and none leaves a trace."""

import gc
import statistics
import time

import pytest

from proxyd.wire import remote
from proxyd.wire.programs import Remote
from proxyd.wire.remote import OpenArguments
from tests.bed.thousands import URI, front, room, sessions
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, opened

__all__ = ["front", "room"]

pytestmark = pytest.mark.system

CALLS = 300
ROUNDS = 7
SESSIONS = 2000
LONG_SESSIONS = 10_000
GROWTH_KIB = 1024


def p50_ns(*clients):
    """Of each client's calls, taken in turns, so that all see the same machine."""
    found = [[] for _ in clients]
    gc.disable()
    try:
        for _ in range(CALLS):
            for client, taken in zip(clients, found, strict=True):
                began = time.perf_counter_ns()
                client.call(Remote.CONNECT_GET_LIB_VERSION)
                taken.append(time.perf_counter_ns() - began)
    finally:
        gc.enable()
    return [statistics.median(taken) for taken in found]


@pytest.mark.parametrize("idle", [2000, pytest.param(5000, marks=pytest.mark.long)])
def test_an_active_session_is_as_quick_beside_thousands_of_idle_ones(
    front, make_proxyd, idle, capsys
):
    """What a proxy adds to the direct call, with idle sessions and without, asked in turns."""
    prompt = front.backend_dir / "prompt"
    other = make_proxyd({"proxyd_routes": [f"test={prompt}"]}, backend_dir=front.backend_dir)
    with (
        opened(prompt, URI) as direct,
        opened(other.sock, URI) as alone,
        sessions(front, idle),
        opened(front.sock, URI) as beside,
    ):
        rounds = [p50_ns(direct, alone, beside) for _ in range(ROUNDS)]
    added_alone = statistics.median(mine - straight for straight, mine, _ in rounds)
    added_beside = statistics.median(mine - straight for straight, _, mine in rounds)
    with capsys.disabled():
        us = [f"{each / 1e3:.1f}" for each in (added_alone, added_beside)]
        print(f"\nadded p50 in us: {us[0]} alone, {us[1]} beside {idle} idle sessions")
    assert added_beside < 1.5 * added_alone


def churn(front, count):
    calls = (
        remote.call(Remote.AUTH_LIST, 0),
        remote.call(Remote.CONNECT_OPEN, 1, OpenArguments(URI, 0).pack()),
        remote.call(Remote.CONNECT_CLOSE, 2),
    )
    for _ in range(count):
        client = RpcClient(front.sock)
        for call in calls:
            client.send(call.pack())
            assert client.receive() is not None
        client.close()


@pytest.mark.parametrize("count", [SESSIONS, pytest.param(LONG_SESSIONS, marks=pytest.mark.long)])
def test_sessions_opened_and_closed_leave_nothing(front, count, capsys):
    """From the second thousand on: the first one fills what is kept by intent."""
    first = min(1000, count // 2)
    start = len(front.descriptors())
    churn(front, first)
    wait_until(lambda: len(front.descriptors()) <= start, 30, "the first ones are gone")
    before = front.rss_kib()
    churn(front, count - first)
    wait_until(lambda: len(front.descriptors()) <= start, 30, "all sessions are gone")
    after = front.rss_kib()
    with capsys.disabled():
        print(f"\n{count} sessions: {start} descriptors, {before} KiB, in the end {after} KiB")
    assert after - before < GROWTH_KIB
