"""A host is taken out of service: real virsh is turned away, and whoever is there goes on."""

import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest

from proxyd.wire import failure, remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.command import clean_environment, held_open, run_to_end
from tests.bed.hostile import cpu_ticks
from tests.bed.pki import Pki
from tests.bed.prometheus import fetch
from tests.bed.proxyd_log import log_line, reload
from tests.bed.virsh import held_virsh, tls_uri, unix_uri, virsh, virt_admin
from tests.bed.volumes import digest, pool, received, start_download
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, opened, rpc_client
from tests.system.test_metrics import metrics_address, samples
from tests.system.tls_client import (
    LET_IN,
    client_context,
    connected,
    opened_over_tls,
    tls_connected,
)

__all__ = ["pool"]

pytestmark = pytest.mark.system

URI = "test:///default"
TOLD = failure.draining().message
NOBODY = 65534
KNOCKS = 2000
LIB_VERSION = Remote.CONNECT_GET_LIB_VERSION


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def joe(pki):
    return pki.client(("CN", "joe"))


@pytest.fixture
def front(make_proxyd, pki, tmp_path):
    """With every kind of listener for clients, an audit and metrics."""
    return make_proxyd(
        {
            "listen_tcp": 1,
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tcp_port": "0",
            "tls_port": "0",
            "auth_tcp": "none",
            "unix_sock_rw_perms": "0777",
            "proxyd_audit_output": f"file:{tmp_path}/audit",
            "proxyd_metrics_listen": "127.0.0.1:0",
            **pki.settings(pki.server()),
        },
        mode=0o711,
    )


def asked(front, *words, user=None):
    command = [sys.executable, "-m", "proxyd", *words, "-s", str(front.admin_sock)]
    return run_to_end(command, deadline_s=60, user=user)


def drain(front, *words):
    return asked(front, "drain", *words)


def begin(front):
    """Whatever is left."""
    done = drain(front, "--wait", "0")
    assert done.stdout.startswith("nobody new is let in from now on; "), done


def state(front):
    return json.loads(asked(front, "status", "--json").stdout)


def works(client):
    reply = client.call(LIB_VERSION)
    return reply is not None and reply.header.status == Status.OK


def told_of_it(client):
    """What its first call is answered with, and that nothing follows."""
    reply = client.call(Remote.AUTH_LIST)
    assert reply is not None, "closed without a word"
    assert reply.header.status == Status.ERROR
    return Failure.unpack(reply.payload).message == TOLD and client.ended()


def ways_in(front, joe):
    """Each listener for clients, as virsh's URI and its flags."""
    return {
        "unix": (unix_uri(URI, front.sock), {}),
        "unix-ro": (unix_uri(URI, front.sock_ro), {"readonly": True}),
        "tcp": (f"test+tcp://{front.tcp_address()}/default", {}),
        "tls": (tls_uri(URI, front.tls_address(), joe), {}),
    }


