import errno
import logging
import os
import shlex
import socket
import stat
import subprocess
import sys
import time
import uuid
from contextlib import suppress

import pytest

from proxyd.endpoint import ancillary
from proxyd.endpoint.couriers import COURIERS
from proxyd.listen.unix import (
    LONGEST_PATH,
    AddressTaken,
    ListenerError,
    UnixListenerSpec,
    open_unix_listener,
)
from tests.fakes.lingering import lingering

AT_ONCE_S = 1.0  # each of them would linger for a minute
DEADLINE_S = 20

OWNER = """
import socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen(1)
print("listens", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "libvirt-sock"


@pytest.fixture
def daemon(path):
    """Another process that serves the path until its stdin ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", OWNER, str(path)], **pipes) as child:
        assert child.stdout.readline() == b"listens\n"
        yield child
        child.stdin.close()


def listen(path, *, mode=0o600, gid=None, backlog=5):
    return open_unix_listener(UnixListenerSpec(path=str(path), mode=mode, gid=gid, backlog=backlog))


def leave_stale(path):
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
        gone.listen()


def connects(address):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        return client.connect_ex(address) == 0


def test_a_client_can_connect(path):
    opened = listen(path)
    assert connects(str(path))
    opened.close()


def test_the_socket_does_not_block_and_is_not_inherited(path):
    opened = listen(path)
    with pytest.raises(BlockingIOError):
        opened.socket.accept()
    assert not os.get_inheritable(opened.socket.fileno())
    opened.close()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o770, 0o777])
def test_the_mode_is_exact_whatever_the_umask(path, mode, umask):
    before = os.umask(umask)
    opened = listen(path, mode=mode)
    assert os.umask(before) == umask
    assert stat.S_IMODE(path.stat().st_mode) == mode
    opened.close()


@pytest.mark.system  # only root can give a file to any group
def test_the_group_is_set_and_the_owner_stays(path):
    opened = listen(path, gid=12345)
    assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), 12345)
    opened.close()


def test_nobody_can_connect_before_the_permissions_are_right(path, monkeypatch):
    tried = []
    chmod = os.chmod

    def try_then_chmod(*args):
        tried.append(connects(str(path)))
        chmod(*args)

    monkeypatch.setattr(os, "chmod", try_then_chmod)
    listen(path).close()
    assert tried == [False]


def test_a_stale_socket_file_is_replaced(path):
    leave_stale(path)
    opened = listen(path)
    assert connects(str(path))
    opened.close()


def test_a_live_daemon_keeps_its_socket_and_is_named(path, daemon):
    identity = path.stat().st_ino
    with pytest.raises(AddressTaken) as caught:
        listen(path)
    text = str(caught.value)
    assert caught.value.owner.pid == daemon.pid
    assert f"{path} is served by pid {daemon.pid} ({shlex.quote(sys.executable)} -c" in text
    assert "systemctl stop libvirtd.socket" in text
    assert "unix_sock_dir" in text
    assert path.stat().st_ino == identity
    assert connects(str(path))


def test_a_daemon_whose_backlog_is_full_keeps_its_socket(path):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = []
        for _ in range(10):
            waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            if waiting[-1].connect_ex(str(path)) == errno.EAGAIN:
                break
        with pytest.raises(AddressTaken, match=f"fuser {path}"):
            listen(path)
        for client in waiting:
            client.close()
    assert path.exists()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_live_socket_of_another_type_is_kept(path, kind):
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(path))
        if kind == socket.SOCK_SEQPACKET:
            other.listen()
        with pytest.raises(AddressTaken):
            listen(path)
    assert path.exists()


def test_a_socket_that_may_not_be_asked_is_kept(path, monkeypatch):
    leave_stale(path)

    class Forbidden(socket.socket):
        def connect(self, _):
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "socket", Forbidden)
    with pytest.raises(ListenerError, match=r"cannot tell.*Permission denied.*systemctl stop"):
        listen(path)
    assert path.exists()


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: path.write_text("x"), "a regular file"),
        (lambda path: path.mkdir(), "a directory"),
        (os.mkfifo, "a named pipe"),
        (lambda path: path.symlink_to("/nowhere"), "a symbolic link"),
    ],
)
def test_what_is_no_socket_is_never_removed(path, make, kind):
    make(path)
    before = os.lstat(path)
    with pytest.raises(ListenerError, match=f"{kind}, which this daemon never removes"):
        listen(path)
    assert os.path.samestat(os.lstat(path), before)


