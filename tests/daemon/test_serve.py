"""The daemon's whole life in this process: what it takes, and that it gives all of it back."""

import logging
import os
import resource
import signal
import socket
import stat
import sys
import threading
from contextlib import contextmanager

import pytest

from proxyd.daemon.in_force import Options
from proxyd.daemon.load_config import Source
from proxyd.daemon.places import Places
from proxyd.daemon.serve import run_daemon
from tests.bed.command import run_to_end
from tests.bed.daemon import accepts, conf_text, short_directory
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.usefixtures("signals_blocked")


@pytest.fixture(autouse=True)
def as_before():
    """Whatever happened: no descriptor, no thread, no handler of a signal or of the log is left."""

    def state():
        return (
            len(os.listdir("/proc/self/fd")),
            [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)],
            logging.getLogger().handlers[:],
            os.getcwd(),
        )

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = state()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    # The thread of the relay may still be on its last lines.
    wait_until(lambda: state() == before, 5, "descriptors and handlers are as before")


class Stage:
    """The places of a daemon in a directory of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.runtime_dir = directory / "run"
        self.conf = directory / "conf"
        self.pid_file = directory / "pid"
        self.sock = self.runtime_dir / "libvirt-sock"
        self.sock_ro = self.runtime_dir / "libvirt-sock-ro"
        self.log = directory / "log"
        self.configure()

    def configure(self, **settings):
        fixed = {"auth_unix_rw": "none", "log_level": 2, "log_outputs": f"2:file:{self.log}"}
        self.conf.write_text(conf_text({**fixed, **settings}))

    def options(self, *, idle_exit_s=0, privileged=True, pid_file=None, directory=None):
        return Options(
            source=Source(
                path=str(self.conf), named=True, verbose=False, privileged=privileged, environ={}
            ),
            places=Places(
                privileged=privileged,
                config_file=str(self.conf),
                runtime_dir=str(self.runtime_dir),
                pid_file=str(self.pid_file),
                log_file=str(self.log),
                passwords=str(self.directory / "passwords"),
            ),
            pid_file=str(self.pid_file) if pid_file is None else pid_file,
            directory=str(directory or self.directory),
            background=False,
            idle_exit_s=idle_exit_s,
        )

    def run(self, **options):
        return run_daemon(self.options(**options))

    def left(self):
        """What is there besides the configuration, log, audit and the run-time directory."""
        stays = {self.conf, self.log, self.directory / "virtproxyd-audit.log", self.runtime_dir}
        return sorted(
            str(each.relative_to(self.directory))
            for each in self.directory.rglob("*")
            if each not in stays
        )


@pytest.fixture
def stage():
    with short_directory() as directory:
        yield Stage(directory)


@contextmanager
def meanwhile(stage, act, *, number=signal.SIGTERM):
    """While the daemon has the main thread: waits until it serves, acts, and signals its end."""
    told = []

    def other_thread():
        try:
            last = stage.sock.with_name("virtproxyd-admin-sock")  # of those that it makes
            wait_until(lambda: last.exists() and accepts(stage.sock), 10, "the daemon serves")
            told.append(act())
        finally:
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=other_thread)
    thread.start()
    try:
        yield told
    finally:
        thread.join()


def status_of(stage, **options):
    """The exit status of a daemon that is expected not to start; if it does, it is ended."""
    with ended_if_it_starts(stage):
        return stage.run(**options)


@contextmanager
def ended_if_it_starts(stage):
    """Ends a daemon that should not have started, or the test would wait for ever."""
    over = threading.Event()

    def other_thread():
        wait_until(lambda: over.is_set() or accepts(stage.sock), 10, "an end or a start")
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=other_thread)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_daemon_runs_until_a_signal_and_gives_everything_back(stage, number):
    def act():
        return stage.left(), stage.pid_file.read_text()

    with meanwhile(stage, act, number=number) as told:
        assert stage.run() == 0

    assert told == [
        (
            [
                "pid",
                "run/libvirt-admin-sock",
                "run/libvirt-sock",
                "run/libvirt-sock-ro",
                "run/virtproxyd-admin-sock",
            ],
            str(os.getpid()),
        )
    ]
    assert stage.left() == []


def test_the_descriptor_limit_is_raised_to_what_is_allowed(stage):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    with meanwhile(stage, lambda: resource.getrlimit(resource.RLIMIT_NOFILE)) as told:
        stage.run()

    assert told == [(hard, hard)]


def test_permissions_are_those_of_the_settings(stage):
    stage.configure(unix_sock_rw_perms="0750", unix_sock_ro_perms="0704", unix_sock_group="+65534")

    def act():
        return [
            (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid)
            for path in (stage.sock, stage.sock_ro)
        ]

    with meanwhile(stage, act) as told:
        stage.run()

    assert told == [[(0o750, 65534), (0o704, 65534)]]


def test_without_authentication_only_root_may_connect_by_default(stage):
    with meanwhile(stage, lambda: stat.S_IMODE(stage.sock.stat().st_mode)) as told:
        stage.run()
    assert told == [0o700]


def test_a_users_daemon_makes_a_private_directory_and_one_socket(stage):
    def act():
        return stat.S_IMODE(stage.runtime_dir.stat().st_mode), stage.left()

    with meanwhile(stage, act) as told:
        stage.run(privileged=False)

    left = ["pid", "run/libvirt-admin-sock", "run/libvirt-sock", "run/virtproxyd-admin-sock"]
    assert told == [(0o700, left)]


def test_a_daemon_needs_no_pid_file(stage):
    with meanwhile(stage, stage.left) as told:
        assert stage.run(pid_file="") == 0
    assert told == [
        [
            "run/libvirt-admin-sock",
            "run/libvirt-sock",
            "run/libvirt-sock-ro",
            "run/virtproxyd-admin-sock",
        ]
    ]


def test_a_daemon_that_nobody_needs_ends(stage):
    assert stage.run(idle_exit_s=1) == 0
    assert stage.left() == []
    assert "no client for 1 s: exiting" in stage.log.read_text()


def test_a_relative_log_file_starts_where_the_daemon_was_started(stage):
    stage.configure(log_outputs="2:file:here.log")
    with meanwhile(stage, lambda: None):
        stage.run(directory=stage.directory)
    assert "stopped" in (stage.directory / "here.log").read_text()
    (stage.directory / "here.log").unlink()


def test_the_log_says_what_is_served_and_why_it_stops(stage):
    with meanwhile(stage, lambda: None):
        stage.run()
    log = stage.log.read_text()
    assert f"serves {stage.sock}, {stage.sock_ro}" in log
    assert "SIGTERM: stopping" in log


def test_doubts_about_the_configuration_are_in_the_log(stage):
    stage.configure(max_client=3)
    with meanwhile(stage, lambda: None):
        stage.run()
    assert 'unknown key "max_client" (did you mean "max_clients"?)' in stage.log.read_text()


# While it starts

SIGNALLED = """
import os, sys
from proxyd.daemon import entrances
from proxyd.cli import main as cli
original = entrances.open_unix_listener
def and_a_signal(*spec):
    opened = original(*spec)
    os.kill(os.getpid(), int(sys.argv[1]))
    return opened
