"""Starting a user's daemons: shell scripts on the PATH of an invented user play them."""

import errno
import fcntl
import logging
import os
import shlex
import signal
import socket
import stat
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.autostart.launch import CannotLaunch, daemon_environment, find_program, launch
from proxyd.autostart.lock import take_lock
from proxyd.autostart.starter import SESSION_DAEMONS, NotStarted, Starter
from proxyd.config.routes import Destination, RoutingTable
from proxyd.wire.failure import Domain, ErrorCode
from tests.bed.command import SYSTEM_PATH, held_open, run_to_end
from tests.bed.daemon import accepts, descriptors, status_field
from tests.bed.waiting import wait_until
from tests.session.desk import eventually, lines, no_more_descriptors

USER = 1000
DAEMON = "virtqemud"

# The daemons. Each begins with the line that tells us of it.
TELL = '#!/bin/sh\nrun="$XDG_RUNTIME_DIR/libvirt"\necho $$ >>"$run/started"\n'
LISTEN = """
import os, signal, socket
listening = socket.socket(socket.AF_UNIX)
path = os.environ["XDG_RUNTIME_DIR"] + "/libvirt/virtqemud-sock"
if os.path.exists(path):
    os.unlink(path)
listening.bind(path)
listening.listen(100)
signal.pause()
"""
SERVES = f"exec {shlex.quote(sys.executable)} -ISc '{LISTEN}'\n"
TELL_MASK = """
import os, signal
run = os.environ["XDG_RUNTIME_DIR"] + "/libvirt"
open(run + "/started", "a").write(f"{os.getpid()}\\n")
open(run + "/mask", "w").write(str(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
"""
NEVER_LISTENS = "exec sleep 60\n"
SERVES_WHEN_TOLD = 'read -r _ <"$run/go"\n' + SERVES
TELLS_ALL = (
    'tr "\\0" "\\n" </proc/$$/environ >"$run/environ"\n'
    'cat /proc/$$/status >"$run/status"\n'
    'for each; do echo "$each"; done >"$run/arguments"\n'
) + SERVES

# Another process that starts daemons: a libvirt client, as far as the lock tells.
OTHER_STARTER = """
import fcntl, os, socket, sys
lock, path = sys.argv[1:]
descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, 0)
print("locked", flush=True)
for told in sys.stdin:
    if told.strip() == "listen":
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen(100)
    else:
        os.unlink(lock)
        os.close(descriptor)
    print("done", flush=True)
"""
IS_LOCKED = """
import fcntl, os, sys
try:
    fcntl.lockf(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 0)
except BlockingIOError:
    sys.exit(3)
"""


