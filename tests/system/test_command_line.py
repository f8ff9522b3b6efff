"""proxyd as a process: how it starts, what it takes and gives back, what signals do."""

import grp
import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxyd.wire.failure import Failure
from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.command import run_to_end
from tests.bed.daemon import accepts, conf_text, short_directory
from tests.bed.python_libvirt import held_script
from tests.bed.virsh import held_virsh, unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import opened, rpc_client

pytestmark = pytest.mark.system

DEADLINE_S = 20
NOBODY = 65534
TEST = "test:///default"


@pytest.fixture
def short_dir():
    with short_directory() as directory:
        yield directory


@pytest.fixture
def routes(qemu_backend):
    return {"proxyd_routes": [f"test={qemu_backend.sock}"]}


@pytest.fixture
def start(make_proxyd):
    """Make a running proxyd that also logs what is no trouble."""

    def make(config=None, **options):
        settings = {"log_level": 2, **(config or {})}
        front = make_proxyd(settings, **options)
        if settings["log_level"] == 2:
            wait_for_log(front, " serves ")  # from here on it obeys signals
        return front

    return make


def lists_domains(sock, **options):
    """Whether the real virsh gets an answer of the daemon behind this socket."""
    return " test " in virsh(unix_uri(TEST, sock), "list", "--all", **options).succeeded()


def proxyd_command(*arguments):
    return [sys.executable, "-m", "proxyd", *map(str, arguments)]


def run_proxyd(*arguments, **options):
    """Run one that is expected to end by itself."""
    return run_to_end(proxyd_command(*arguments), deadline_s=DEADLINE_S, **options)


def settings_in(directory, **more):
    """A configuration file for a proxyd that a test starts by hand."""
    conf = directory / "conf"
    fixed = {
        "unix_sock_dir": str(directory),
        "proxyd_backend_dir": str(directory),
        "auth_unix_rw": "none",
        "auth_unix_ro": "none",
        "log_level": 2,
        "log_outputs": f"2:file:{directory / 'log'}",
    }
    conf.write_text(conf_text({**fixed, **more}))
    return conf


def log_lines(front, part):
    return [line for line in front.log_text().splitlines() if part in line]


def wait_for_log(front, part, count=1):
    wait_until(lambda: len(log_lines(front, part)) >= count, DEADLINE_S, f"the log says {part!r}")
    return log_lines(front, part)


# Starting


