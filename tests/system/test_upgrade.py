"""proxyd upgrade: another process takes over, and no client notices.

The daemon behind is libvirtd, the clients are virsh and frames by hand.
"""

import os
import signal

import pytest

from proxyd.wire.programs import Remote
from proxyd.wire.remote import OpenArguments
from tests.bed.daemon import accepts
from tests.bed.upgrading import upgrading
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient

URI = "test:///default"
CALLS = 50


def opened(where):
    client = RpcClient(where)
    client.call(Remote.AUTH_LIST)
    client.call(Remote.CONNECT_OPEN, OpenArguments(URI, 0).pack())
    return client


@pytest.fixture
def front(make_proxyd):
    """One that is upgraded."""
    with upgrading(make_proxyd({"log_level": 1}, service=True)) as made:
        yield made


def test_another_process_takes_over(front):
    before = front.pid
    done = front.upgrade()
    assert done["before"] == before
    assert (done["moved"], done["staying"]) == (0, 0)
    assert front.status()["pid"] == done["pid"] != before
    front.gone(before)
    assert front.proxyd.daemon.status == 0
    virsh(unix_uri(URI, front.proxyd.sock), "list --all").succeeded()


def test_a_session_goes_on_in_the_next_process(front):
    client = opened(front.proxyd.sock)
    number = front.clients()[0]["id"]
    for turn in range(3):
        for _ in range(CALLS):
            client.call(Remote.CONNECT_GET_LIB_VERSION)
        done = front.upgrade()
        assert (done["moved"], done["staying"]) == (1, 0)
        (told,) = front.clients()
        assert told["id"] == number
        assert told["calls"] == (turn + 1) * CALLS
        assert "process" not in told
    client.call(Remote.CONNECT_GET_LIB_VERSION)
    client.close()
    wait_until(lambda: not front.clients(), 10, "the session has ended")
    for pid in front.pids[:-1]:
        front.gone(pid)


def test_a_storm_of_signals_that_mean_an_upgrade_is_one_or_two(front):
    """Those that come while one is under way are none, and cost nobody anything."""
    client = opened(front.proxyd.sock)
    before = front.pid
    for _ in range(500):
        os.kill(before, signal.SIGUSR1)
        client.call(Remote.CONNECT_GET_LIB_VERSION)
    wait_until(lambda: front.named_pid() != before, 30, "another process serves")
    front.took_over(front.named_pid())
    front.gone(before)
    client.call(Remote.CONNECT_GET_LIB_VERSION)
    client.close()
    assert front.proxyd.log_text().count("not upgraded: an upgrade is under way") < 500
    assert "Traceback" not in front.proxyd.log_text()


@pytest.fixture
def foreground(make_proxyd):
    """One that somebody has started and watches: a shell, a supervisor, a container."""
    with upgrading(make_proxyd({"log_level": 1})) as made:
        yield made


def waits(front):
    """The first process has nothing to do any more."""
    return lambda: f"process {front.pid} is the daemon" in front.proxyd.log_text()


def test_whoever_watches_the_first_process_sees_the_end_of_the_daemon_and_no_other(foreground):
    watched = foreground.pid
    client = opened(foreground.proxyd.sock)
    for _ in range(3):
        foreground.upgrade()
        client.call(Remote.CONNECT_GET_LIB_VERSION)
    for pid in foreground.pids[1:-1]:
        foreground.gone(pid)
    assert foreground.processes == [watched, foreground.pid]
    client.close()
    os.kill(foreground.pid, signal.SIGTERM)
    assert foreground.proxyd.daemon.wait() == 0


def test_a_daemon_that_dies_is_seen_by_whoever_watches_the_first_process(foreground):
    foreground.upgrade()
    wait_until(waits(foreground), 10, "the first process waits")
    os.kill(foreground.pid, signal.SIGKILL)
    assert foreground.proxyd.daemon.wait() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_stops_the_process_that_he_has_started_stops_the_daemon(foreground, number):
    client = opened(foreground.proxyd.sock)
    for _ in range(2):
        foreground.upgrade()
    os.kill(foreground.pids[0], number)
    assert foreground.proxyd.daemon.wait() == 0
    foreground.gone(foreground.pid)
    assert not accepts(foreground.proxyd.sock)
    assert client.receive() is None
    client.close()


def test_what_the_first_process_is_told_the_daemon_does(foreground):
    first = foreground.pid
    foreground.upgrade()
    foreground.proxyd.configure({"max_clients": 77})
    os.kill(first, signal.SIGHUP)
    wait_until(
        lambda: foreground.status()["limits"]["max_clients"] == 77, 10, "the daemon has reloaded"
    )
    before = foreground.pid
    os.kill(first, signal.SIGUSR1)
    wait_until(lambda: foreground.named_pid() != before, 30, "the daemon was upgraded")
    foreground.took_over(foreground.named_pid())
    foreground.gone(before)


def test_a_daemon_that_nobody_needs_ends_for_whoever_watches_the_first_process(make_proxyd):
    with upgrading(make_proxyd(words=("-t", "2"))) as front:
        front.upgrade()
        assert front.proxyd.daemon.wait() == 0
        front.gone(front.pid)
