import fcntl
import os
import shlex
import stat
import subprocess
import sys

import pytest

from proxyd.process.pidfile import PidFileError, PidFileTaken, acquire_pid_file
from tests.bed.stranger import LOCKS, NOBODY, held_by_a_stranger

HOLDER = """
import sys
from proxyd.process.pidfile import acquire_pid_file
held = acquire_pid_file(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


# How libvirt's daemons lock it.
LIBVIRTS = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX, 1, 0)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "daemon.pid"


@pytest.fixture
def holder(path):
    """Another process that holds the pid file until its stdin ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], **pipes) as child:
        assert child.stdout.readline() == b"held\n"
        yield child
        child.stdin.close()


def acquire(path):
    return acquire_pid_file(str(path))


def test_the_file_holds_the_pid_without_a_line_feed(path):
    held = acquire(path)
    assert path.read_text() == str(os.getpid())
    held.release()


def test_anybody_may_read_the_file_whatever_the_umask(path):
    before = os.umask(0o077)
    held = acquire(path)
    os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    held.release()


def test_a_release_removes_the_file_and_frees_its_descriptor(path):
    descriptors = len(os.listdir("/proc/self/fd"))
    held = acquire(path)
    held.release()
    held.release()
    assert not path.exists()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_release_leaves_a_file_that_is_not_its_own(path):
    held = acquire(path)
    path.unlink()
    path.write_text("somebody else's")
    held.release()
    assert path.read_text() == "somebody else's"


def test_the_file_of_a_dead_daemon_is_taken_over(path):
    path.write_text("4194304 and a long rest")
    held = acquire(path)
    assert path.read_text() == str(os.getpid())
    held.release()


def test_a_second_daemon_is_told_who_runs_and_what_to_do(path, holder):
    with pytest.raises(PidFileTaken) as caught:
        acquire(path)
    text = str(caught.value)
    assert caught.value.owner.pid == holder.pid
    assert f"{path} is locked by pid {holder.pid} ({shlex.quote(sys.executable)} -c" in text
    assert f"kill {holder.pid}" in text
    assert "--pid-file" in text
    assert path.read_text() == str(holder.pid)


def test_a_refused_daemon_leaves_no_descriptor(path, holder):
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PidFileTaken):
        acquire(path)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_owner_is_named_before_it_has_written_its_pid(path, holder):
    path.write_text("")
    with pytest.raises(PidFileTaken, match=f"pid {holder.pid} "):
        acquire(path)


def test_the_lock_ends_with_the_process(path, holder):
    holder.kill()
    holder.wait()
    held = acquire(path)
    assert path.read_text() == str(os.getpid())
    held.release()


def test_a_file_that_was_replaced_while_locking_is_opened_again(path, monkeypatch):
    first_inode = []
    lock = fcntl.lockf

    def lock_as_the_old_daemon_leaves(fd, *rest):
        if not first_inode:
            first_inode.append(os.fstat(fd).st_ino)
            path.rename(path.with_suffix(".old"))
        lock(fd, *rest)

    monkeypatch.setattr(fcntl, "lockf", lock_as_the_old_daemon_leaves)
    held = acquire(path)
    assert path.stat().st_ino != first_inode[0]
    assert path.read_text() == str(os.getpid())
    held.release()


def test_a_file_that_is_always_replaced_is_given_up(path, monkeypatch):
    monkeypatch.setattr(fcntl, "lockf", lambda *_: path.unlink())
    with pytest.raises(PidFileError, match="again and again"):
        acquire(path)


def test_a_symbolic_link_is_not_followed(path, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(PidFileError, match="symbolic link"):
        acquire(path)
    assert victim.read_text() == "precious"


def test_a_named_pipe_is_refused_and_not_waited_for(path):
    os.mkfifo(path)
    with pytest.raises(PidFileError, match="no regular file"):
        acquire(path)


def test_a_missing_directory_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(PidFileError, match=f"mkdir -p {tmp_path}/absent"):
        acquire(tmp_path / "absent" / "daemon.pid")


def test_a_path_that_cannot_be_opened_says_why(tmp_path):
    with pytest.raises(PidFileError, match=r"Is a directory.*--pid-file"):
        acquire(tmp_path)


# ---- locks of those who may only read


@pytest.fixture
def left_behind(path):
    """The file of a daemon that was killed, which everybody may read."""
    path.write_text("4194304")
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("lock", LOCKS)
def test_whoever_may_only_read_the_file_keeps_no_daemon_from_it(left_behind, lock):
    with held_by_a_stranger(left_behind, lock):
        held = acquire(left_behind)

    assert left_behind.read_text() == str(os.getpid())
    assert stat.S_IMODE(left_behind.stat().st_mode) == 0o644
    assert os.listdir(left_behind.parent) == [left_behind.name]
    held.release()
    assert os.listdir(left_behind.parent) == []


def test_a_file_that_took_a_strangers_place_keeps_others_out(left_behind, path):
    with held_by_a_stranger(left_behind):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], **pipes) as first:
            assert first.stdout.readline() == b"held\n"
            with pytest.raises(PidFileTaken) as caught:
                acquire(path)
            assert caught.value.owner.pid == first.pid
            first.stdin.close()


def test_a_new_file_cannot_be_locked_by_readers_before_it_is_by_us(path, monkeypatch):
    modes = []
    lock = fcntl.lockf

    def noted(fd, *rest):
        modes.append(stat.S_IMODE(os.fstat(fd).st_mode))
        lock(fd, *rest)

    monkeypatch.setattr(fcntl, "lockf", noted)
    before = os.umask(0)
    held = acquire(path)
    os.umask(before)

    assert modes == [0o600]
    held.release()


def test_a_daemon_that_gets_the_old_file_in_the_meantime_is_given_way(
    left_behind, path, monkeypatch
):
    """As one of libvirt's can, which knows nothing of our turns."""
    inode = left_behind.stat().st_ino
    children = []
    rename = os.rename

    with held_by_a_stranger(left_behind) as stranger:

        def another_was_quicker(source, target):
            if not children:
                stranger.kill()
                stranger.wait()
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
                children.append(
                    subprocess.Popen([sys.executable, "-c", LIBVIRTS, str(path)], **pipes)
                )
                assert children[0].stdout.readline() == b"held\n"
            rename(source, target)

        monkeypatch.setattr(os, "rename", another_was_quicker)
        with pytest.raises(PidFileTaken) as caught:
            acquire(path)

    assert caught.value.owner.pid == children[0].pid
    assert path.stat().st_ino == inode
    assert os.listdir(path.parent) == [path.name]
    children[0].communicate()


def test_of_many_daemons_that_start_under_a_strangers_lock_one_goes_on(left_behind, path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with held_by_a_stranger(left_behind):
        daemons = [
            subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], **pipes) for _ in range(6)
        ]
        first_words = [daemon.stdout.readline() for daemon in daemons]
        winners = [each for each, word in zip(daemons, first_words, strict=True) if word]
        assert len(winners) == 1
        assert path.read_text() == str(winners[0].pid)
        for daemon in daemons:
            daemon.communicate()


def test_a_file_of_another_user_is_refused_and_whose_it_is_is_said(path):
    path.write_text("1")
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(PidFileError, match=f"belongs to uid {NOBODY}.*remove it"):
        acquire(path)
