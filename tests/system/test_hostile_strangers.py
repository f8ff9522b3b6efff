"""Who has not opened anything yet, or is being opened, holds up nobody by what he sends."""

import sys
from contextlib import ExitStack

import pytest

from tests.bed.command import held_open
from tests.bed.daemon import accepts, short_directory
from tests.bed.passrights import ON_AN_OLDER_KERNEL, PASSRIGHTS
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

MOSTLY_OLDER = [
    pytest.param(True, id="passrights", marks=pytest.mark.long),
    pytest.param(ON_AN_OLDER_KERNEL, id="an older kernel"),
]

# Six of them, one byte a message with all the descriptors that it can carry, of a frame as long as
# a stranger's may be. When it has come there is an answer, and another one begins.
PELTS = """
from hostile_kit import *
directory, name = sys.argv[1:]
passed = handful()
stream = frame(AUTH_LIST, bytes(16000), program=int(name.endswith("admin-sock")) or REMOTE)
crowd = Crowd(6, lambda: connected(f"{directory}/{name}"))
get_ready()
while True:
    crowd.each(lambda peer: peer.send_byte_of(stream, passed))
    crowd.drain()
"""


@pytest.mark.parametrize("passrights", PASSRIGHTS)
@pytest.mark.parametrize(
    "name", ["libvirt-sock-ro", pytest.param("libvirt-sock", marks=pytest.mark.long)]
)
def test_descriptors_on_each_byte_of_a_stranger_are_not_felt(make_scene, endures, name, passrights):
    endures(make_scene(passrights=passrights), PELTS, name)


# On an older kernel root's own clients cost others 2 ms of p99 here, which is what is allowed.
@pytest.mark.parametrize(
    "passrights",
    [
        pytest.param(True, id="passrights"),
        pytest.param(ON_AN_OLDER_KERNEL, id="an older kernel", marks=pytest.mark.long),
    ],
)
def test_descriptors_on_each_byte_at_the_admin_socket_are_not_felt(make_scene, endures, passrights):
    endures(make_scene(passrights=passrights), PELTS, "libvirt-admin-sock", user=0)


# Six of them again: each opens what is never open, and gives up after a while to try again.
OPENS = """
import time
from hostile_kit import *
directory = sys.argv[1]
def begin():
    sock = connected(f"{directory}/libvirt-sock-ro")
    sock.sendall(
        frame(AUTH_LIST) + frame(CONNECT_OPEN, opening("lxc:///system", READONLY), serial=1)
    )
    return sock
get_ready()
crowd = Crowd(6, begin)
while True:
    select.select([peer.sock for peer in crowd.peers], [], [], 0.2)
    crowd.drain()
"""


@pytest.fixture
def pelting():
    """Starts a daemon that pelts; the path of its socket."""
    with ExitStack() as stack:

        def pelting(what):
            path = stack.enter_context(short_directory()) / "pelting"
            command = [sys.executable, "-m", "tests.fakes.pelting_daemon", str(path), what]
            stack.enter_context(held_open(command))
            wait_until(lambda: path.exists() and accepts(path), 10, "the daemon listens")
            return path

        yield pelting


@pytest.mark.parametrize("passrights", MOSTLY_OLDER)
def test_descriptors_of_a_daemon_that_is_being_opened_are_not_felt(
    make_scene, endures, pelting, passrights
):
    made = make_scene(hostile_daemon=pelting("descriptors"), passrights=passrights)
    endures(made, OPENS)


def test_events_of_a_daemon_that_is_being_opened_are_not_felt(make_scene, endures, pelting):
    endures(make_scene(hostile_daemon=pelting("events")), OPENS)
