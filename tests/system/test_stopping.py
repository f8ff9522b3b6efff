"""How it stops: nobody new, calls under way finish, and whoever insists is obeyed at once."""

import json
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.command import held_open, run_to_end
from tests.bed.daemon import accepts, short_directory
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.fakes.prompt_daemon import HELD
from tests.system.rpc import opened, rpc_client

pytestmark = pytest.mark.system

URI = "test:///default"
AT_ONCE_S = 2.0
BIG = 64 << 20


class Holding:
    """A proxyd before a daemon that holds some calls back."""

    def __init__(self, front, daemon):
        self.front = front
        self.daemon = daemon

    def let_go(self):
        self.daemon.stdin.write("\n")
        self.daemon.stdin.flush()


@pytest.fixture
def holding(make_proxyd):
    with ExitStack() as stack:

        def make(**settings):
            directory = stack.enter_context(short_directory())
            path = directory / "prompt"
            command = [sys.executable, "-m", "tests.fakes.prompt_daemon", str(path)]
            daemon = stack.enter_context(held_open(command))
            wait_until(lambda: path.exists() and accepts(path), 10, "the daemon listens")
            settings["proxyd_routes"] = [f"test={path}"]
            return Holding(make_proxyd(settings, backend_dir=directory), daemon)

        yield make


def begin_held(client):
    client.send(client.frame(HELD))


def wait_for_calls(front, count):
    """Until so many calls have gone to the daemon: what has not, is not under way."""

    def seen():
        done = run_to_end(
            [sys.executable, "-m", "proxyd", "clients", "--json", "-s", str(front.directory)],
            deadline_s=30,
        )
        return sum(each["calls"] for each in json.loads(done.succeeded())) >= count

    wait_until(seen, 10, "the calls are under way")


def test_a_call_under_way_finishes_and_idle_sessions_go_at_once(holding):
    held = holding(proxyd_drain_timeout=30)
    front = held.front
    with opened(front.sock, URI) as busy, opened(front.sock, URI) as idle:
        begin_held(busy)
        wait_for_calls(front, 1)
        front.daemon.send(signal.SIGTERM)
        assert idle.ended()
        assert not select.select([busy.sock], [], [], 0.2)[0]

        status = run_to_end(
            [sys.executable, "-m", "proxyd", "status", "--json", "-s", str(front.directory)],
            deadline_s=30,
        )
        assert json.loads(status.stdout)["state"] == "draining"

        held.let_go()
        reply = busy.receive()
        assert (reply.header.procedure, reply.header.status) == (HELD, Status.OK)
        assert busy.ended()
    assert front.daemon.wait() == 0


def test_who_connects_while_it_drains_is_not_let_in(holding):
    held = holding(proxyd_drain_timeout=30)
    with opened(held.front.sock, URI) as busy, rpc_client(held.front.sock) as early:
        early.call(Remote.AUTH_LIST)
        begin_held(busy)
        wait_for_calls(held.front, 1)
        held.front.daemon.send(signal.SIGTERM)
        assert early.ended()  # it had not opened anything yet
        with rpc_client(held.front.sock) as late:
            late.send(late.frame(Remote.AUTH_LIST))
            assert not select.select([late.sock], [], [], 0.2)[0]
            held.let_go()
            assert busy.receive() is not None
            assert late.ended()
    assert held.front.daemon.wait() == 0


def test_calls_that_take_too_long_are_cut_off_and_counted(holding):
    held = holding(proxyd_drain_timeout=1)
    with opened(held.front.sock, URI) as busy:
        begin_held(busy)
        wait_for_calls(held.front, 1)
        began = time.monotonic()
        held.front.daemon.send(signal.SIGTERM)
        assert busy.ended()
        assert 0.9 < time.monotonic() - began < 1 + AT_ONCE_S
    assert held.front.daemon.wait() == 0
    assert "1 sessions were busy for 1 s longer (proxyd_drain_timeout)" in held.front.log_text()


def test_a_second_signal_ends_it_at_once(holding):
    held = holding(proxyd_drain_timeout=3600)
    with opened(held.front.sock, URI) as busy:
        begin_held(busy)
        wait_for_calls(held.front, 1)
        held.front.daemon.send(signal.SIGTERM)
        wait_until(lambda: "SIGTERM: stopping" in held.front.log_text(), 10, "it begins to stop")
        began = time.monotonic()
        held.front.daemon.send(signal.SIGTERM)
        assert busy.ended()
        assert held.front.daemon.wait() == 0
        assert time.monotonic() - began < AT_ONCE_S


def test_without_a_drain_timeout_it_ends_at_once(holding):
    held = holding(proxyd_drain_timeout=0)
    with opened(held.front.sock, URI) as busy:
        begin_held(busy)
        wait_for_calls(held.front, 1)
        began = time.monotonic()
        held.front.daemon.send(signal.SIGTERM)
        assert busy.ended()
        assert time.monotonic() - began < AT_ONCE_S
    assert held.front.daemon.wait() == 0


def test_clients_in_ping_pong_lose_no_call_that_was_passed_on(holding):
    """Each reply is there for whatever the daemon was given; then comes the end."""
    held = holding(proxyd_drain_timeout=30)
    with ExitStack() as stack:
        clients = [stack.enter_context(opened(held.front.sock, URI)) for _ in range(8)]
        poll = select.poll()
        by_number = {client.sock.fileno(): client for client in clients}
        for client in clients:
            poll.register(client.sock, select.POLLIN)
            client.send(client.frame(Remote.CONNECT_GET_LIB_VERSION))
        told = False
        replies = 0
        while by_number:
            for number, _ in poll.poll(10_000):
                client = by_number[number]
                frame = client.receive()
                if frame is None:
                    poll.unregister(number)
                    del by_number[number]
                    continue
                assert frame.header.serial == client.serial
                replies += 1
                if replies == 1000 and not told:
                    told = True
                    held.front.daemon.send(signal.SIGTERM)
                try:
                    client.send(client.frame(Remote.CONNECT_GET_LIB_VERSION))
                except (BrokenPipeError, ConnectionResetError):
                    poll.unregister(number)
                    del by_number[number]
    assert told
    assert held.front.daemon.wait() == 0
    ended = [line for line in held.front.log_text().splitlines() if " ended: " in line]
    # What went up came down: a session was never ended between a call and its reply.
    assert len(ended) == 8
    assert all("proxyd stopped" in line or "client" in line for line in ended)
    up = sum(remote_calls(line) for line in ended)
    assert up == replies


def remote_calls(line):
    return int(line.rsplit(" bytes down, ", 1)[1].split(" calls")[0])


def test_a_transfer_under_way_finishes(make_libvirtd, make_proxyd, tmp_path):
    backend = make_libvirtd()
    with (tmp_path / "big.img").open("wb") as file:
        file.truncate(BIG)
    uri = unix_uri("qemu:///system", backend.sock)
    virsh(uri, f"pool-define-as big dir --target {tmp_path}; pool-start big").succeeded()
    with short_directory() as directory:
        backend.serve_as(directory, "virtqemud", "virtstoraged")
        front = make_proxyd({"proxyd_drain_timeout": 60}, backend_dir=directory)
        command = ["virsh", "-c", unix_uri("qemu:///system", front.sock)]
        target = tmp_path / "got"
        with subprocess.Popen([*command, "vol-download", "big.img", str(target), "--pool", "big"]):
            wait_until(lambda: target.exists() and target.stat().st_size, 30, "it has begun")
            front.daemon.send(signal.SIGTERM)
            assert front.daemon.wait(60) == 0
        assert target.stat().st_size == BIG
