"""An ordinary user's proxyd: its own sockets, its own daemons started on demand, nobody else."""

import os
import signal
import stat
import sys
from contextlib import ExitStack

import pytest

from proxyd.wire.frame import Status
from tests.bed.command import held_open, run_to_end
from tests.bed.daemon import accepts, short_directory
from tests.bed.libvirtd import NO_BUS
from tests.bed.nobody import NOBODY, Nobody
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

# The old daemon has every driver. It has a run-time directory of its own, because in the user's its
# socket would be proxyd's.
WRAPPER = """#!/bin/sh
cd {directory}
echo $$ >>started
mkdir -p own/libvirt
ln -sf {directory}/own/libvirt/libvirt-sock "$XDG_RUNTIME_DIR/libvirt/virtqemud-sock"
export XDG_RUNTIME_DIR={directory}/own {bus}
exec /usr/sbin/libvirtd -f conf -p {directory}/pid "$@"
"""
CLIENTS = 10
OTHER = 65533


class Session:
    """A user's proxyd with nothing behind it yet."""

    def __init__(self, user):
        self.user = user
        self.sock = user.runtime / "libvirt-sock"
        self.log = user.directory / "proxyd.log"

    def start(self):
        environment = {
            **self.user.environment,
            "LIBVIRT_DEBUG": "2",
            "LIBVIRT_LOG_OUTPUTS": f"2:file:{self.log}",
        }
        return held_open([sys.executable, "-m", "proxyd"], user=NOBODY, environment=environment)

    def uri(self, name="qemu:///session"):
        return unix_uri(name, self.sock, mode="legacy")


@pytest.fixture
def session():
    with short_directory(0o755) as directory, ExitStack() as stack:
        user = Nobody(directory)
        user.settle()
        bus = " ".join(f"{name}={value}" for name, value in NO_BUS.items())
        (user.bin / "virtqemud").write_text(WRAPPER.format(directory=directory, bus=bus))
        stack.callback(user.stop_daemons)
        made = Session(user)
        stack.enter_context(made.start())
        wait_until(
            lambda: made.sock.exists() and accepts(made.sock), 15, "the user's proxyd listens"
        )
        yield made


def test_ten_clients_at_once_start_one_daemon(session):
    with ExitStack() as stack:
        command = ["virsh", "-q", "-c", session.uri(), "uri"]
        clients = [
            stack.enter_context(
                held_open(command, user=NOBODY, environment=session.user.environment)
            )
            for _ in range(CLIENTS)
        ]
        for each in clients:
            assert each.wait(40) == 0
    assert len(session.user.started()) == 1
    wait_until(lambda: "/virtqemud, pid" in session.log.read_text(), 10, "the log says so")


def test_a_user_has_a_socket_of_his_own_and_none_for_reading(session):
    mode = session.sock.stat()
    assert mode.st_uid == NOBODY
    assert stat.S_IMODE(mode.st_mode) == 0o700
    assert stat.S_IMODE(session.user.runtime.stat().st_mode) == 0o700
    assert not (session.user.runtime / "libvirt-sock-ro").exists()


def test_another_user_is_refused_whatever_the_permissions_say(session):
    for path in (session.user.runtime.parent, session.user.runtime, session.sock):
        path.chmod(0o777)
    # Killed by SIGPIPE if it was quicker to write than to see that it is not wanted.
    assert virsh(session.uri(), "uri", user=OTHER).status in {1, -signal.SIGPIPE}
    wait_until(
        lambda: f"this daemon serves only uid {NOBODY}" in session.log.read_text(), 10, "it says so"
    )
    assert virsh(session.uri(), "uri").status in {1, -signal.SIGPIPE}
    assert session.user.started() == []


def test_a_daemon_that_is_not_installed_is_told_with_what_to_install(session):
    refused = virsh(
        session.uri("network:///session"),
        "uri",
        user=NOBODY,
        environment=session.user.environment,
    )
    assert refused.status == 1
    assert "virtnetworkd" in refused.stderr
    assert "install" in refused.stderr
    assert os.listdir(session.user.bin) == ["virtqemud"]


def test_who_names_no_driver_gets_the_one_that_can_be_started(session):
    assert opened_without_a_name(session) == Status.OK
    assert len(session.user.started()) == 1


def opened_without_a_name(session):
    """virsh always has a name; a client that has none sends NULL."""
    program = f"""
from tests.system.rpc import rpc_client
with rpc_client({str(session.sock)!r}) as client:
    print(int(client.open(None).header.status))
"""
    environment = session.user.environment
    command = [sys.executable, "-c", program]
    done = run_to_end(command, deadline_s=30, user=NOBODY, environment=environment)
    return Status(int(done.succeeded()))