def test_a_bad_configuration_does_not_start_and_says_file_line_and_column(short_dir):
    conf = settings_in(short_dir)
    conf.write_text(conf.read_text() + "max_clients = many\n")
    line = len(conf.read_text().splitlines())

    done = run_proxyd("-f", conf, "-p", short_dir / "pid")

    assert done.status == 1
    assert done.stderr.startswith(f"proxyd: cannot load the configuration: {conf}:{line}:15: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert [path.name for path in short_dir.iterdir()] == ["conf"]


@pytest.mark.parametrize("descriptors", [7, 11, 16])
def test_a_start_with_too_few_descriptors_says_what_is_short_and_where_more_are(
    short_dir, descriptors
):
    limited = ["prlimit", f"--nofile={descriptors}:{descriptors}"]
    command = proxyd_command("-f", settings_in(short_dir), "-p", short_dir / "pid")

    done = run_to_end([*limited, *command], deadline_s=DEADLINE_S)

    assert (done.status, done.stdout) == (1, "")
    # Where it gets as far as to the first file that is its own, that is named.
    assert re.fullmatch(
        r"proxyd: cannot (start|open the pid file \S+/pid): Too many open files; raise the limit of"
        r" open files \(LimitNOFILE=, ulimit -n\)\n",
        done.stderr,
    )


def test_a_path_that_a_live_daemon_serves_is_not_taken(start, short_dir):
    first = start()

    done = run_proxyd("-f", first.conf, "-p", short_dir / "pid")

    assert done.status == 6
    assert f"{first.sock} is served by pid {first.pid} (" in done.stderr
    assert "-m proxyd" in done.stderr
    assert first.daemon.running
    assert not (short_dir / "pid").exists()
    assert lists_domains(first.sock)


def test_a_path_that_libvirtd_serves_is_not_taken(make_libvirtd, short_dir):
    other = make_libvirtd()
    conf = settings_in(short_dir, unix_sock_dir=str(other.run_dir))

    done = run_proxyd("-f", conf, "-p", short_dir / "pid")

    assert done.status == 6
    assert f"{other.sock} is served by pid {other.pid} (libvirtd " in done.stderr
    assert lists_domains(other.sock)


def test_a_stale_socket_is_replaced(start):
    front = start()
    front.daemon.kill()
    assert front.sock.is_socket()
    assert front.sock_ro.is_socket()

    front.start()

    assert lists_domains(front.sock)
    assert front.daemon.pid_file.read_text() == str(front.pid)


def test_a_file_that_is_no_socket_is_never_removed(short_dir):
    conf = settings_in(short_dir)
    (short_dir / "libvirt-sock").write_text("precious")

    done = run_proxyd("-f", conf, "-p", short_dir / "pid")

    assert done.status == 6
    assert (short_dir / "libvirt-sock").read_text() == "precious"


def test_two_with_one_pid_file_are_one_too_many(start, short_dir):
    first = start()

    done = run_proxyd("-f", settings_in(short_dir), "-p", first.daemon.pid_file)

    assert done.status == 1
    assert f"the pid file {first.daemon.pid_file} is locked by pid {first.pid} (" in done.stderr
    assert first.daemon.pid_file.read_text() == str(first.pid)
    assert not (short_dir / "libvirt-sock").exists()
    assert accepts(first.sock)


def test_the_pid_file_holds_the_pid_alone_and_can_be_read_by_all(start):
    front = start()

    assert front.daemon.pid_file.read_bytes() == b"%d" % front.pid
    assert stat.S_IMODE(front.daemon.pid_file.stat().st_mode) == 0o644

    assert front.stop() == 0
    assert not front.daemon.pid_file.exists()


def test_sockets_are_gone_after_the_end(start):
    front = start()
    assert front.sock.is_socket()
    assert front.sock_ro.is_socket()

    assert front.stop() == 0

    left = sorted(path.name for path in front.directory.iterdir())
    assert left == ["conf", "log", "output", "virtproxyd-audit.log"]


def test_without_a_warning_nothing_is_printed(start):
    front = start()
    front.stop()
    assert front.daemon.output.read_text() == ""


# Permissions


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_without_authentication_the_socket_is_roots_by_default(start):
    front = start()
    assert (mode_of(front.sock), mode_of(front.sock_ro)) == (0o700, 0o777)
    assert front.sock.stat().st_gid == 0


def test_with_polkit_the_socket_is_open_by_default(start):
    front = start({"auth_unix_rw": "polkit", "auth_unix_ro": "polkit"})
    assert (mode_of(front.sock), mode_of(front.sock_ro)) == (0o777, 0o777)


def test_permissions_and_group_are_those_of_the_configuration(start):
    group = grp.getgrgid(NOBODY).gr_name
    front = start(
        {
            "unix_sock_group": group,
            "unix_sock_rw_perms": "0770",
            "unix_sock_ro_perms": "0704",
        }
    )
    assert (mode_of(front.sock), mode_of(front.sock_ro)) == (0o770, 0o704)
    assert (front.sock.stat().st_gid, front.sock_ro.stat().st_gid) == (NOBODY, NOBODY)
    assert front.sock.stat().st_uid == 0


# Into the background


@contextmanager
def in_background(conf, *more):
    """What `-d` said, and the daemon's pid file; the daemon is ended with the block."""
    pid_file = conf.parent / "pid"
    done = run_proxyd("-d", "-f", conf, "-p", pid_file, *more)
    try:
        yield done, pid_file
    finally:
        if pid_file.exists():
            pid = int(pid_file.read_text())
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not Path(f"/proc/{pid}").exists(), DEADLINE_S, "the daemon ends")


def test_in_the_background_its_status_is_that_of_the_daemon(short_dir):
    conf = settings_in(short_dir, unix_sock_dir=str(short_dir / "missing"))
    with in_background(conf) as (done, pid_file):
        assert done.status == 6
        assert f"there is no directory {short_dir / 'missing'}" in done.stderr
        assert not pid_file.exists()


def test_in_the_background_it_returns_when_it_is_ready(short_dir, qemu_backend):
    conf = settings_in(short_dir, proxyd_routes=[f"test={qemu_backend.sock}"])
    with in_background(conf) as (done, pid_file):
        assert (done.status, done.stdout, done.stderr) == (0, "", "")
        assert lists_domains(short_dir / "libvirt-sock")
        pid = int(pid_file.read_text())
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
        assert os.getsid(pid) != os.getsid(0)
    assert not (short_dir / "libvirt-sock").exists()
    assert not pid_file.exists()


