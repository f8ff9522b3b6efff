"""The hostile user of the bed: what it can do is real, and nothing of it is left."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from tests.bed.daemon import short_directory, status_field
from tests.bed.hostile import DAEMON, NOBODY, Ended, family, fuse_device, hostile, is_alive, members
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

WAITS_S = 0.3


@pytest.fixture(scope="module")
def device():
    with short_directory(0o755) as directory:
        path = fuse_device(directory)
        assert path, "this machine has no /dev/fuse that root may copy"
        yield path


@pytest.mark.parametrize("user", [NOBODY, DAEMON])
def test_a_script_is_somebody_else_and_is_talked_with(user):
    script = "from hostile_kit import *\nsay(os.getuid()); get_ready(); say(hear() + 1)"
    with hostile(script, user=user) as stranger:
        assert stranger.hear() == user
        assert status_field(stranger.pid, "Uid") == user
        assert stranger.hear() == "ready"
        stranger.go()
        stranger.say(41)
        assert stranger.hear() == 42


def test_a_script_that_fails_says_why():
    with hostile("raise SystemExit('as it should')") as stranger, pytest.raises(Ended) as caught:
        stranger.hear()
    assert "as it should" in str(caught.value)


def test_a_script_that_says_nothing_is_not_waited_for():
    with hostile("input()") as stranger, pytest.raises(TimeoutError):
        stranger.hear(deadline_s=0.1)


def test_its_children_go_with_it():
    script = "from hostile_kit import *\nos.fork(); os.fork(); say(os.getpid()); hear()"
    with hostile(script) as stranger:
        pids = {stranger.hear() for _ in range(4)}
        assert set(members(stranger.pid)) == pids
        assert set(family(stranger.pid)) == pids
    assert not members(stranger.pid)
    assert not stranger.directory.exists()


def test_it_can_be_stopped_and_go_on():
    with hostile("from hostile_kit import *\nget_ready(); say('went')") as stranger:
        assert stranger.hear() == "ready"
        stranger.pause()
        stranger.go()
        with pytest.raises(TimeoutError):
            stranger.hear(deadline_s=0.1)
        stranger.resume()
        assert stranger.hear() == "went"


LIMITED = "import resource\nfrom hostile_kit import *\nsay(resource.getrlimit(7))"


def test_it_may_have_few_descriptors():
    with hostile(LIMITED, nofile=24) as stranger:
        assert stranger.hear() == [24, 24]


ON_A_PAIR = """
import fuse
from hostile_kit import *
near = socket.socket(fileno=int(sys.argv[1]))
{act}
say("passed")
hear()
"""


def test_a_message_carries_as_many_descriptors_as_the_kernel_lets_it():
    ours, theirs = socket.socketpair()
    script = ON_A_PAIR.format(act="send_descriptors(near, handful())")
    with (
        ours,
        theirs,
        hostile(script, str(theirs.fileno()), pass_fds=[theirs.fileno()]) as stranger,
    ):
        assert stranger.hear() == "passed"
        content, descriptors, _, _ = socket.recv_fds(ours, 1, 1000)
        assert content == b"\0"
        assert len(descriptors) == 253
        for each in descriptors:
            os.close(each)


# What is done with the descriptor that came, in a process that may be stuck over it.
RECEIVED = "import os, socket, sys\nsock = socket.socket(fileno=int(sys.argv[1]))\n{act}"
CLOSE = "content, [got], _, _ = socket.recv_fds(sock, 1, 1)\nos.close(got)"
NO_ROOM = "sock.recv(1)"
ASK = "content, [got], _, _ = socket.recv_fds(sock, 1, 1)\nsocket.socket(fileno=got)"
FLUSHES = "system = fuse.FileSystem(sys.argv[2], os.getcwd() + '/mnt', {fuse.FLUSH})\n"
WRITES = "system = fuse.FileSystem(sys.argv[2], os.getcwd() + '/mnt', writeback=True)\n"


@pytest.mark.parametrize(
    ("act", "received"),
    [
        pytest.param(
            FLUSHES + "send_descriptors(near, [system.open()])", CLOSE, id="its close, by flush"
        ),
        pytest.param(
            WRITES + "kept = system.send_dirty(near)", NO_ROOM, id="a receive without room"
        ),
        pytest.param(
            FLUSHES
            + "kept, sock = system.locked_socket()\nsend_descriptors(near, [sock.fileno()])",
            ASK,
            id="a question about a socket whose lock is held",
        ),
        pytest.param(
            "reader, sock = lingering()\nsend_descriptors(near, [sock.fileno()])\nsock.close()",
            CLOSE,
            id="the close of a lingering socket",
        ),
        pytest.param(
            "reader, sock = lingering()\nsend_descriptors(near, [sock.fileno()])\nsock.close()",
            NO_ROOM,
            id="a receive without room of a lingering socket",
        ),
    ],
)
def test_what_it_passes_makes_its_receiver_wait_until_it_has_gone(act, received, device):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        script = ON_A_PAIR.format(act=act)
        number = theirs.fileno()
        with hostile(script, str(number), device, pass_fds=[number]) as stranger:
            assert stranger.hear() == "passed"
            command = [sys.executable, "-c", RECEIVED.format(act=received), str(ours.fileno())]
            victim = subprocess.Popen(command, pass_fds=[ours.fileno()])
            try:
                victim.wait(1 + WAITS_S)
                waited = False
            except subprocess.TimeoutExpired:
                waited = True
        if "linger" in act:  # it waits for nobody's process, and can be interrupted
            victim.kill()
        victim.wait(10)
        assert waited


KILLED = """
import signal, sys
from tests.bed.hostile import hostile
with hostile(sys.argv[1], sys.argv[2]) as stranger:
    server = stranger.hear()
    stranger.pause()
    print(stranger.directory, stranger.pid, server, flush=True)
    signal.pause()
"""
SERVES = """
import fuse
from hostile_kit import *
system = fuse.FileSystem(sys.argv[1], os.getcwd() + "/mnt", {fuse.FLUSH})
kept = system.open()
say(system.pid)
hear()
"""


def test_a_stopped_script_and_its_file_system_go_with_a_test_that_was_killed(device):
    command = [sys.executable, "-c", KILLED, SERVES, device]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        directory, *pids = killed.stdout.readline().split()
        killed.kill()
    wait_until(lambda: not any(is_alive(int(pid)) for pid in pids), 10, "all of it has gone")
    shutil.rmtree(directory)
