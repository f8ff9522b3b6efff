"""A daemon whose program is replaced under it, as an update does, says so and what mends it."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import proxyd
from tests.bed.command import run_to_end
from tests.bed.virsh import unix_uri, virsh

pytestmark = pytest.mark.system

OLD_S = 1_500_000_000
RELEASE = proxyd.__version__


@pytest.fixture
def copied(tmp_path):
    """A place that a daemon is started from, with the package in it."""
    place = tmp_path / "installed"
    shutil.copytree(
        Path(proxyd.__file__).parent, place / "proxyd", ignore=lambda *_: ["__pycache__"]
    )
    return place


@pytest.fixture
def front(make_proxyd, copied):
    return make_proxyd(environment={"PYTHONPATH": str(copied)})


def asked(front, *words, place=None):
    command = [sys.executable, "-m", "proxyd", *words]
    environment = {"PYTHONPATH": str(place)} if place is not None else {}
    # Nowhere is a package of that name.
    return run_to_end(
        ["env", "-C", str(front.directory), *command], deadline_s=60, environment=environment
    )


def status(front, *words, **where):
    return asked(front, "status", *words, "-s", str(front.admin_sock), **where)


def found(front):
    return json.loads(status(front, "--json").stdout)


def install(place, release=RELEASE, when=None):
    """Puts all files there anew, as dpkg does: each under another name first."""
    for path in [path for path in place.rglob("*.py") if path.is_file()]:
        new = path.with_name(f"{path.name}.dpkg-new")
        shutil.copyfile(path, new)
        if path == place / "proxyd" / "__init__.py":
            new.write_text(new.read_text().replace(RELEASE, release))
        if when is not None:
            os.utime(new, (when, when))
        new.rename(path)


@pytest.mark.parametrize("when", [None, OLD_S])
def test_an_update_is_told_by_status_and_doctor_with_what_mends_it(front, copied, when):
    assert found(front)["program"]["outdated"] == []
    assert status(front).status == 0

    install(copied, "99.1", when)

    program = found(front)["program"]
    assert program["outdated"] == [f"{RELEASE} runs, 99.1 is installed"]
    assert program["installed"] == "99.1"
    said = status(front)
    assert said.status == 1
    assert "! what runs is not what is installed: " in said.stdout
    doctor = json.loads(asked(front, "doctor", "--json", "-f", str(front.conf)).stdout)
    finding = next(each for each in doctor["findings"] if each["code"] == "old-program")
    assert program["remedy"] == "proxyd upgrade"
    assert finding["severity"] == "warning"
    assert finding["fix"][0].endswith(f"proxyd upgrade --config {front.conf}")
    assert virsh(unix_uri("test:///default", front.sock), "uri").status == 0


def test_what_mends_it_works_when_it_is_pasted(front, copied):
    install(copied, "99.1")
    old = found(front)
    (concern,) = old["verdict"]["attention"]
    line = concern["text"].partition("To mend that: ")[2]
    assert line.endswith(f"proxyd upgrade --socket {front.admin_sock}")
    run_to_end(["bash", "-c", line], deadline_s=60).succeeded()
    new = found(front)
    assert new["pid"] != old["pid"]
    assert (new["version"], new["program"]["outdated"]) == ("99.1", [])


def test_files_that_are_removed_altogether_are_told(front, copied):
    shutil.rmtree(copied)
    program = found(front)["program"]
    assert (program["outdated"], program["installed"]) == (["its files were removed"], "")
    # What it had not loaded yet is not to be had any more; what it serves goes on.
    assert virsh(unix_uri("test:///default", front.sock), "uri").status == 0


def test_a_command_of_another_release_says_so(make_proxyd, copied):
    front = make_proxyd()
    install(copied, "99.1")
    said = status(front, place=copied)
    assert f"the daemon is proxyd {RELEASE}, this command is 99.1" in said.stderr
    assert said.status == 0
