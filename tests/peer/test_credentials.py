import errno
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxyd.negotiation.identity import UNSEEN_PID, UNSEEN_START
from proxyd.peer.credentials import (
    Denied,
    credentials_of,
    ensure_it_is_there,
    names_of,
    peer_pidfd,
)
from tests.bed.daemon import short_directory

WITHOUT_NAME = 54321

CLIENT = """
import ctypes, socket, sys
if len(sys.argv) > 2:
    PR_SET_NAME = 15
    ctypes.CDLL(None).prctl(PR_SET_NAME, sys.argv[2].encode(), 0, 0, 0)
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
sys.stdin.read()
"""


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    with near, far:
        yield near, far


@contextmanager
def client_process(*wrapper, name=None):
    """A process that is connected to us, and our end of the connection."""
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "sock"))
        listener.listen()
        listener.settimeout(10)
        command = [*wrapper, sys.executable, "-c", CLIENT, str(directory / "sock")]
        if name is not None:
            command.append(name)
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            sock, _ = listener.accept()
            with sock:
                yield process, sock
            process.stdin.close()


def boot_ticks():
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def test_the_other_end_of_a_pair_is_this_process(pair):
    peer = credentials_of(pair[0])

    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert 0 < peer.start_ticks <= boot_ticks()


def test_the_start_time_is_the_processs_own():
    before = boot_ticks()
    with client_process() as (process, sock):
        peer = credentials_of(sock)

        assert peer.pid == process.pid
        assert before - 1 <= peer.start_ticks <= boot_ticks()


def test_credentials_are_those_of_the_moment_of_connecting():
    os.setegid(65534)
    os.seteuid(WITHOUT_NAME)
    try:
        near, far = socket.socketpair()
    finally:
        os.seteuid(0)
        os.setegid(0)
    with near, far:
        peer = credentials_of(near)
        assert (peer.uid, peer.gid) == (WITHOUT_NAME, 65534)


@pytest.mark.parametrize(
    "name", ["a b", ") R 1 2 3", "(x) (y)", "a\nb 7", ")))) ) )", "", "0 0 0 0 0 0 0"]
)
def test_a_process_name_cannot_forge_the_start_time(name):
    with client_process(name="plain") as (_, sock):
        plain = credentials_of(sock)
    with client_process(name=name) as (process, sock):
        peer = credentials_of(sock)

        assert peer.pid == process.pid
        assert plain.start_ticks <= peer.start_ticks <= boot_ticks()


@contextmanager
def of_one_that_ended(pair):
    """The number of a process that has ended, and a connection that it made."""
    child = os.fork()
    if not child:
        mine, theirs = socket.socketpair()
        socket.send_fds(pair[1], [b"."], [mine.fileno(), theirs.fileno()])
        os._exit(0)
    _, descriptors, _, _ = socket.recv_fds(pair[0], 1, 2)
    os.waitpid(child, 0)
    near, far = (socket.socket(fileno=each) for each in descriptors)
    with near, far:
        yield child, near


def test_a_process_that_has_ended_is_denied(pair):
    with (
        of_one_that_ended(pair) as (pid, sock),
        pytest.raises(Denied, match=f"process {pid} has ended"),
    ):
        credentials_of(sock)


def test_a_process_that_was_killed_is_denied():
    with client_process() as (process, sock):
        process.send_signal(signal.SIGKILL)
        process.wait()

        with pytest.raises(Denied, match=f"process {process.pid} has ended"):
            credentials_of(sock)


def test_a_process_of_an_inner_pid_namespace_has_its_number_of_out_here():
    with client_process("unshare", "--pid", "--fork") as (process, sock):
        peer = credentials_of(sock)

        assert peer.pid not in {0, 1, process.pid}
        assert peer.start_ticks > 0


LOOKING_OUT = """
import socket, sys
from proxyd.peer.credentials import credentials_of
sock = socket.socket(fileno=int(sys.argv[1]))
peer = credentials_of(sock)
print(peer.pid, peer.uid, peer.start_ticks)
"""


def test_a_process_that_cannot_be_seen_from_here_has_no_number(pair):
    # Seen from an inner pid namespace, this process is one of a foreign one.
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", LOOKING_OUT]
    done = subprocess.run(
        [*command, str(pair[1].fileno())],
        check=True,
        capture_output=True,
        text=True,
        pass_fds=[pair[1].fileno()],
    )
    assert done.stdout.split() == [str(UNSEEN_PID), str(os.geteuid()), str(UNSEEN_START)]


def test_without_selinux_there_is_no_label(pair):
    assert os.path.exists("/sys/fs/selinux/enforce") or (
        credentials_of(pair[0]).selinux_context is None
    )


def test_roots_names():
    assert names_of(0, 0) == ("root", "root")


def test_nobodys_names_come_from_uid_and_gid_each():
    assert names_of(65534, 0) == ("nobody", "root")


@pytest.mark.parametrize(
    ("uid", "gid", "says"),
    [
        (WITHOUT_NAME, 0, "no user has the uid 54321: add one"),
        (0, WITHOUT_NAME, "no group has the gid 54321: add one"),
        (WITHOUT_NAME, WITHOUT_NAME, "no user has the uid 54321"),
        (2**32 - 2, 0, "no user has the uid 4294967294"),
    ],
)
def test_a_number_without_a_name_is_denied(uid, gid, says):
    with pytest.raises(Denied, match=says):
        names_of(uid, gid)