class User:
    """A user with a PATH, a run-time directory that is not there yet, and daemons to be tidied."""

    def __init__(self, directory):
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.runtime = directory / "run" / "libvirt"
        self.socket = self.runtime / f"{DAEMON}-sock"
        self.lock = self.runtime / f"{DAEMON}.lock"
        self.destination = Destination("qemu:///session", DAEMON, str(self.socket), None)
        self.environ = {
            "PATH": f"{self.bin}:{SYSTEM_PATH}",
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(self.runtime.parent),
        }

    def install(self, body, name=DAEMON):
        program = self.bin / name
        program.write_text(TELL + body)
        program.chmod(0o755)
        return program

    def starter(self, nursery, *, euid=USER, patience_s=10.0, **environ):
        made = Starter(
            runtime_dir=str(self.runtime),
            environ={**self.environ, **environ},
            euid=euid,
            patience_s=patience_s,
        )
        nursery.start_soon(made.run)
        return made

    def started(self):
        """The pids of the daemons that were started."""
        told = self.runtime / "started"
        return [int(line) for line in told.read_text().split()] if told.exists() else []

    def make_runtime(self):
        self.runtime.mkdir(mode=0o700, parents=True)

    def told(self, name):
        return (self.runtime / name).read_text()

    def stop_daemons(self):
        ours = f"XDG_RUNTIME_DIR={self.runtime.parent}".encode()
        for pid in self.started():
            try:
                if ours in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    os.kill(pid, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended by itself


@pytest.fixture
def user(directory):
    made = User(directory)
    yield made
    made.stop_daemons()


@pytest.fixture
def little_grace(monkeypatch):
    """For daemons whose end is final."""
    monkeypatch.setattr("proxyd.autostart.starter._GRACE_S", 0.1)


@pytest.fixture(autouse=True)
def no_process_is_left(other_process):
    before = children()
    yield
    assert children() == before, "a child was left, or a zombie"


def children():
    """Processes of ours, dead ones that nobody has waited for included."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and status_field(int(entry.name), "PPid") == os.getpid():
                found.add(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone meanwhile
    return found


async def why_not(starter, destination):
    """The failure with which a start ends, as clients get it."""
    with pytest.raises(NotStarted) as caught:
        await starter.start(destination)
    told = caught.value.failure
    assert (told.code, told.domain) == (ErrorCode.SYSTEM_ERROR, Domain.RPC)
    return told


async def a_daemon(user):
    """The pid of the first one that was started."""
    return (await eventually(user.started, "a daemon was started"))[0]


@contextmanager
def other_starter(user):
    """Another process that holds the lock until it is told."""
    command = [sys.executable, "-ISc", OTHER_STARTER, str(user.lock), str(user.socket)]
    with held_open(command) as process:
        assert process.stdout.readline() == "locked\n"
        yield process


def tell(other, what):
    """Makes the other starter `listen` or `unlock`, and returns when it is done."""
    other.stdin.write(f"{what}\n")
    other.stdin.flush()
    assert other.stdout.readline() == "done\n"


# What is started


@pytest.mark.parametrize("daemon", sorted(SESSION_DAEMONS))
async def test_every_session_daemon_of_the_routing_table_is_started(daemon, user, nursery):
    table = RoutingTable(privileged=False, system_dir="/nowhere", session_dir=str(user.runtime))
    driver = daemon.removeprefix("virt").removesuffix("d")
    destination = table.resolve(f"{driver}:///session", readonly=False)
    assert user.starter(nursery).starts(destination)


@pytest.mark.parametrize(
    ("daemon", "path"),
    [
        (DAEMON, "/run/libvirt/virtqemud-sock"),
        (DAEMON, "{runtime}/virtnetworkd-sock"),
        (DAEMON, "{runtime}/../libvirt/virtqemud-sock"),
        ("virtqemud-sock", "{runtime}/virtqemud-sock"),
        ("virtevild", "{runtime}/virtevild-sock"),
        ("virtlxcd", "{runtime}/virtlxcd-sock"),
        ("libvirtd", "{runtime}/libvirt-sock"),
        ("libvirtd", "{runtime}/libvirtd-sock"),
    ],
    ids=[
        "the system's",
        "another's socket",
        "another spelling",
        "a route to a socket",
        "a client's invention",
        "root's only",
        "our own address",
        "the old daemon",
    ],
)
async def test_nothing_else_is_started(daemon, path, user, nursery):
    destination = Destination("x:///session", daemon, path.format(runtime=user.runtime), None)
    starter = user.starter(nursery)
    assert not starter.starts(destination)
    with pytest.raises(ValueError, match="not ours to start"):
        await starter.start(destination)


async def test_root_starts_nothing(user, nursery):
    assert not user.starter(nursery, euid=0).starts(user.destination)


@pytest.mark.parametrize(("value", "starts"), [("0", False), ("1", True), ("", True)])
async def test_libvirt_autostart_decides(value, starts, user, nursery):
    starter = user.starter(nursery, LIBVIRT_AUTOSTART=value)
    assert starter.starts(user.destination) is starts


# How it is started


async def test_ten_at_one_time_start_one_daemon(user, nursery, log):
    user.install(SERVES)
    starter = user.starter(nursery)

    async with trio.open_nursery() as ten:
        for _ in range(10):
            ten.start_soon(starter.start, user.destination)

    assert accepts(user.socket)
    (pid,) = user.started()
    (line,) = lines(log, "started", logging.INFO)
    assert line.startswith(f"started {user.bin / DAEMON}, pid {pid}, within ")


async def test_two_daemons_do_not_wait_for_each_other(user, nursery):
    os.mkfifo(user.bin / "go")
    user.install(f'read -r _ <"{user.bin}/go"\n' + SERVES)
    user.install(SERVES.replace("virtqemud-sock", "virtsecretd-sock"), "virtsecretd")
    path = str(user.runtime / "virtsecretd-sock")
    starter = user.starter(nursery)

    async with trio.open_nursery() as both:
        both.start_soon(starter.start, user.destination)
        await a_daemon(user)
        await starter.start(Destination("secret:///session", "virtsecretd", path, None))
        assert not accepts(user.socket)
        (user.bin / "go").write_text("\n")

    assert len(user.started()) == 2


async def test_a_daemon_that_has_ended_is_started_again(user, nursery):
    user.install(SERVES)
    starter = user.starter(nursery)
    await starter.start(user.destination)
    os.kill(user.started()[0], signal.SIGKILL)
    await eventually(lambda: not accepts(user.socket), "the first one is gone")

    await starter.start(user.destination)  # over a socket that refuses

    assert accepts(user.socket)
    assert len(user.started()) == 2


async def test_one_that_is_there_by_now_is_not_started_again(user, nursery):
    user.make_runtime()
    user.install(SERVES)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(user.socket))
        listening.listen()
        await user.starter(nursery).start(user.destination)
    assert user.started() == []
    assert not user.lock.exists()


async def test_one_with_more_clients_than_it_accepts_is_there(user, nursery):
    user.make_runtime()
    user.install(SERVES)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(user.socket))
        listening.listen(0)
        first.connect(str(user.socket))
        await user.starter(nursery).start(user.destination)
    assert user.started() == []


async def test_a_daemon_gets_libvirts_arguments_and_environment(user, nursery):
    user.install(TELLS_ALL)
    passed = {"LOGNAME": "fred", "USER": "fred", "TMPDIR": "/t", "XDG_CACHE_HOME": "/c"}

    await user.starter(
        nursery, LANG="de_DE.UTF-8", LIBVIRT_DEFAULT_URI="qemu:///system", **passed
    ).start(user.destination)

    assert user.told("arguments") == "--timeout=120\n"
    expected = {"LC_ALL": "C", **user.environ, **passed}
    assert sorted(user.told("environ").splitlines()) == sorted(
        f"{name}={value}" for name, value in expected.items()
    )


def test_what_decides_over_a_daemons_files_is_passed_on():
    names = ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH", "HOME"]
    given = dict.fromkeys(names, "/x")
    assert daemon_environment({**given, "SSH_AUTH_SOCK": "/y"}) == {"LC_ALL": "C", **given}


async def test_a_daemon_is_nobodys_child_and_has_no_terminal_of_ours(user, nursery, null):
    os.set_inheritable(null, True)
    user.install(SERVES)

    await user.starter(nursery).start(user.destination)

    (pid,) = user.started()
    assert status_field(pid, "PPid") != os.getpid()
    assert os.getsid(pid) not in {os.getsid(0), pid}
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    opened = descriptors(pid)
    assert [opened.pop(standard) for standard in (0, 1, 2)] == ["/dev/null"] * 3
    assert [where.partition(":")[0] for where in opened.values()] == ["socket"]


async def test_a_daemon_ignores_no_signal_and_has_no_privilege(user, nursery):
    user.install(TELLS_ALL)
    await user.starter(nursery).start(user.destination)
    fields = dict(line.split(":", 1) for line in user.told("status").splitlines())
    assert int(fields["SigIgn"], 16) == 0  # Python itself ignores SIGPIPE
    assert int(fields["CapAmb"], 16) == 0


def test_a_daemon_does_not_inherit_that_our_stop_signals_are_blocked(user):
    user.make_runtime()
    # No shell: some of them open their mask by themselves.
    user.install("").write_text(f"#!/usr/bin/python3 -IS\n{TELL_MASK}{LISTEN}")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    try:
        launched = launch(DAEMON, user.environ)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    wait_until(lambda: accepts(user.socket), 10, "the daemon has told its mask")
    launched.let_go()

    assert user.told("mask") == "set()"
    assert launched.pid in user.started()
    assert accepts(user.socket), "it ended with its launcher"


# Where its program is


def test_the_path_is_searched_in_its_order(user):
    theirs = user.bin / "first"
    theirs.mkdir()
    second = user.install(SERVES)
    environ = {"PATH": f"{theirs}:{user.bin}"}
    (theirs / DAEMON).write_text("cannot be executed")
    assert find_program(DAEMON, environ) == str(second)

    (theirs / DAEMON).chmod(0o755)

    assert find_program(DAEMON, environ) == str(theirs / DAEMON)


def test_a_relative_directory_is_not_searched(user, monkeypatch):
    user.install(SERVES)
    monkeypatch.chdir(user.bin)
    assert find_program(DAEMON, {"PATH": ".:"}) is None


def test_a_directory_is_no_program(user):
    (user.bin / DAEMON).mkdir()
    assert find_program(DAEMON, {"PATH": str(user.bin)}) is None


def test_the_systems_directories_are_searched_even_if_path_leaves_them_out(user):
    user.install(SERVES)
    assert find_program("ldconfig", {"PATH": str(user.bin)}) == "/usr/sbin/ldconfig"
    assert find_program("ldconfig", {}) == "/usr/sbin/ldconfig"


def test_virtd_path_names_the_only_directory(user):
    program = user.install(SERVES)
    empty = user.bin / "empty"
    empty.mkdir()
    assert find_program(DAEMON, {"VIRTD_PATH": str(user.bin)}) == str(program)
    assert find_program(DAEMON, {"VIRTD_PATH": str(empty), "PATH": str(user.bin)}) is None


async def test_a_daemon_that_is_not_installed(user, nursery, log):
    told = await why_not(user.starter(nursery, PATH=str(user.bin)), user.destination)

    assert told.int1 == errno.ENOENT
    assert told.message == (
        f"Failed to connect socket to '{user.socket}': No such file or directory"
        f" (there is no program virtqemud in {user.bin}, /usr/sbin, /usr/local/sbin, /sbin:"
        " install libvirt's qemu driver (a package named like libvirt-daemon-driver-qemu,"
        " libvirt-daemon or libvirt), or set VIRTD_PATH to the directory where it is)"
    )
    assert lines(log, "virtqemud", logging.WARNING) == [told.message]
    assert not user.lock.exists()


async def test_a_program_that_cannot_be_run(user, nursery):
    program = user.install("")
    program.write_text("#!/nonexistent/sh\n")
    told = await why_not(user.starter(nursery), user.destination)
    assert f"({program} cannot be run: No such file or directory)" in told.message


def test_an_interpreter_that_is_gone_is_an_error_and_no_daemon(user, monkeypatch):
    user.install(SERVES)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(CannotLaunch, match="its launcher failed"):
        launch(DAEMON, user.environ)


# Daemons that do not come up


@pytest.mark.parametrize(
    ("body", "end"),
    [
        ("exit 3", "with exit status 3"),
        ("exit 0", "with exit status 0"),
        ("exit 255", "with exit status 255"),
        ("kill -SEGV $$", "by SIGSEGV"),
        ("kill -TERM $$", "by SIGTERM"),
    ],
)
async def test_a_daemon_that_ends_at_once(body, end, user, nursery, log, little_grace):
    program = user.install(body + "\n")

    told = await why_not(user.starter(nursery, patience_s=30), user.destination)

    assert told.int1 == errno.ENOENT
    assert f"({program} was started and ended {end}; run it by hand to see why)" in told.message
    assert lines(log, "was started", logging.WARNING) == [told.message]
    assert not user.lock.exists()


async def test_all_who_wait_are_told_of_a_failure_and_the_next_one_tries_again(
    user, nursery, log, little_grace
):
    user.install("exit 3\n")
    starter = user.starter(nursery)

    async with trio.open_nursery() as ten:
        for _ in range(10):
            ten.start_soon(why_not, starter, user.destination)
    assert len(user.started()) == 1
    assert len(lines(log, "exit status 3")) == 1

    user.install(SERVES)
    await starter.start(user.destination)
    assert accepts(user.socket)


async def test_one_that_ends_because_another_was_quicker_does_no_harm(user, nursery, monkeypatch):
    monkeypatch.setattr("proxyd.autostart.starter._GRACE_S", 10.0)
    user.install(f'({SERVES[:-1]}) & echo $! >>"$run/started"; exit 1\n')
    await user.starter(nursery).start(user.destination)
    assert accepts(user.socket)


async def test_a_daemon_that_never_listens(user, nursery, log):
    program = user.install(NEVER_LISTENS)

    told = await why_not(user.starter(nursery, patience_s=0.3), user.destination)

    pid = await a_daemon(user)
    assert told.int1 == errno.ENOENT
    assert (
        f"({program} was started, pid {pid}, and does not accept connections after 0.3 s;"
        " its log says why)"
    ) in told.message
    assert lines(log, "does not accept", logging.WARNING) == [told.message]
    assert not user.lock.exists()


async def test_a_stale_socket_is_told_from_a_missing_one(user, nursery, little_grace):
    user.make_runtime()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(user.socket))
    user.install("exit 3\n")
    told = await why_not(user.starter(nursery), user.destination)
    assert told.int1 == errno.ECONNREFUSED


async def test_a_socket_that_may_not_be_used_is_an_error_and_nothing_is_started(user, nursery):
    user.make_runtime()
    user.install(SERVES)
    user.socket.symlink_to(user.socket)
    told = await why_not(user.starter(nursery), user.destination)
    assert told.int1 == errno.ELOOP
    assert told.message == f"cannot start virtqemud: {os.strerror(errno.ELOOP)}"
    assert user.started() == []


async def test_a_proxyd_without_descriptors_goes_on(user, nursery):
    user.make_runtime()
    user.install(SERVES)
    starter = user.starter(nursery)
    with no_more_descriptors():
        told = await why_not(starter, user.destination)
    assert told.int1 == errno.EMFILE

    await starter.start(user.destination)

    assert len(user.started()) == 1


# The lock


async def test_libvirts_lock_is_held_while_a_daemon_starts(user, nursery):
    user.make_runtime()
    os.mkfifo(user.runtime / "go")
    user.install(SERVES_WHEN_TOLD)
    starter = user.starter(nursery)

    async with trio.open_nursery() as starting:
        starting.start_soon(starter.start, user.destination)
        await a_daemon(user)
        assert stat.S_IMODE(user.lock.stat().st_mode) == 0o600
        tried = run_to_end([sys.executable, "-ISc", IS_LOCKED, str(user.lock)], deadline_s=10)
        assert tried.status == 3, tried.stderr
        (user.runtime / "go").write_text("\n")

    assert not user.lock.exists()


async def test_the_runtime_directory_is_made_for_its_user_alone(user, nursery):
    user.install(SERVES)
    await user.starter(nursery).start(user.destination)
    assert stat.S_IMODE(user.runtime.stat().st_mode) == 0o700


async def test_what_another_process_starts_is_used_at_once(user, nursery):
    user.make_runtime()
    user.install(SERVES)
    starter = user.starter(nursery)
    with other_starter(user) as other:
        async with trio.open_nursery() as starting:
            starting.start_soon(starter.start, user.destination)
            await wait_all_tasks_blocked()
            tell(other, "listen")
        assert user.lock.exists()
    assert user.started() == []


async def test_what_another_process_has_started_when_it_unlocks_is_used(user, nursery):
    user.make_runtime()
    user.install(SERVES)
    starter = user.starter(nursery)
    with other_starter(user) as other:
        async with trio.open_nursery() as starting:
            starting.start_soon(starter.start, user.destination)
            await wait_all_tasks_blocked()
            tell(other, "listen")
            tell(other, "unlock")
    assert user.started() == []


async def test_where_another_process_gives_up_we_start(user, nursery):
    user.make_runtime()
    user.install(SERVES)
    starter = user.starter(nursery)
    with other_starter(user) as other:
        async with trio.open_nursery() as starting:
            starting.start_soon(starter.start, user.destination)
            await wait_all_tasks_blocked()
            assert user.started() == []
            tell(other, "unlock")
    assert len(user.started()) == 1
    assert not user.lock.exists()


async def test_another_process_that_never_unlocks(user, nursery, log):
    user.make_runtime()
    user.install(SERVES)
    with other_starter(user):
        told = await why_not(user.starter(nursery, patience_s=0.2), user.destination)
        assert user.lock.exists()
    assert told.int1 == errno.ENOENT
    assert (
        f"(another process has been starting virtqemud for 0.2 s (it has locked '{user.lock}'))"
    ) in told.message
    assert user.started() == []


async def test_a_lock_file_that_was_left_behind_locks_nothing(user, nursery):
    user.make_runtime()
    user.lock.touch(mode=0o600)
    user.install(SERVES)
    await user.starter(nursery).start(user.destination)
    assert not user.lock.exists()


def test_a_file_that_its_owner_removes_before_we_lock_it_locks_nothing(user, monkeypatch):
    lock_it = fcntl.lockf

    def too_late(descriptor, *how):
        user.lock.unlink()
        lock_it(descriptor, *how)

    with monkeypatch.context() as patched:
        patched.setattr("fcntl.lockf", too_late)
        assert take_lock(str(user.lock)) is None
    lock = take_lock(str(user.lock))
    assert lock is not None
    lock.release()


async def test_a_lock_file_that_another_user_has_put_there_is_not_waited_for(user, nursery):
    user.make_runtime()
    user.lock.touch(mode=0o666)
    os.chown(user.lock, 65534, 65534)
    told = await why_not(user.starter(nursery), user.destination)
    assert told.int1 == errno.EPERM
    assert str(user.lock) in told.message


async def test_a_link_in_the_place_of_the_lock_is_not_followed(user, nursery):
    user.make_runtime()
    target = user.bin / "target"
    user.lock.symlink_to(target)
    told = await why_not(user.starter(nursery), user.destination)
    assert told.int1 == errno.ELOOP
    assert str(user.lock) in told.message
    assert not target.exists()


async def test_a_runtime_directory_that_cannot_be_made(user, nursery):
    user.runtime.parent.touch()
    told = await why_not(user.starter(nursery), user.destination)
    assert told.int1 == errno.ENOTDIR
    assert told.message.startswith("cannot start virtqemud: Not a directory")


# Given up in mid-start


async def test_a_client_that_goes_leaves_the_attempt_to_the_others(user, nursery):
    user.make_runtime()
    os.mkfifo(user.runtime / "go")
    user.install(SERVES_WHEN_TOLD)
    starter = user.starter(nursery)
    async with trio.open_nursery() as going:
        going.start_soon(starter.start, user.destination)
        await a_daemon(user)
        going.cancel_scope.cancel()

    async with trio.open_nursery() as coming:
        coming.start_soon(starter.start, user.destination)
        await wait_all_tasks_blocked()
        (user.runtime / "go").write_text("\n")

    assert accepts(user.socket)
    assert len(user.started()) == 1


async def test_an_attempt_that_nobody_waits_for_comes_to_its_end(user, nursery):
    user.make_runtime()
    os.mkfifo(user.runtime / "go")
    user.install(SERVES_WHEN_TOLD)
    starter = user.starter(nursery)
    async with trio.open_nursery() as going:
        going.start_soon(starter.start, user.destination)
        await a_daemon(user)
        going.cancel_scope.cancel()
    assert user.lock.exists()

    (user.runtime / "go").write_text("\n")

    await eventually(lambda: not user.lock.exists(), "the lock is released")
    assert accepts(user.socket)


async def test_a_proxyd_that_stops_leaves_no_lock_and_no_process(user):
    user.install(NEVER_LISTENS)
    before = children()

    async with trio.open_nursery() as nursery:
        starter = user.starter(nursery)
        nursery.start_soon(starter.start, user.destination)
        await a_daemon(user)
        nursery.cancel_scope.cancel()

    assert not user.lock.exists()
    assert children() == before
    os.kill(user.started()[0], 0)  # the daemon stays, as any client of libvirt's would leave it


async def test_a_proxyd_that_stops_while_it_waits_for_the_lock_leaves_it_alone(user):
    user.make_runtime()
    user.install(SERVES)
    with other_starter(user) as other:
        async with trio.open_nursery() as nursery:
            starter = user.starter(nursery)
            nursery.start_soon(starter.start, user.destination)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert user.lock.exists()
        tell(other, "unlock")
    assert user.started() == []
