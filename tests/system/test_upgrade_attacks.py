"""What clients, daemons and signals do in the midst of an upgrade costs nobody else anything."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest

from proxyd.wire import remote
from proxyd.wire.frame import FrameBuffer, Status
from proxyd.wire.programs import Remote
from proxyd.wire.remote import OpenArguments
from tests.bed.command import clean_environment, effective, held_open
from tests.bed.daemon import accepts, short_directory
from tests.bed.hostile import NOBODY, hostile
from tests.bed.polkit import Polkitd, PrivateBus
from tests.bed.sasl import SERVICE
from tests.bed.thousands import URI, room, sessions
from tests.bed.upgrading import lives, stat_is_stopped, upgrading
from tests.bed.waiting import wait_until
from tests.fakes.prompt_daemon import HELD
from tests.system.rpc import RpcClient, opened, rpc_client
from tests.system.sasl_client import CONFIDENTIALITY, Layered, login, start, step
from tests.system.tls_client import connected

__all__ = ["room"]

pytestmark = pytest.mark.system

MANY = 300
DEADLINE_S = 60
PING = Remote.CONNECT_GET_LIB_VERSION
FLOOD = 4000
LONGEST_S = 15


@contextmanager
def prompt(directory):
    path = directory / "prompt"
    with held_open([sys.executable, "-m", "tests.fakes.prompt_daemon", str(path)]) as process:
        wait_until(lambda: path.exists() and accepts(path), 10, "the daemon listens")
        yield process


@pytest.fixture
def daemon(room):
    """One that answers at once, and what is HELD when it is told to."""
    with short_directory(0o755) as directory, prompt(directory) as process:
        process.path = directory / "prompt"
        yield process


@pytest.fixture
def make_front(daemon, make_proxyd):
    with ExitStack() as stack:

        def make(config=None, **options):
            settings = {"proxyd_routes": [f"test={daemon.path}"], "log_level": 2, **(config or {})}
            made = make_proxyd(settings, backend_dir=daemon.path.parent, service=True, **options)
            return stack.enter_context(upgrading(made))

        yield make


@pytest.fixture
def front(make_front):
    return make_front({"max_clients": 5000})


@pytest.fixture
def real(make_proxyd):
    """Before a real daemon, which cuts nothing short."""
    with upgrading(make_proxyd(service=True)) as made:
        yield made


@contextmanager
def begun(front):
    """An upgrade that has come as far as that the other process accepts, which stands still then.

    That process, and the command, which has not ended.
    """
    old = front.pid
    command = subprocess.Popen(
        front.words("upgrade", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(front.environment),
    )
    try:
        new = wait_until(lambda: stopped_successor(front, old), DEADLINE_S, "another one accepts")
        yield new, command
    finally:
        command.kill()
        command.wait()


def stopped_successor(front, old):
    """Looked for without a pause: sessions are moved within milliseconds."""
    try:
        while (new := front.named_pid()) == old:
            pass
    except ValueError:
        return 0
    os.kill(new, signal.SIGSTOP)
    wait_until(lambda: stat_is_stopped(new), 5, "it stands still")
    return new


def finish(front, new, command):
    """It goes on; what came of the upgrade."""
    os.kill(new, signal.SIGCONT)
    out, err = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 0, err
    done = json.loads(out)
    front.took_over(done["pid"])
    return done


def answered(sock, serial=7):
    """A call and its reply, on a socket that does not block."""
    sock.setblocking(True)
    sock.settimeout(DEADLINE_S)
    sock.sendall(remote.call(PING, serial).pack())
    frames = FrameBuffer()
    while (frame := frames.next_frame()) is None:
        got = sock.recv(65536)
        assert got, "the session was cut off"
        frames.feed(got)
    assert frame.header.serial == serial


def ended(sock):
    sock.setblocking(True)
    sock.settimeout(DEADLINE_S)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


# ---- Clients


def test_who_floods_and_does_not_read_gets_every_answer_once(real):
    with opened(real.proxyd.sock, URI) as client:
        first = client.serial + 1
        wires = b"".join(client.frame(PING, bytes(400)) for _ in range(FLOOD))
        client.sock.setblocking(False)
        sent = 0
        while select.select([], [client.sock], [], 0.3)[1]:  # until all buffers are full
            sent += client.sock.send(wires[sent:])
            if sent == len(wires):
                break
        for _ in range(2):
            assert real.upgrade()["moved"] == 1
        client.sock.settimeout(DEADLINE_S)
        replies = []
        for _ in range(FLOOD):
            while sent < len(wires) and select.select([], [client.sock], [], 0)[1]:
                client.sock.setblocking(False)
                sent += client.sock.send(wires[sent : sent + 65536])
                client.sock.settimeout(DEADLINE_S)
            replies.append(client.receive().header.serial)
        # Several workers of the daemon answer them.
        assert sorted(replies) == [*range(first, first + FLOOD)]


@pytest.mark.parametrize("at", [3, 27, 28, 1000, 5_000_000])
@pytest.mark.parametrize("procedure", [PING, Remote.CONNECT_OPEN])
def test_a_call_that_was_sent_in_part_is_taken_up(real, procedure, at):
    """CONNECT_OPEN is held until it is whole, and refused then."""
    with opened(real.proxyd.sock, URI) as client:
        wire = client.frame(procedure, bytes(10_000_000))
        client.send(wire[:at])
        assert real.upgrade()["moved"] == 1
        client.send(wire[at:])
        reply = client.receive()
        assert reply.header.serial == client.serial
        assert reply.header.status == (Status.OK if procedure == PING else Status.ERROR)
        assert client.call(PING).header.status == Status.OK


def test_who_has_sent_his_last_byte_gets_the_reply(front, daemon):
    with opened(front.proxyd.sock, URI) as client:
        client.send(client.frame(HELD))
        client.sock.shutdown(socket.SHUT_WR)
        before = front.pid
        front.upgrade()
        daemon.stdin.write("\n")
        daemon.stdin.flush()
        assert client.receive().header.serial == client.serial
        assert client.receive() is None
        wait_until(lambda: not front.clients(), 10, "nobody is left")
        front.gone(before)


def test_a_session_that_is_not_open_yet_is_finished_where_it_began(front):
    before = front.pid
    with ExitStack() as stack:
        silent = stack.enter_context(opened_socket(front))
        asked = RpcClient(stack.enter_context(opened_socket(front)))
        asked.call(Remote.AUTH_LIST)
        done = front.upgrade()
        assert done["staying"] == 2
        assert lives(before)
        talks = RpcClient(silent)
        for client in (talks, asked):
            assert client.open(URI).header.status == Status.OK
            assert client.call(PING).header.status == Status.OK
        wait_until(lambda: not any("process" in each for each in front.clients()), 10, "all moved")
        front.gone(before)
        told = front.clients()
        assert [each["uri"] for each in told] == [URI, URI]
        assert {each["state"] for each in told} == {"open"}
        for client in (talks, asked):
            assert client.call(PING).header.status == Status.OK
    wait_until(lambda: not front.clients(), 10, "nobody is left")


@contextmanager
def opened_socket(front, user=0):
    with socket.socket(socket.AF_UNIX) as sock:
        with effective(user, user):
            sock.connect(str(front.proxyd.sock))
        yield sock


def test_a_limit_holds_for_both_processes(make_front):
    """Who waits for a place, when the places of those who move become free, gets none of them."""
    most = 4
    front = make_front(
        {"max_clients": most, "max_anonymous_clients": most, "unix_sock_rw_perms": "0777"},
        mode=0o755,
    )
    before = front.pid
    with ExitStack() as stack:

        def asks():
            sock = stack.enter_context(opened_socket(front, 1))
            sock.sendall(remote.call(Remote.AUTH_LIST, 0).pack())
            return sock

        inside, waiting = [], []
        while not waiting:  # some of this host come in beyond max_clients
            sock = asks()
            let_in = select.select([sock], [], [], 1)[0]
            (inside if let_in else waiting).append(RpcClient(sock) if let_in else sock)
        for client in inside:
            client.receive()
            client.call(Remote.CONNECT_OPEN, OpenArguments(URI, 0).pack())
        waiting.append(asks())  # no more of them may wait
        assert front.upgrade()["moved"] == len(inside) >= most
        for client in inside:
            assert client.call(PING).header.status == Status.OK
        assert not select.select(waiting, [], [], 1)[0], "one too many was let in"
        for client in inside:
            client.close()
        for sock in waiting:
            sock.settimeout(DEADLINE_S)
            assert sock.recv(4096)
        wait_until(lambda: len(front.clients()) == len(waiting), 10, "those who waited are in")
    front.gone(before)


HANGS = """
import fuse
from hostile_kit import *
directory, device = sys.argv[1:]
system = fuse.FileSystem(device, os.getcwd() + "/mnt", {fuse.FLUSH})
session = open_session(f"{directory}/libvirt-sock", "lxc:///system")
session.sendall(frame(60000, struct.pack(">I", 1), kind=CALL_WITH_FDS))
send_descriptors(session, [system.open("file")])
get_ready()
select.select([], [], [])
"""
# Without /dev/fuse: what was announced never comes, so the frame is not whole.
LATE = """
from hostile_kit import *
directory, device = sys.argv[1:]
session = open_session(f"{directory}/libvirt-sock", "lxc:///system")
session.sendall(frame(60000, struct.pack(">I", 1), kind=CALL_WITH_FDS))
get_ready()
select.select([], [], [])
"""


@pytest.mark.parametrize("script", ["hangs", "late"])
def test_a_descriptor_that_hangs_holds_up_nobody_else(make_scene, device, script):
    made = make_scene().front
    text = HANGS if script == "hangs" and device else LATE
    with upgrading(made) as front, opened(made.sock, URI) as other:
        with hostile(text, made.directory, device) as attacker:
            attacker.go()
            done = front.upgrade()
            assert done["moved"] >= 1
            assert done["seconds"] < LONGEST_S
            assert other.call(PING).header.status == Status.OK
        wait_until(lambda: len(front.clients()) == 1, 30, "the attacker is gone")
        assert other.call(PING).header.status == Status.OK


def test_a_login_by_sasl_is_finished_where_it_began_and_moves_then(make_front, kdc):
    """With its layer, a context of Kerberos."""
    front = make_front(
        {
            "listen_tcp": 1,
            "listen_addr": "127.0.0.1",
            "tcp_port": "0",
            "proxyd_keytab": str(kdc.keytab(SERVICE)),
        },
        environment=kdc.environment,
    )
    before, tickets = front.pid, kdc.tickets("joe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5_CONFIG", kdc.environment["KRB5_CONFIG"])
        with connected(front.proxyd.tcp_address()) as sock:
            client, context = RpcClient(sock), login(tickets, encrypts=True)
            begun_login = start(client, context)
            assert front.upgrade()["staying"] == 1
            context.step(begun_login.data)
            offered = step(client, None)
            assert context.unwrap(offered.data).message == CONFIDENTIALITY
            step(client, context.wrap(CONFIDENTIALITY, False).message)
            client.sock = Layered(sock, context)
            opening = OpenArguments(URI, 0).pack()
            assert client.call(Remote.CONNECT_OPEN, opening).header.status == Status.OK
            front.gone(before)
            assert client.call(PING).header.status == Status.OK
            (told,) = front.clients()
            assert told["identity"]["sasl_user_name"].startswith("joe")
            assert front.upgrade()["moved"] == 1
            assert client.call(PING).header.status == Status.OK


def test_who_is_asked_about_goes_on_when_he_is_let_in(make_proxyd):
    """polkit thinks: a human looks for a password."""
    with short_directory(0o711) as directory, PrivateBus(directory) as bus:
        pipe = directory / "pipe"
        os.mkfifo(pipe)
        pipe.chmod(0o666)
        polkitd = Polkitd(directory, bus, members=[])
        polkitd.rule(
            f'polkit.addRule(function (action, subject) {{ polkit.spawn(["cat", "{pipe}"]);'
            " return polkit.Result.YES; });"
        )
        polkitd.start()
        try:
            made = make_proxyd(
                {"auth_unix_rw": "polkit", "unix_sock_rw_perms": "0777"},
                mode=0o711,
                environment=bus.environment,
                service=True,
            )
            with upgrading(made) as front, ExitStack() as stack:
                before = front.pid
                client = stack.enter_context(rpc_client(front.proxyd.sock, user=NOBODY))
                client.call(Remote.AUTH_LIST)
                client.send(client.frame(Remote.AUTH_POLKIT))
                writer = wait_until(lambda: writer_of(pipe), 15, "the rule is running")
                assert front.upgrade()["staying"] == 1
                os.close(writer)
                assert client.receive().header.status == Status.OK
                opening = OpenArguments(URI, 0).pack()
                assert client.call(Remote.CONNECT_OPEN, opening).header.status == Status.OK
                front.gone(before)
                assert client.call(PING).header.status == Status.OK
        finally:
            polkitd.stop()


def writer_of(pipe):
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_an_idle_exit_is_that_of_the_daemon_alone(daemon, make_proxyd):
    """Neither ends over sessions that move away from it, or have not come yet."""
    made = make_proxyd(
        {"proxyd_routes": [f"test={daemon.path}"]},
        backend_dir=daemon.path.parent,
        service=True,
        words=("-t", "1"),
    )
    with upgrading(made) as front:
        with opened(front.proxyd.sock, URI) as client:
            for _ in range(3):
                before = front.pid
                front.upgrade()
                front.gone(before)
            until = time.monotonic() + 2
            while time.monotonic() < until:  # longer than it may be idle
                assert client.call(PING).header.status == Status.OK
        front.gone(front.pid)
    assert "Traceback" not in front.proxyd.log_text()


# ---- Administrators and signals


def test_kicks_and_lists_in_the_midst(front):
    with sessions(front.proxyd, MANY) as opened_ones:
        numbers = [each["id"] for each in front.clients()]
        with begun(front) as (new, command):
            # The admin socket is the new one's; what waits there is done when it goes on.
            kicks = [
                subprocess.Popen(
                    front.words("kick", str(number)),
                    stdout=subprocess.DEVNULL,
                    env=clean_environment(front.environment),
                )
                for number in numbers[:: MANY // 6]
            ]
            finish(front, new, command)
            for each in kicks:
                assert each.wait(DEADLINE_S) == 0
        gone = opened_ones[:: MANY // 6]
        for sock in opened_ones:
            if sock in gone:
                assert ended(sock)
            else:
                answered(sock)
        wait_until(lambda: len(front.clients()) == MANY - len(gone), 10, "the rest is there")


def test_the_new_process_dies_in_the_midst(front):
    with sessions(front.proxyd, MANY) as opened_ones:
        before = front.pid
        with begun(front) as (new, command):
            moved = len([each for each in opened_ones if each])
            os.kill(new, signal.SIGKILL)
            _, err = command.communicate(timeout=DEADLINE_S)
        assert command.returncode == 1
        assert "goes on to serve" in err
        wait_until(lambda: front.named_pid() == before, 10, "the pid file is the old one's")
        alive = len(front.clients())
        assert 0 < alive <= moved
        served = 0
        for sock in opened_ones:
            sock.setblocking(True)
            sock.settimeout(DEADLINE_S)
            try:
                sock.sendall(remote.call(PING, 7).pack())
                served += bool(sock.recv(4096))
            except (BrokenPipeError, ConnectionResetError):
                pass
        # Those that it had already are gone with it, and no other.
        assert served == alive
        front.upgrade()
    front.gone(before)


def test_the_old_process_dies_in_the_midst(front):
    with sessions(front.proxyd, MANY) as opened_ones:
        before = front.pid
        with begun(front) as (new, command):
            os.kill(before, signal.SIGKILL)
            os.kill(new, signal.SIGCONT)
            command.communicate(timeout=DEADLINE_S)
        front.took_over(new)
        wait_until(
            lambda: not any("process" in each for each in front.clients()), 10, "it knows that"
        )
        alive = len(front.clients())
        served = 0
        for sock in opened_ones:
            sock.setblocking(True)
            sock.settimeout(DEADLINE_S)
            try:
                sock.sendall(remote.call(PING, 7).pack())
                served += bool(sock.recv(4096))
            except (BrokenPipeError, ConnectionResetError):
                pass
        assert served == alive
    with opened(front.proxyd.sock, URI) as client:
        assert client.call(PING).header.status == Status.OK


def test_the_new_process_hangs_in_the_midst(front):
    """Nothing comes of it for ten seconds: it is ended, and all go on where they were."""
    with sessions(front.proxyd, MANY) as opened_ones:
        before = front.pid
        with begun(front) as (new, command):
            _, err = command.communicate(timeout=DEADLINE_S)
        assert command.returncode == 1
        assert "silent" in err
        assert not lives(new)
        assert front.named_pid() == before
        alive = len(front.clients())
        assert alive
        served = sum(not gone_already(sock) for sock in opened_ones)
        assert served == alive


def gone_already(sock):
    sock.setblocking(True)
    sock.settimeout(DEADLINE_S)
    try:
        sock.sendall(remote.call(PING, 7).pack())
        return not sock.recv(4096)
    except (BrokenPipeError, ConnectionResetError):
        return True


@pytest.mark.parametrize("whom", ["old", "new"])
def test_a_stop_in_the_midst_ends_all(front, whom):
    with sessions(front.proxyd, MANY) as opened_ones:
        before = front.pid
        with begun(front) as (new, command):
            os.kill(before if whom == "old" else new, signal.SIGTERM)
            os.kill(new, signal.SIGCONT)
            command.communicate(timeout=DEADLINE_S)
            for pid in (before, new):
                front.gone(pid)
        for sock in opened_ones:
            assert ended(sock)
    assert "Traceback" not in front.proxyd.log_text()


def test_a_reload_in_the_midst(front):
    with sessions(front.proxyd, MANY) as opened_ones:
        before = front.pid
        with begun(front) as (new, command):
            for pid in (before, new):
                os.kill(pid, signal.SIGHUP)
            assert finish(front, new, command)["moved"] == MANY
        for sock in opened_ones:
            answered(sock)
        front.gone(before)
    assert "Traceback" not in front.proxyd.log_text()


def test_the_daemon_dies_in_the_midst(front, daemon):
    with sessions(front.proxyd, MANY) as opened_ones:
        before = front.pid
        with begun(front) as (new, command):
            daemon.kill()
            daemon.wait()
            finish(front, new, command)
        for sock in opened_ones:
            assert ended(sock)
        wait_until(lambda: not front.clients(), 10, "nobody is left")
        front.gone(before)
    assert "Traceback" not in front.proxyd.log_text()


def test_clients_die_in_the_midst(front):
    with sessions(front.proxyd, MANY) as opened_ones:
        before = front.pid
        with begun(front) as (new, command):
            for sock in opened_ones:
                sock.close()
            finish(front, new, command)
        wait_until(lambda: not front.clients(), 10, "nobody is left")
        front.gone(before)
    assert "Traceback" not in front.proxyd.log_text()
    assert "which is gone" not in front.proxyd.log_text()


def test_an_upgrade_in_the_midst_of_an_upgrade_is_refused(front):
    with sessions(front.proxyd, MANY) as opened_ones:
        before = front.pid
        with begun(front) as (new, command):
            os.kill(before, signal.SIGUSR1)
            os.kill(new, signal.SIGUSR1)
            finish(front, new, command)
        front.gone(before)
        assert front.named_pid() == new
        for sock in opened_ones:
            answered(sock)
        front.upgrade()
        front.gone(new)
        for sock in opened_ones:
            answered(sock)
    assert front.proxyd.log_text().count("not upgraded") == 2
