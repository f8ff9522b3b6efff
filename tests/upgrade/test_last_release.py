"""From one release to another: from and to what knows no upgrade, and to one that is to come."""

import json
import re
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bed.releases import SESSIONS, Host

REPOSITORY = Path(__file__).parents[2]
LAST = "f8e1c53b1794ccc9816fdd533b4c93a1a07ae4d7"
FORMAT = re.compile(r"^(FORMAT: Final) = .*\n(READS: Final) = .*$", re.MULTILINE)


@pytest.fixture(scope="module")
def last_release(tmp_path_factory):
    """The package as it was before there were upgrades."""
    directory = tmp_path_factory.mktemp("last")
    command = ["git", "-c", "safe.directory=*", "-C", str(REPOSITORY), "archive", LAST, "proxyd"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(directory)], input=archive, check=True)
    return directory


@pytest.fixture(scope="module")
def next_release(tmp_path_factory):
    """This package with a format of its own, which reads this one's."""
    directory = tmp_path_factory.mktemp("next")
    shutil.copytree(REPOSITORY / "proxyd", directory / "proxyd")
    path = directory / "proxyd/upgrade/format.py"
    text, count = FORMAT.subn(r"\1 = 3\n\2 = frozenset({2, 3})", path.read_text())
    assert count == 1
    path.write_text(text)
    return directory


@pytest.fixture
def make_host():
    with ExitStack() as stack:
        yield lambda release: Host(stack, release)


def test_a_daemon_that_cannot_hand_over_is_to_be_restarted_once(make_host, last_release):
    said = make_host(last_release).refuses()
    assert "is older than this command and cannot do that; to make it this one" in said
    assert "systemctl restart virtproxyd" in said


def test_a_program_that_cannot_take_over_does_not(make_host, last_release):
    host = make_host(REPOSITORY)
    host.install(last_release)
    said = host.refuses()
    assert f"process {host.front.pid} goes on to serve" in said
    assert "it is of a release that cannot take over" in said
    assert "restart the daemon once" in said
    assert f"locked by pid {host.front.pid}" in said
    host.install(REPOSITORY)
    host.front.upgrade()
    assert host.sessions.go_on() == []


def test_a_release_to_come_takes_over_and_does_not_give_back(make_host, next_release):
    host = make_host(REPOSITORY)
    host.install(next_release)
    done = host.front.upgrade()
    assert (done["moved"], done["staying"]) == (SESSIONS, 0)
    assert host.sessions.go_on() == []
    host.front.upgrade()
    host.install(REPOSITORY)
    said = host.refuses()
    assert "speaks format 3 of the hand-over, this release [1, 2]: restart it once" in said
    assert json.loads(host.front.command("clients", "--json").succeeded())
