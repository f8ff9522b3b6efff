"""An ordinary user's libvirtd, started on demand in the place of virtqemud, by proxyd and virsh."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bed.daemon import accepts, short_directory, status_field
from tests.bed.nobody import DEADLINE_S, NOBODY, Nobody
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system


def capabilities(pid, kind):
    """A process's set of capabilities, as a bit mask."""
    (line,) = (
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if kind in line
    )
    return int(line.split()[1], 16)


def waits_for_a_lock(pid):
    """Whether the kernel has it in a queue behind the owner of a lock."""
    waiting = [
        line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line
    ]
    return any(str(pid) in fields for fields in waiting)


def opened(process):
    """How many sessions of that process opened the daemon; asserts that it came to its end."""
    told = process.stdout.read().split()
    assert told[-1:] == ["done"], told
    return told.count("opened")


@pytest.fixture
def nobody():
    with short_directory() as directory:
        made = Nobody(directory)
        made.settle()
        yield made
        made.stop_daemons()


def test_ten_sessions_start_one_daemon_and_open_it(nobody):
    with nobody.sessions() as sessions:
        assert opened(sessions) == 10

    (pid,) = nobody.started()
    assert accepts(nobody.socket)
    assert status_field(pid, "Uid") == NOBODY
    assert b"--timeout=120" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert not nobody.lock.exists()


def test_a_daemon_has_no_capability_of_proxyds(nobody):
    with nobody.privileged_sessions() as sessions:
        assert sessions.stdout.readline() == "asking\n"
        assert capabilities(sessions.pid, "CapAmb") != 0
        assert opened(sessions) == 10
    (pid,) = nobody.started()
    assert {capabilities(pid, kind) for kind in ("CapAmb", "CapPrm", "CapEff")} == {0}


def test_sessions_and_virsh_at_one_time_start_one_daemon(nobody):
    with ExitStack() as running:
        sessions = [running.enter_context(nobody.sessions()) for _ in range(2)]
        clients = [running.enter_context(nobody.virsh()) for _ in range(3)]
        assert [opened(each) for each in sessions] == [10, 10]
        answers = [each.stdout.read().strip() for each in clients]
    assert answers == ["qemu:///session?mode=direct"] * 3
    assert len(nobody.started()) == 1


def test_virsh_waits_for_a_daemon_that_proxyd_starts(nobody):
    nobody.hold_up_daemons()
    with nobody.sessions() as sessions:
        wait_until(nobody.started, DEADLINE_S, "proxyd has started a daemon")
        with nobody.virsh() as client:
            wait_until(lambda: waits_for_a_lock(client.pid), DEADLINE_S, "virsh waits")
            nobody.go()
            assert client.stdout.read().strip().startswith("qemu:///session")
        assert opened(sessions) == 10
    assert len(nobody.started()) == 1


def test_proxyd_waits_for_a_daemon_that_virsh_starts(nobody):
    nobody.hold_up_daemons()
    with nobody.virsh() as client:
        wait_until(nobody.started, DEADLINE_S, "virsh has started a daemon")
        with nobody.sessions() as sessions:
            assert sessions.stdout.readline() == "asking\n"
            nobody.go()
            assert opened(sessions) == 10
        assert client.stdout.read().strip().startswith("qemu:///session")
    assert len(nobody.started()) == 1