# ---- whether it is still there


@contextmanager
def closing(descriptor):
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Kernel:
    """In the place of a socket, on a kernel that answers with an error."""

    def __init__(self, number):
        self.number = number

    def getsockopt(self, *_):
        raise OSError(self.number, os.strerror(self.number))


def test_a_pidfd_is_of_the_process_that_connected():
    with client_process() as (process, sock), closing(peer_pidfd(sock)) as pidfd:
        assert not os.get_inheritable(pidfd)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_an_older_kernel_has_no_pidfd():
    assert peer_pidfd(Kernel(errno.ENOPROTOOPT)) is None


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ESRCH, "has ended"),
        (errno.EINVAL, "has ended"),
        (errno.EMFILE, "cannot get hold of .* Too many open files"),
    ],
)
def test_without_a_pidfd_that_there_should_be_the_client_is_denied(number, says):
    with pytest.raises(Denied, match=says):
        peer_pidfd(Kernel(number))


@pytest.mark.parametrize("by_pidfd", [True, False])
def test_a_process_is_known_again(by_pidfd):
    with client_process() as (_, sock), closing(peer_pidfd(sock)) as pidfd:
        peer = credentials_of(sock)
        ensure_it_is_there(peer.pid, peer.start_ticks, pidfd if by_pidfd else None)

        for other in (peer.start_ticks - 1, peer.start_ticks + 1):
            with pytest.raises(Denied, match=f"{peer.pid} is not the one that connected"):
                ensure_it_is_there(peer.pid, other, pidfd if by_pidfd else None)


@pytest.mark.parametrize("by_pidfd", [True, False])
def test_a_process_that_ended_since_is_not_there(by_pidfd):
    with client_process() as (process, sock), closing(peer_pidfd(sock)) as pidfd:
        peer = credentials_of(sock)
        process.kill()
        process.wait()
        with pytest.raises(Denied, match="has ended"):
            ensure_it_is_there(peer.pid, peer.start_ticks, pidfd if by_pidfd else None)


def test_a_number_that_another_process_has_now_is_told_by_the_pidfd(pair):
    # As if this process had been given the number of the one that connected.
    own = credentials_of(pair[0])
    with client_process() as (process, sock), closing(peer_pidfd(sock)) as pidfd:
        process.kill()
        process.wait()
        with pytest.raises(Denied, match=f"process {own.pid}, which connected, has ended"):
            ensure_it_is_there(own.pid, own.start_ticks, pidfd)


def test_of_a_process_that_ended_before_it_was_asked_for_there_is_no_pidfd_that_counts(pair):
    # Before Linux 6.16 there is none at all.
    with (
        of_one_that_ended(pair) as (pid, sock),
        pytest.raises(Denied, match="has ended"),
        closing(peer_pidfd(sock)) as pidfd,
    ):
        ensure_it_is_there(pid, 0, pidfd)


def test_a_descriptor_of_something_else_is_no_process(pair):
    own = credentials_of(pair[0])
    with pytest.raises(Denied, match="is no process"):
        ensure_it_is_there(own.pid, own.start_ticks, pair[0].fileno())


def test_a_process_that_cannot_be_seen_cannot_be_known_again():
    with pytest.raises(Denied, match="pid namespace"):
        ensure_it_is_there(UNSEEN_PID, UNSEEN_START)


WITH_THREADS = """
import sys, threading
threading.stack_size(32768)
over = threading.Event()
for _ in range(int(sys.argv[1])):
    threading.Thread(target=over.wait, daemon=True).start()
print("there", flush=True)
sys.stdin.read()
"""
EXECED_BY_A_THREAD = """
import os, sys, threading, time
def become():
    os.execv(sys.executable, [sys.executable, "-c", "print('there', flush=True); input()"])
threading.Thread(target=become).start()
threading.Event().wait()
"""


@contextmanager
def there(*command):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", *command], **pipes) as process:
        assert process.stdout.readline() == b"there\n"
        yield process.pid
        process.stdin.close()
        process.kill()


def told_by_proc(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@pytest.mark.parametrize("command", [(WITH_THREADS, "5"), (EXECED_BY_A_THREAD,)])
def test_the_start_time_of_a_process_is_that_of_its_first_thread(command):
    with there(*command) as pid:
        ensure_it_is_there(pid, told_by_proc(pid))


def test_a_process_of_thousands_of_threads_is_looked_at_as_fast_as_any():
    with there(WITH_THREADS, "3000") as many, there(WITH_THREADS, "0") as one:
        took = {many: [], one: []}
        for _ in range(200):
            for pid, times in took.items():
                start_ticks = told_by_proc(pid)
                began = time.perf_counter()
                ensure_it_is_there(pid, start_ticks)
                times.append(time.perf_counter() - began)
    assert statistics.median(took[many]) < 5 * statistics.median(took[one])


@pytest.mark.parametrize("count", [0, 3, 256, 257, 3000])
def test_the_groups_are_those_of_the_process_that_connected(count):
    gids = [70000 + each for each in range(count)]
    listed = ["--groups", ",".join(map(str, gids))] if gids else ["--clear-groups"]
    with client_process("setpriv", "--regid", "5", *listed) as (_, sock):
        found = credentials_of(sock).gids
    assert found[0] == 5
    assert sorted(found[1:]) == gids
