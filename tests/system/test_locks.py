"""Locks: of the pid file, as proxyd and a real libvirtd see each other by it; and of strangers."""

import os
import shutil
from pathlib import Path

import pytest

from proxyd.process.pidfile import PidFileTaken, acquire_pid_file
from tests.bed.command import run_to_end
from tests.bed.daemon import short_directory
from tests.bed.libvirtd import Libvirtd
from tests.bed.stranger import held_by_a_stranger

pytestmark = pytest.mark.system


@pytest.fixture
def libvirtd():
    """One that does not run yet, and whose pid file a killed one has left behind."""
    with short_directory() as directory:
        made = Libvirtd(directory)
        made.daemon.pid_file.write_text("4194304")
        made.daemon.pid_file.chmod(0o644)
        yield made
        made.stop()


def test_a_libvirtd_that_runs_is_seen_by_its_pid_file(libvirtd):
    with libvirtd, pytest.raises(PidFileTaken) as caught:
        acquire_pid_file(str(libvirtd.daemon.pid_file))

    assert caught.value.owner.pid == libvirtd.pid
    assert "libvirtd" in str(caught.value)


@pytest.mark.parametrize("under_a_strangers_lock", [False, True])
def test_a_libvirtd_sees_by_the_pid_file_that_we_run(libvirtd, under_a_strangers_lock):
    path = libvirtd.daemon.pid_file
    if under_a_strangers_lock:
        with held_by_a_stranger(path):
            held = acquire_pid_file(str(path))
    else:
        held = acquire_pid_file(str(path))

    with pytest.raises(ChildProcessError):
        libvirtd.start()

    assert "Failed to acquire pid file" in libvirtd.daemon.story()
    assert path.read_text() == str(os.getpid())
    held.release()
    libvirtd.start()  # and afterwards it is free


CHECKOUT = Path(__file__).parents[2]


def test_whoever_can_read_the_checkout_does_not_keep_it_from_being_made_ready(tmp_path):
    shutil.copytree(CHECKOUT / "script", tmp_path / "script")
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    (tmp_path / "script/environment.py").write_text("")  # all of it is there

    with held_by_a_stranger(tmp_path / "pyproject.toml", "flock"):
        command = [str(tmp_path / "script/bootstrap"), "--for", "unit", "--here"]
        run_to_end(command, deadline_s=60).succeeded()

    assert not (tmp_path / ".bootstrap.lock").exists()