def test_in_the_background_relative_paths_are_still_the_starters(short_dir):
    conf = settings_in(short_dir, unix_sock_dir=".", log_outputs="2:file:here.log")
    script = 'cd "$1" && exec "$2" -m proxyd -d -f conf -p pid'
    command = ["sh", "-c", script, "sh", str(short_dir), sys.executable]

    done = run_to_end(command, deadline_s=DEADLINE_S)

    try:
        assert (done.status, done.stderr) == (0, "")
        assert (short_dir / "here.log").exists()
        assert (short_dir / "libvirt-sock").is_socket()
    finally:
        pid = int((short_dir / "pid").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), DEADLINE_S, "the daemon ends")
    assert conf.exists()


@pytest.mark.parametrize(
    ("settings", "says", "status"),
    [
        ({"unix_sock_dir": "/proc/nonexistent/x"}, "there is no directory /proc/nonexistent/x", 6),
        ({"log_outputs": "2:file:/nonexistent/x/log"}, "cannot log: ", 1),
    ],
)
def test_an_error_of_the_start_in_the_background_reaches_the_terminal(
    short_dir, settings, says, status
):
    with in_background(settings_in(short_dir, **settings)) as (done, pid_file):
        assert done.status == status
        assert says in done.stderr
        assert not pid_file.exists()


def test_what_is_wrong_before_the_background_keeps_its_exit_status(short_dir):
    with in_background(settings_in(short_dir, unix_sock_group="nosuchgroup")) as (done, _):
        assert done.status == 6
        assert "there is no such group" in done.stderr


def test_a_bad_configuration_in_the_background_reaches_the_terminal(short_dir):
    conf = settings_in(short_dir)
    conf.write_text("max_clients = many\n")
    with in_background(conf) as (done, _):
        assert done.status == 1
        assert f"{conf}:1:15: " in done.stderr


def test_a_second_one_in_the_background_is_refused(short_dir, start):
    first = start()
    done = run_proxyd("-d", "-f", first.conf, "-p", short_dir / "pid")
    assert done.status == 6
    assert f"{first.sock} is served by pid {first.pid}" in done.stderr


# Ending by itself


@contextmanager
def by_hand(conf, *more):
    """A proxyd with options of its own, in the foreground."""
    sock = conf.parent / "libvirt-sock"
    with subprocess.Popen(
        proxyd_command("-f", conf, "-p", "", *more),
        stdin=subprocess.DEVNULL,
        cwd=conf.parent,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    ) as process:
        try:
            wait_until(sock.is_socket, DEADLINE_S, "the socket is there")
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def test_without_clients_it_ends_after_its_time(short_dir):
    with by_hand(settings_in(short_dir), "-t", "1") as process:
        assert process.wait(DEADLINE_S) == 0
    assert not (short_dir / "libvirt-sock").exists()
    assert "no client for 1 s: exiting" in (short_dir / "log").read_text()


def test_it_does_not_end_while_somebody_is_connected(short_dir, qemu_backend):
    conf = settings_in(short_dir, proxyd_routes=[f"test={qemu_backend.sock}"])
    with by_hand(conf, "-t", "1") as process:
        with held_virsh(unix_uri(TEST, short_dir / "libvirt-sock")) as client:
            wait_until(
                lambda: "session 1 opened" in (short_dir / "log").read_text(), 10, "a session"
            )
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)
            client.stdin.write("list --all\n")
            client.stdin.flush()
            wait_until(lambda: "running" in client.stdout.readline(), 10, "an answer")
        assert process.wait(DEADLINE_S) == 0


# Reload


def test_a_reload_takes_effect_and_cuts_nothing(start, qemu_backend):
    front = start({"log_level": 3, "proxyd_routes": []})
    with rpc_client(front.sock) as refused:
        reply = refused.open(TEST)
        assert "no modular daemon serves 'test'" in Failure.unpack(reply.payload).message
    with opened(front.sock, "qemu:///system") as living:
        front.configure(
            {
                "log_level": 2,
                "max_clients": 20,
                "proxyd_routes": [f"test={qemu_backend.sock}", f"xen={qemu_backend.sock}"],
            }
        )
        front.daemon.send(signal.SIGHUP)
        wait_for_log(front, f"configuration reloaded from {front.conf}")

        assert living.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
        assert lists_domains(front.sock)
        wait_for_log(front, " opened: ")