@contextmanager
def draining(front, *words):
    """The command while it waits, as a script has it: no terminal."""
    # Whoever runs the tests may have Ctrl-C ignored.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "proxyd"]
    command += ["drain", *words, "-s", str(front.admin_sock)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# Who comes


def test_virsh_is_turned_away_with_the_reason_by_every_way_in_until_it_is_undone(front, joe):
    ways = ways_in(front, joe)
    for uri, flags in ways.values():
        assert virsh(uri, "uri", **flags).succeeded().startswith("test+")

    done = drain(front)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == ["nobody is left"]

    for way, (uri, flags) in ways.items():
        for _ in range(3):
            refused = virsh(uri, "uri", **flags)
            assert (way, refused.turned_away) == (way, True)
            assert (way, TOLD in refused.stderr) == (way, True), refused

    undone = drain(front, "--undo")
    assert (undone.status, undone.stdout) == (0, "clients are let in again\n")
    for uri, flags in ways.values():
        assert virsh(uri, "uri", **flags).succeeded().startswith("test+")
    assert "Traceback" not in front.log_text()


def test_administrators_come_in_as_ever(front):
    begin(front)
    assert "virtproxyd" in virt_admin(front.admin_sock, "server-list").succeeded()
    assert asked(front, "clients", "--json").succeeded() == "[]\n"


def test_a_client_of_the_network_that_came_before_and_spoke_after_is_told(front):
    with connected(front.tcp_address()) as sock:
        wait_until(lambda: state(front)["limits"]["silent"] == 1, 10, "it stands there")
        begin(front)
        assert told_of_it(RpcClient(sock))


def test_who_stands_at_the_doorstep_when_it_begins_is_told_and_who_is_in_goes_on(make_proxyd):
    front = make_proxyd(
        {"max_clients": 4, "max_anonymous_clients": 4, "unix_sock_rw_perms": "0777"}, mode=0o711
    )
    wait_until(lambda: "client 1 ended" in front.log_text(), 10, "the bed's client is gone")
    with ExitStack() as stack:
        here = [stack.enter_context(opened(front.sock, user=NOBODY)) for _ in range(4)]
        standing = stack.enter_context(rpc_client(front.sock, user=NOBODY))
        standing.send(standing.frame(Remote.AUTH_LIST))
        wait_until(lambda: state(front)["limits"]["waiting"] == 1, 10, "it waits for a place")
        begin(front)
        reply = standing.receive()
        assert Failure.unpack(reply.payload).message == TOLD
        assert standing.ended()
        assert all(map(works, here))
        with rpc_client(front.sock, user=NOBODY) as another:  # all places are taken
            assert told_of_it(another)


def test_who_is_negotiating_when_it_begins_is_here_and_may_open(front):
    with rpc_client(front.sock) as early:
        assert early.call(Remote.AUTH_LIST).header.status == Status.OK
        begin(front)
        assert state(front)["drain"]["negotiating"] == 1
        assert early.open(URI).header.status == Status.OK
        assert works(early)
        done = drain(front, "--wait", "0")
        assert "1 session left after 0 s: " in done.stderr


def test_a_tls_client_that_breaks_off_leaves_nothing(front, joe):
    begin(front)
    before = len(front.descriptors())
    for words in (b"", b"\x16\x03\x01", b"\0" * 64):
        with connected(front.tls_address()) as sock:
            sock.sendall(words)
    with tls_connected(front.tls_address(), joe) as sock:
        assert sock.recv(1) == LET_IN
    wait_until(lambda: len(front.descriptors()) <= before, 10, "descriptors are as before")
    with tls_connected(front.tls_address(), joe) as sock:
        assert sock.recv(1) == LET_IN
        assert told_of_it(RpcClient(sock))
    assert "Traceback" not in front.log_text()


# Who is here


def test_sessions_that_are_open_go_on_with_events_and_streams(
    make_proxyd, pool, qemu_backend, backend_dir, pki, joe
):
    front = make_proxyd(
        {
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tls_port": "0",
            **pki.settings(pki.server()),
        }
    )
    with ExitStack() as stack:
        events = stack.enter_context(
            held_virsh(unix_uri(URI, front.sock), "event", "--event", "lifecycle", "--loop")
        )
        actor = stack.enter_context(held_virsh(unix_uri(URI, front.sock)))
        by_tls = stack.enter_context(opened_over_tls(front.tls_address(), joe))
        stream = stack.enter_context(opened(front.sock, "qemu:///system"))
        start_download(stream)
        wait_until(lambda: state(front)["relay"]["sessions"] == 4, 10, "all are open")
        assert drain(front, "--wait", "0").status == 1
        with rpc_client(front.sock) as late:
            assert told_of_it(late)

        assert received(stream) == digest(pool / "source.img")
        assert works(by_tls)
        actor.stdin.write("suspend test\nresume test\n")
        actor.stdin.flush()
        assert "Suspended" in events.stdout.readline()
        assert "Resumed" in events.stdout.readline()


def test_a_second_command_says_that_it_is_so_already_and_the_last_session_ends_it(front):
    with opened(front.sock) as one:
        assert drain(front, "--wait", "0").status == 1
        with draining(front) as waiting:
            assert waiting.stdout.readline().startswith("nobody new is let in already, for ")
            assert waiting.stdout.readline() == "1 session left\n"
            one.close()
            said, complaints = waiting.communicate(timeout=30)
        assert (waiting.returncode, said, complaints) == (0, "nobody is left\n", "")
    log_line(front, "draining: the last client has gone, nobody is left")


def test_what_is_left_after_the_time_is_status_1_with_what_to_do(front):
    with opened(front.sock), opened(front.sock_ro):
        began = time.monotonic()
        done = drain(front, "--wait", "1")
        assert 1 <= time.monotonic() - began < 10
        assert done.status == 1
        assert "2 sessions left after 1 s: " in done.stderr
        named = f"--socket {front.admin_sock}"
        for command in (f"clients {named}", f"kick {named} ID", f"drain {named}"):
            assert f"{command}`" in done.stderr
        assert f"drain {named} --undo`" in done.stderr
        by_machine = drain(front, "--json", "--wait", "0")
        assert json.loads(by_machine.stdout) == {"draining": True, "changed": False, "left": 2}
        assert by_machine.status == 1


def test_ctrl_c_leaves_it_in_force_and_says_so(front):
    with opened(front.sock), draining(front) as waiting:
        assert "nobody new" in waiting.stdout.readline()
        assert waiting.stdout.readline() == "1 session left\n"
        waiting.send_signal(signal.SIGINT)
        _, complaints = waiting.communicate(timeout=30)
        assert waiting.returncode == 1
        assert "the drain stays in force, 1 session left: " in complaints
        assert state(front)["state"] == "draining"


def test_somebody_else_ends_it_while_it_is_waited_for(front):
    with opened(front.sock), draining(front) as waiting:
        assert "nobody new" in waiting.stdout.readline()
        assert drain(front, "--undo", "--json").stdout == '{"draining": false, "changed": true}\n'
        _, complaints = waiting.communicate(timeout=30)
        assert (waiting.returncode, "somebody has ended the drain" in complaints) == (1, True)


def test_sigterm_ends_the_daemon_as_ever_and_whoever_waits_hears_of_it(front):
    with opened(front.sock), draining(front) as waiting:
        assert "nobody new" in waiting.stdout.readline()
        front.daemon.send(signal.SIGTERM)
        assert front.daemon.wait() == 0
        _, complaints = waiting.communicate(timeout=30)
        assert waiting.returncode == 1
        assert "the daemon is gone while it was waited for, 1 session left: " in complaints


def test_a_terminal_shows_one_line_that_changes(front):
    command = f"{sys.executable} -m proxyd drain -s {front.admin_sock}"
    with ExitStack() as stack:
        both = [stack.enter_context(opened(front.sock)) for _ in range(2)]
        shown = stack.enter_context(held_open(["script", "-qec", command, "/dev/null"]))
        assert "nobody new" in shown.stdout.readline()
        seen = ""
        for expected, leaves in zip(("2 sessions left", "1 session left"), both, strict=True):
            while not seen.endswith(expected):
                got = shown.stdout.read(1)
                assert got, seen
                seen += got
            leaves.close()
        assert "nobody is left" in shown.stdout.read()
        # A carriage return is read as the end of a line.
        assert seen == "\n\x1b[K2 sessions left\n\x1b[K1 session left"


# How it is told of


def test_it_is_seen_everywhere_that_it_drains(front, tmp_path):
    readyz = f"http://{metrics_address(front)}/readyz"
    assert fetch(readyz) == "ok\n"
    with opened(front.sock):
        begin(front)
        status = asked(front, "status", "--no-probe")
        assert status.status == 1
        assert "draining for " in status.stdout
        assert "nobody new is let in, 1 session left: " in status.stdout
        found = state(front)
        assert (found["state"], found["drain"]["left"]) == ("draining", 1)
        assert found["verdict"]["name"] == "WARNING"
        assert "nobody new is let in, 1 session left" in asked(front, "clients").stdout
        with rpc_client(front.sock) as late:
            assert told_of_it(late)
    log_line(front, "the last client has gone")
    shown = samples(fetch(f"http://{metrics_address(front)}/metrics"))
    assert shown["proxyd_draining",] == 1
    assert shown["proxyd_refusals_total", "draining"] == 1
    assert shown["proxyd_refusals_total", "no_place"] == 0
    assert drain(front, "--undo").status == 0
    assert drain(front, "--undo").stdout == "it was not draining: clients are let in as before\n"
    assert fetch(readyz) == "ok\n"
    assert "drain" not in state(front)

    text = front.log_text()
    assert text.count("draining: nobody new is let in any more") == 1
    assert text.count("draining no more, after ") == 1
    assert text.count("the last client has gone") == 1
    records = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    drains = [each for each in records if each["event"] == "drain"]
    assert [each["reason"] for each in drains] == [
        "nobody new is let in",
        "everybody is let in",
        "everybody is let in",
    ]
    assert {(each["by_uid"], each["outcome"]) for each in drains} == {(0, "ok")}
    denied = [each for each in records if each["event"] == "session_denied"]
    assert [each["reason"] for each in denied] == [TOLD]


def test_a_reload_does_not_end_it_and_a_start_does(front):
    begin(front)
    reload(front)
    with rpc_client(front.sock) as late:
        assert told_of_it(late)
    front.stop()
    front.start()
    with opened(front.sock) as client:
        assert works(client)
    assert state(front)["state"] == "serving"


def test_nobody_but_its_owner_may(front):
    refused = asked(front, "drain", user=NOBODY)
    assert refused.status == 1
    assert state(front)["state"] == "serving"


def test_a_users_own_daemon_is_drained_by_that_user(make_proxyd):
    front = make_proxyd(mode=0o711, user=NOBODY)
    assert asked(front, "drain", user=NOBODY).status == 0
    with rpc_client(front.sock, user=NOBODY) as late:
        assert told_of_it(late)
    assert asked(front, "drain", "--undo", user=NOBODY).status == 0
    with rpc_client(front.sock, user=NOBODY) as client:
        assert client.call(Remote.AUTH_LIST).header.status == Status.OK


@pytest.mark.parametrize(
    "words",
    [("--wait",), ("--wait", "-1"), ("--wait", "soon"), ("--wait", "1", "--undo"), ("now",)],
)
def test_a_line_that_is_wrong_changes_nothing(front, words):
    done = drain(front, *words)
    assert (done.status, "--help" in done.stderr) == (1, True)
    assert state(front)["state"] == "serving"


# What it costs


def knock(front, count):
    """So many who say their first call at once, as virsh does, twenty at a time; how many were
    answered, and the ticks it took."""
    call = remote.call(Remote.AUTH_LIST, 0).pack()
    before, answered = cpu_ticks(front.pid), 0
    for _ in range(count // 20):
        with ExitStack() as stack:
            clients = []
            for _ in range(20):
                clients.append(stack.enter_context(rpc_client(front.sock, user=NOBODY)))
                with suppress(BrokenPipeError):  # too many are being told already
                    clients[-1].send(call)
            answered += sum(client.receive() is not None for client in clients)
    return answered, cpu_ticks(front.pid) - before


def test_who_knocks_costs_what_those_cost_who_are_turned_away(make_proxyd, capsys):
    front = make_proxyd(
        {"proxyd_max_clients_per_peer": 1, "log_level": 3, "unix_sock_rw_perms": "0777"},
        mode=0o711,
    )
    with opened(front.sock, user=NOBODY) as mine:
        knock(front, 200)  # what is made once
        descriptors, memory = len(front.descriptors()), front.rss_kib()
        over = knock(front, KNOCKS)
        begin(front)
        drained = knock(front, KNOCKS)
        assert works(mine)
        wait_until(lambda: len(front.descriptors()) <= descriptors, 10, "they have gone")
    with capsys.disabled():
        print(f"\n{KNOCKS} knocks, (answered, ticks): over the limit {over}, drained {drained}")
    assert drained[1] <= 1.5 * over[1] + 10
    assert front.rss_kib() - memory < 2048


def knock_by_tls(front, context, count):
    """So many handshakes, one after the other: how many were told, how long that took, and the
    ticks."""
    call = remote.call(Remote.AUTH_LIST, 0).pack()
    before, began, told = cpu_ticks(front.pid), time.monotonic(), 0
    for _ in range(count):
        with (
            connected(front.tls_address()) as sock,
            suppress(OSError),
            context.wrap_socket(sock) as secured,
        ):
            told += secured.recv(1) == LET_IN
            secured.sendall(call)
            secured.recv(4096)
    return told, time.monotonic() - began, cpu_ticks(front.pid) - before


def test_by_tls_so_many_are_told_each_second_and_no_more_handshakes_are_made(
    make_proxyd, pki, joe, capsys
):
    front = make_proxyd(
        {
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tls_port": "0",
            **pki.settings(pki.server()),
        }
    )
    context = client_context(joe)
    with opened_over_tls(front.tls_address(), joe) as mine:
        let_in = knock_by_tls(front, context, 200)
        begin(front)
        drained = knock_by_tls(front, context, 600)
        assert works(mine)
        wait_until(lambda: state(front)["limits"]["silent"] == 0, 10, "they have gone")
    told, took_s, ticks = drained
    with capsys.disabled():
        print(f"\n(told, seconds, ticks): 200 let in {let_in}, 600 while drained {drained}")
    assert 30 <= told <= 33 + 32 * took_s
    assert ticks / 600 <= let_in[2] / 200
