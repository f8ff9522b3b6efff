"""A client cannot tell proxyd from the daemon itself: real virsh, both ways, compared in full.

How long each command takes is part of it.
"""

import select

import pytest

from tests.bed.side_by_side import Way
from tests.bed.virsh import held_virsh, unix_uri, virsh
from tests.bed.virsh_commands import QEMU_COMMANDS, TEST_COMMANDS, files
from tests.bed.waiting import wait_until
from tests.system.daemon_clients import clients_of

__all__ = ["files"]

pytestmark = pytest.mark.system


@pytest.mark.parametrize("command", TEST_COMMANDS)
def test_virsh_says_the_same_of_the_test_driver(command, qemu_backend, proxyd, files, side_by_side):
    direct = qemu_backend.unix_way("test:///default")
    through = Way(unix_uri("test:///default", proxyd.sock))

    side_by_side.virsh(direct, [through], command.format(dir=files))


@pytest.mark.parametrize("command", QEMU_COMMANDS)
def test_virsh_says_the_same_of_qemu(command, qemu_backend, proxyd, files, side_by_side):
    direct = qemu_backend.unix_way("qemu:///system")
    through = Way(unix_uri("qemu:///system", proxyd.sock))

    side_by_side.virsh(direct, [through], command.format(dir=files))


@pytest.mark.parametrize(
    ("command", "works"),
    [
        ("list --all", True),
        ("dumpxml test", True),
        ("net-list --all", True),
        ("pool-list --all", True),
        ("capabilities", True),
        ("event test lifecycle --timeout 1", True),
        ("destroy test", False),
        ("define {dir}/test.xml", False),
        ("net-destroy default", False),
        ("dumpxml --security-info test", False),
        ("autostart test", False),
    ],
)
def test_virsh_r_reads_and_is_refused_writes_alike(
    command, works, qemu_backend, proxyd, files, side_by_side
):
    direct = Way(unix_uri("test:///default", qemu_backend.sock_ro))
    through = Way(unix_uri("test:///default", proxyd.sock_ro))

    proxied = side_by_side.virsh(direct, [through], "--readonly", command.format(dir=files))

    assert ("operation forbidden" not in proxied.stderr) is works


def test_a_client_that_does_not_ask_for_read_only_gets_it_at_the_read_only_socket(proxyd):
    written = virsh(unix_uri("test:///default", proxyd.sock_ro), "destroy test")

    assert "operation forbidden: read only access prevents" in written.stderr


def test_events_arrive_as_they_do_directly(qemu_backend, proxyd, side_by_side):
    seen = side_by_side.of(
        "events",
        lambda: events_seen(qemu_backend.sock, qemu_backend),
        lambda: events_seen(proxyd.sock, qemu_backend),
    )

    assert [line for line in seen if "lifecycle" in line]


def events_seen(sock, backend):
    """What `virsh event` prints while somebody else stops and starts a domain."""
    uri = unix_uri("test:///default", sock)
    with held_virsh(
        uri, "event", "test", "--event", "lifecycle", "--loop", "--timeout", "20"
    ) as seen:
        wait_until(lambda: clients_of(backend), 10, "the listener is connected")
        # The listener may be connected and not registered yet, so the first events can be missed:
        # the same commands follow until it has seen a whole round.
        lines = []
        for _ in range(50):
            virsh(
                unix_uri("test:///default", backend.sock), "suspend test; resume test"
            ).succeeded()
            lines = read_available(seen, lines)
            if sum("Resumed" in line for line in lines) >= 2:
                break
        first = next(n for n, line in enumerate(lines) if "Suspended" in line)
        return lines[first : first + 2]


def read_available(process, lines):
    while select.select([process.stdout], [], [], 0.1)[0] and (line := process.stdout.readline()):
        lines = [*lines, line]
    return lines