def test_a_reload_changes_the_limit_of_clients(start, routes):
    everybody = {"unix_sock_rw_perms": "0777"}
    front = start({"max_clients": 1, "max_anonymous_clients": 1, **everybody}, mode=0o711)
    wait_for_log(front, "client 1 ended")  # the one that looked whether it accepts
    with opened(front.sock, user=NOBODY) as first, rpc_client(front.sock, user=NOBODY) as waiting:
        waiting.send(waiting.frame(Remote.AUTH_LIST))
        wait_for_log(front, "no room for more clients by UNIX: 1 of 1")
        assert not answered(waiting)

        front.configure({"log_level": 2, "max_clients": 5, "max_anonymous_clients": 1, **routes})
        front.daemon.send(signal.SIGHUP)

        assert waiting.receive().header.status == Status.OK
        assert first.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK


def test_a_reload_that_a_lock_would_need_a_restart_for_says_so(start, routes):
    front = start({"auth_unix_rw": "none"})

    front.configure({"log_level": 2, "auth_unix_rw": "polkit", **routes})
    front.daemon.send(signal.SIGHUP)
    wait_for_log(front, "configuration reloaded")

    # The old door stays open, so nobody may believe that it is locked now.
    (line,) = log_lines(front, "auth_unix_rw")
    assert " warning : " in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_clients = many\n", ":1:15: expected"),
        ("max_clients = 1\nmax_anonymous_clients = 2\n", "to be at least max_anonymous_clients"),
        ('unix_sock_group = "nosuchgroup"\n', "there is no such group"),
        ('log_outputs = "1:file:/nonexistent/x/log"\n', "cannot log"),
    ],
)
def test_a_bad_reload_changes_nothing_and_says_why(start, text, says):
    front = start()
    with opened(front.sock) as living:
        front.configure(text)
        front.daemon.send(signal.SIGHUP)
        (line,) = wait_for_log(front, "reload failed, everything stays as it was: ")

        assert says in line
        assert " error : " in line
        assert living.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK
        assert lists_domains(front.sock)
        assert len(wait_for_log(front, " opened: ", 2)) == 2


def test_a_configuration_that_is_gone_changes_nothing(start):
    front = start()
    front.conf.unlink()
    front.daemon.send(signal.SIGHUP)

    (line,) = wait_for_log(front, "reload failed")

    assert f"there is no file {front.conf}" in line
    assert lists_domains(front.sock)


def test_a_log_file_that_was_moved_away_is_opened_anew(start):
    front = start()
    moved = front.log.rename(front.directory / "log.1")

    front.daemon.send(signal.SIGHUP)

    wait_until(front.log.exists, DEADLINE_S, "a new log file")
    wait_for_log(front, "configuration reloaded")
    assert "reloaded" not in moved.read_text()


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_it_well_and_clients_see_the_end(start, number):
    front = start()
    with opened(front.sock) as session, rpc_client(front.sock) as silent:
        silent.call(Remote.AUTH_LIST)
        front.daemon.send(number)

        assert front.daemon.wait(DEADLINE_S) == 0
        assert session.ended()
        assert silent.ended()

    assert not front.sock.exists()
    assert not front.daemon.pid_file.exists()
    assert len(log_lines(front, ": proxyd stopped; ")) == 2
    assert front.log_text().rstrip().endswith("stopped")
    assert "Traceback" not in front.log_text() + front.daemon.output.read_text()


def test_a_signal_that_is_repeated_changes_nothing(start):
    front = start()
    with opened(front.sock) as session:
        while front.daemon.running:
            front.daemon.send(signal.SIGTERM)

        assert session.ended()

    assert front.daemon.status == 0
    assert not front.sock.exists()
    assert not front.daemon.pid_file.exists()


# Limits


def answered(client, within_s=0.2):
    """Whether something comes; that nothing comes can only be seen by waiting for it."""
    return bool(select.select([client.sock], [], [], within_s)[0])


def test_the_third_of_two_clients_waits_until_one_leaves(start):
    limits = {"max_clients": 2, "max_anonymous_clients": 2}
    front = start({**limits, "unix_sock_rw_perms": "0777"}, mode=0o711)
    wait_for_log(front, "client 1 ended")  # the one that looked whether it accepts
    with (
        opened(front.sock, user=NOBODY) as first,
        opened(front.sock, user=NOBODY) as second,
        rpc_client(front.sock, user=NOBODY) as third,
    ):
        third.send(third.frame(Remote.AUTH_LIST))
        wait_for_log(front, "no room for more clients by UNIX: 2 of 2")
        assert not answered(third)
        assert second.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK

        first.close()

        assert third.receive().header.status == Status.OK
        assert third.open(TEST).header.status == Status.OK
    wait_for_log(front, "session 4 ended")
    assert len(log_lines(front, "no room for more clients")) == 1