def test_a_link_to_a_stale_socket_is_not_followed(path, tmp_path):
    leave_stale(tmp_path / "other")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(ListenerError, match="a symbolic link"):
        listen(path)
    assert (tmp_path / "other").exists()


def test_a_path_that_is_too_long_is_named_with_the_limit(tmp_path):
    path = tmp_path / ("x" * 200)
    with pytest.raises(ListenerError, match=rf"{path} has \d+ bytes and the kernel takes 107"):
        listen(path)


def test_the_longest_path_works(tmp_path, monkeypatch):
    # A relative path reaches the limit whatever the length of the temporary directory.
    monkeypatch.chdir(tmp_path)
    path = "x" * LONGEST_PATH
    opened = listen(path)
    assert connects(path)
    opened.close()


def test_a_missing_directory_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(ListenerError, match=f"mkdir -p {tmp_path}/absent"):
        listen(tmp_path / "absent" / "libvirt-sock")


def test_a_file_in_a_directorys_place_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ListenerError, match="Not a directory"):
        listen(tmp_path / "file" / "libvirt-sock")


def test_closing_removes_the_file(path):
    opened = listen(path)
    opened.close()
    opened.close()
    assert not path.exists()


def test_closing_leaves_a_file_that_is_not_its_own(path):
    opened = listen(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        opened.close()
        assert path.exists()


def test_a_failure_after_the_bind_leaves_nothing(path, monkeypatch):
    descriptors = len(os.listdir("/proc/self/fd"))

    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    with pytest.raises(ListenerError, match="Operation not permitted"):
        listen(path)
    assert not path.exists()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_path_taken_between_look_and_bind_is_not_lost(path, monkeypatch):
    rival = socket.socket(socket.AF_UNIX)
    real_isdir = os.path.isdir

    def isdir_while_a_rival_starts(directory):
        rival.bind(str(path))
        rival.listen()
        return real_isdir(directory)

    monkeypatch.setattr(os.path, "isdir", isdir_while_a_rival_starts)
    with pytest.raises(AddressTaken, match=f"pid {os.getpid()}"):
        listen(path)
    rival.close()
    assert path.exists()


@pytest.fixture
def abstract():
    return f"@proxyd-test-{uuid.uuid4()}"


def test_an_abstract_name_is_found_by_libvirts_clients(abstract):
    opened = listen(abstract, mode=0o777)
    assert connects(b"\0" + abstract[1:].encode().ljust(LONGEST_PATH, b"\0"))
    opened.close()


def test_an_abstract_name_that_is_served_is_kept(abstract):
    opened = listen(abstract, mode=0o777)
    with pytest.raises(AddressTaken, match=f"pid {os.getpid()}"):
        listen(abstract, mode=0o777)
    opened.close()


def test_an_abstract_name_that_was_asked_to_be_private_is_warned_about(abstract, caplog):
    with caplog.at_level(logging.WARNING):
        listen(abstract, mode=0o700).close()
    assert "mode 0700 and group are not applied" in caplog.text


def test_its_close_waits_for_nobody_in_its_backlog(path, monkeypatch):
    """Kernels before Linux 6.16 let descriptors through, and to close these may take for ever."""
    monkeypatch.setattr(ancillary, "SO_PASSRIGHTS", 9999)
    listener = open_unix_listener(UnixListenerSpec(path=str(path), mode=0o700, gid=None, backlog=9))
    readers, clients = [], []
    for _ in range(3):
        reader, sock = lingering()
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        socket.send_fds(client, [b"\0"], [sock.fileno()])
        sock.close()
        readers.append(reader)
        clients.append(client)
    began = time.monotonic()
    listener.close()
    assert time.monotonic() - began < AT_ONCE_S
    assert COURIERS.settled(DEADLINE_S)
    for each in clients:
        each.settimeout(DEADLINE_S)
        with suppress(ConnectionResetError):
            assert each.recv(1) == b""
    assert COURIERS.dismiss(DEADLINE_S)
    for each in (*clients, *readers):
        each.close()
