"""Where a run takes place: nothing of it is left, and other users get in where it is closed."""

import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.bed.command import run_to_end
from tests.bed.daemon import short_directory
from tests.bed.place import CHECKOUT
from tests.bed.waiting import wait_until
from tests.conftest import ALONE, DISTRIBUTION, NOT_DISTRIBUTION, NOT_UNIT, UNIT

NOBODY = 65534
ENTER = """
import os, signal, subprocess, sys
from pathlib import Path
from tests.bed import place
"""
KILLED = (
    ENTER
    + """
janitor = place.enter()
Path("/tmp/left").write_text("by who was killed")
Path("/tmp/mounted").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/tmp/mounted"], check=True)
print(sorted(os.listdir("/tmp")))
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
)
# $1 is a checkout below a directory that is closed to others.
CLOSED = (
    ENTER
    + """
place.CHECKOUT = Path(sys.argv[1])
janitor = place.enter()
as_nobody = {"user": 65534, "group": 65534, "extra_groups": []}
command = ["cat", f"{place.CHECKOUT}/a file"]
subprocess.run(command, check=True, **as_nobody)
Path(place.CHECKOUT, "written").write_text("")  # by the run itself, into the real one
janitor.finish()
"""
)
NETWORK = (
    ENTER
    + """
import socket
place.enter_own_network()
six = socket.create_server(("::1", 1), family=socket.AF_INET6)
with six, socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    print(sorted(name for _, name in socket.if_nameindex()))
"""
)


def run(script, *arguments):
    environment = {"PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return run_to_end(command, deadline_s=60, environment=environment)


def places():
    return set(Path("/tmp").glob("proxyd-tests-*"))


@pytest.mark.system
def test_a_run_that_is_killed_leaves_nothing():
    before, mounts = places(), Path("/proc/self/mounts").read_text()
    done = run(KILLED)
    assert done.status == -signal.SIGKILL
    assert done.stdout == "['left', 'mounted', 'qemu']\n"  # the last one is the run's own
    wait_until(lambda: places() == before, 30, "its directory is gone")
    assert Path("/proc/self/mounts").read_text() == mounts
    assert not Path("/tmp/left").exists()


@pytest.mark.system
@pytest.mark.parametrize("name", ["closed", "clo,sed: with \\ in it"])
def test_other_users_reach_a_checkout_in_a_closed_directory(name):
    with short_directory(0o755) as directory:
        closed = directory / name
        checkout = closed / "deeper" / "a checkout"
        checkout.mkdir(parents=True)
        (checkout / "a file").write_text("reached")
        for each in (closed, closed / "deeper"):
            each.chmod(0o700)
        before = run_to_end(["cat", str(checkout / "a file")], deadline_s=10, user=NOBODY)
        assert before.status != 0
        assert run(CLOSED, checkout).succeeded() == "reached"
        assert (checkout / "written").exists()
        assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.system
def test_a_worker_has_every_port_for_itself():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(NETWORK, taken.getsockname()[1]).succeeded() == "['lo']\n"


def test_what_runs_alone_and_what_needs_nothing_is_there():
    root = CHECKOUT / "tests"
    known = [
        f"{path.relative_to(root).as_posix()}::{name}"
        for path in root.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    ]
    for start in (*ALONE, *UNIT, *NOT_UNIT, *DISTRIBUTION, *NOT_DISTRIBUTION):
        assert any(name.startswith(start) for name in known), start
