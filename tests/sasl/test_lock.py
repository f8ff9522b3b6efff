"""A lock among one user's processes: it excludes, it ends, and nobody else can hold it."""

import os
import subprocess
import sys
import threading

import pytest

from proxyd.sasl.lock import NotLocked, own_lock
from tests.bed.stranger import NOBODY, held_by_a_stranger

HOLDER = """
import sys
from pathlib import Path
from proxyd.sasl.lock import own_lock
with own_lock(Path(sys.argv[1]), 10):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


@pytest.fixture
def holder(path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], **pipes) as child:
        assert child.stdout.readline() == b"held\n"
        yield child
        child.stdin.close()


def test_while_it_is_held_its_file_is_its_owners_alone_and_afterwards_there_is_none(path):
    before = os.umask(0)
    with own_lock(path, 0):
        assert path.stat().st_mode & 0o777 == 0o600
    os.umask(before)
    assert not path.exists()


def test_another_process_is_not_waited_for_longer_than_was_said(path, holder):
    with pytest.raises(NotLocked, match=f"fuser -v {path}"), own_lock(path, 0.1):
        pass


def test_it_is_had_as_soon_as_another_process_lets_go(path, holder):
    threading.Timer(0.2, holder.stdin.close).start()
    with own_lock(path, 20):
        assert holder.wait(10) == 0


def test_a_process_that_was_killed_holds_nothing(path, holder):
    holder.kill()
    holder.wait()
    assert path.exists()
    with own_lock(path, 0):
        pass
    assert not path.exists()


def test_one_goes_on_at_a_time(path):
    within, most = [], []

    def enter():
        with own_lock(path, 30):
            within.append(1)
            most.append(len(within))
            within.pop()

    threads = [threading.Thread(target=enter) for _ in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert most == [1] * 20


def test_its_directory_may_be_held_by_anybody(path):
    with held_by_a_stranger(path.parent, "flock"), own_lock(path, 0):
        pass


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
def test_a_file_that_others_can_open_is_no_lock(path, mode):
    path.touch()
    path.chmod(mode)
    with pytest.raises(NotLocked, match="remove it"), own_lock(path, 0):
        pass


def test_a_file_that_another_user_has_put_there_is_no_lock(path):
    path.touch(0o600)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(NotLocked, match=f"uid {NOBODY}.*remove it"), own_lock(path, 0):
        pass


def test_a_link_is_not_followed(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"), own_lock(path, 0):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_named_pipe_is_not_waited_for(path):
    os.mkfifo(path, 0o600)
    with pytest.raises(NotLocked), own_lock(path, 0):
        pass


def test_no_descriptor_is_left(path):
    before = len(os.listdir("/proc/self/fd"))
    with own_lock(path, 0), pytest.raises(NotLocked), own_lock(path, 0):
        pass
    assert len(os.listdir("/proc/self/fd")) == before