def test_clients_that_prove_nothing_leave_room_for_others(start, short_dir):
    front = start(
        {
            "auth_unix_rw": "polkit",
            "max_anonymous_clients": 1,
            "proxyd_handshake_timeout": 1,
        },
        mode=0o755,
    )
    with held_script(CONNECTED, str(front.sock), user=NOBODY) as idle:
        assert idle.stdout.readline() == "connected\n"

        assert lists_domains(front.sock)  # that is another user, who does not wait for this one
        wait_for_log(front, "no connection was opened within 1 s")


CONNECTED = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
print("connected")
sys.stdin.read()
"""


# The log


def calls_of_all(front):
    command = [sys.executable, "-m", "proxyd", "clients", "--json", "-s", str(front.directory)]
    rows = json.loads(run_to_end(command, deadline_s=10).succeeded())
    return sum(row["calls"] for row in rows)


def test_a_session_has_one_line_when_it_opens_and_one_when_it_ends(start, qemu_backend):
    front = start()
    with held_virsh(unix_uri(TEST, front.sock)) as client:
        # By the second call the first has been answered.
        wait_until(lambda: calls_of_all(front) >= 2, 10, "it has made calls")
        pid = client.pid
    wait_for_log(front, "session 2 ended")

    opening, end = log_lines(front, "session 2 ")
    who = f"libvirt-sock, uid 0 (root) pid {pid}, test:///default at {qemu_backend.sock}"
    assert opening.endswith(f": session 2 opened: {who}")
    assert " info : " in opening
    # It is killed, perhaps before it has read what it was answered: a reset, then.
    gone = ("closed the connection; ", "is gone: Connection reset by peer; ")
    assert any(f": session 2 ended: {who}: the client {each}" in end for each in gone)
    assert re.search(
        r"; \d+\.\d{3} s, [1-9]\d* bytes up, [1-9]\d* bytes down, [1-9]\d* calls,", end
    )
    assert len(log_lines(front, f"pid {pid}")) == 2


def test_a_refused_name_is_a_warning_with_who_and_why(start):
    front = start()

    virsh(unix_uri("lxc:///system", front.sock), "uri")

    (line,) = log_lines(front, "cannot open")
    assert " warning : " in line
    assert "libvirt-sock, uid 0 (root) pid " in line
    assert '"lxc:///system": connecting: Failed to connect socket to ' in line


# A user's own daemon


@pytest.fixture
def own(make_libvirtd, make_proxyd, short_dir):
    """An ordinary user's proxyd before that user's libvirtd."""
    backend = make_libvirtd(user=NOBODY)
    os.chown(short_dir, NOBODY, NOBODY)
    return make_proxyd(
        {
            "auth_unix_rw": None,
            "auth_unix_ro": None,
            "unix_sock_rw_perms": "0777",
            "log_level": 2,
            "proxyd_routes": ["qemu=libvirtd", f"test={backend.sock}"],
        },
        backend_dir=backend.run_dir,
        mode=0o755,
        user=NOBODY,
        environment={"XDG_RUNTIME_DIR": str(short_dir)},
    )


def test_a_users_daemon_works_for_that_user(own):
    environment = {"XDG_CACHE_HOME": "/proc/nonexistent", "HOME": "/proc/nonexistent"}
    uri = unix_uri("qemu:///session", own.sock)

    assert lists_domains(own.sock, user=NOBODY, environment=environment)
    said = virsh(uri, "uri", user=NOBODY, environment=environment).succeeded()

    assert said.strip() == uri
    assert len(wait_for_log(own, " opened: libvirt-sock, uid 65534 (nobody) pid ", 2)) == 2


def test_a_users_daemon_refuses_root_without_a_word(own):
    with rpc_client(own.sock) as client:
        assert client.ended()

    lines = wait_for_log(own, "uid 0 (root)")
    assert all("this daemon serves only uid 65534" in line for line in lines)
    assert log_lines(own, " opened: ") == []


def test_a_users_daemon_has_no_read_only_socket(own):
    wait_until(lambda: "proxyd 0" in own.log_text() or None, 15, "it says what it serves")
    assert sorted(path.name for path in own.directory.iterdir() if path.is_socket()) == [
        "libvirt-admin-sock",
        "libvirt-sock",
        "virtproxyd-admin-sock",
    ]