entrances.open_unix_listener = and_a_signal
sys.exit(cli.main(sys.argv[2:]))
"""


def started_and_signalled(stage, number):
    """A daemon of its own process that gets a signal when it has a pid file and a socket."""
    stage.runtime_dir.mkdir()
    stage.configure(unix_sock_dir=str(stage.runtime_dir))
    options = ["-f", str(stage.conf), "-p", str(stage.pid_file), "-t", "1"]
    command = [sys.executable, "-c", SIGNALLED, str(int(number)), *options]
    return run_to_end(command, deadline_s=20).status


def test_a_hangup_while_it_starts_does_not_end_it(stage):
    assert started_and_signalled(stage, signal.SIGHUP) == 0
    assert "no client for 1 s" in stage.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_that_ends_it_while_it_starts_leaves_nothing(stage, number):
    started_and_signalled(stage, number)
    assert stage.left() == []


# What keeps it from starting


def test_a_missing_group_is_status_6_with_the_remedy(stage, capfd):
    stage.configure(unix_sock_group="nosuchgroup")
    assert status_of(stage) == 6
    assert "run: groupadd --system nosuchgroup" in capfd.readouterr().err
    assert stage.left() == []


@pytest.mark.parametrize("group", ["99999999999999999999", "+4294967296", "4294967295"])
def test_a_number_that_no_group_can_have_is_status_6_and_no_traceback(stage, capfd, group):
    stage.configure(unix_sock_group=group)
    assert status_of(stage) in {1, 6}
    assert "unix_sock_group" in capfd.readouterr().err
    assert stage.left() == []


def test_the_longest_queue_that_may_be_asked_for_is_granted(stage):
    stage.configure(max_queued_clients=4294967295)
    assert status_of(stage) == 0


def test_a_run_time_directory_that_cannot_be_made_is_status_2(stage, capfd):
    stage.runtime_dir.write_text("in the way")
    assert status_of(stage) == 2
    assert f"cannot make the run-time directory {stage.runtime_dir}" in capfd.readouterr().err
    assert not stage.pid_file.exists()


def test_a_users_run_time_directory_that_cannot_be_made_names_the_variable(stage, capfd):
    stage.runtime_dir.write_text("in the way")
    assert status_of(stage, privileged=False) == 2
    assert "or set XDG_RUNTIME_DIR" in capfd.readouterr().err


def test_a_run_time_directory_that_nothing_lies_in_is_not_made(stage):
    stage.runtime_dir.write_text("in the way")
    own = stage.directory / "own"
    own.mkdir()
    stage.sock = own / "libvirt-sock"
    stage.configure(unix_sock_dir=str(own))
    with meanwhile(stage, lambda: "it serves") as told:
        assert stage.run(privileged=False) == 0
    assert told == ["it serves"]
    assert stage.runtime_dir.read_text() == "in the way"


def test_a_run_time_directory_is_made_for_the_pid_file_alone(stage):
    own = stage.directory / "own"
    own.mkdir()
    stage.sock = own / "libvirt-sock"
    stage.configure(unix_sock_dir=str(own))
    pid_file = stage.runtime_dir / "virtproxyd.pid"
    with meanwhile(stage, pid_file.exists) as told:
        assert stage.run(privileged=False, pid_file=str(pid_file)) == 0
    assert told == [True]


def test_a_pid_file_that_cannot_be_made_is_status_1(stage, capfd):
    assert status_of(stage, pid_file=str(stage.directory / "missing" / "pid")) == 1
    assert "no such directory" in capfd.readouterr().err
    assert stage.left() == []


def test_a_log_that_cannot_be_opened_is_status_1_and_takes_nothing(stage, capfd):
    stage.configure(log_outputs=f"1:file:{stage.directory}/missing/log")
    assert status_of(stage) == 1
    assert "cannot log: " in capfd.readouterr().err
    assert stage.left() == []
    assert not stage.runtime_dir.exists()


def test_a_listener_that_nobody_could_come_in_by_is_status_6(stage, capfd):
    stage.configure(
        listen_tcp=1, proxyd_keytab=str(stage.directory / "missing"), proxyd_strict_start=1
    )
    assert status_of(stage) == 6
    said = capfd.readouterr().err
    assert 'auth_tcp = "sasl": no SASL mechanism can serve clients by TCP; GSSAPI' in said
    assert f"{stage.directory / 'missing'}: there is no such file" in said
    assert stage.left() == []


def test_a_directory_that_is_missing_is_status_6_and_gives_the_pid_file_back(stage, capfd):
    stage.configure(unix_sock_dir=str(stage.directory / "missing"))
    assert status_of(stage) == 6
    assert f"mkdir -p {stage.directory / 'missing'}" in capfd.readouterr().err
    assert stage.left() == []


def test_the_second_socket_in_use_gives_the_first_one_back(stage, capfd):
    stage.runtime_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(stage.sock_ro))
        other.listen()

        assert status_of(stage) == 6

        assert f"{stage.sock_ro} is served by pid {os.getpid()}" in capfd.readouterr().err
        assert stage.left() == ["run/libvirt-sock-ro"]


def test_a_file_in_the_way_is_never_removed(stage, capfd):
    stage.runtime_dir.mkdir()
    stage.sock.write_text("mine")
    assert status_of(stage) == 6
    assert "it is a regular file" in capfd.readouterr().err
    assert stage.sock.read_text() == "mine"


def test_its_threads_take_short_turns_as_long_as_it_serves(stage):
    usual = sys.getswitchinterval()
    with meanwhile(stage, sys.getswitchinterval) as told:
        assert stage.run() == 0
    assert told[0] <= usual / 5
    assert sys.getswitchinterval() == usual
