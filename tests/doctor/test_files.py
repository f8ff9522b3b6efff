"""Whose files are and who may read them: real files of real owners, and the kernel's own verdict.

The service's verdict is a shell's that is root without capabilities, as the unit makes it.
"""

import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from proxyd.doctor.files import in_the_way, way_to
from proxyd.doctor.findings import RELOAD
from proxyd.doctor.gather import judge
from proxyd.doctor.state import Way
from tests.bed.daemon import short_directory
from tests.doctor.hosts import configuration, host

OTHER = 54321  # nobody is called this
WITHOUT_CAPABILITIES = (
    *("setpriv", "--reuid=0", "--regid=0", "--clear-groups", "--no-new-privs"),
    *("--bounding-set=-all", "--inh-caps=-all", "--"),
)
READS = 'for file; do if cat -- "$file" >/dev/null 2>&1; then echo 1; else echo 0; fi; done'


def read_by_the_service(paths):
    """Whether each can be read by root without capabilities."""
    command = [*WITHOUT_CAPABILITIES, "sh", "-c", READS, "sh", *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return [line == "1" for line in done.stdout.splitlines()]


def closed(path, *, secret=True):
    """What the doctor finds in the way to a file, by paths."""
    return [step.path for step in in_the_way(host(), [way_to(str(path), secret=secret)])]


def mending(*ways):
    """The commands that mend what it finds."""
    findings = judge(host(configuration=replace(configuration(), files=ways)))
    (found,) = [each for each in findings if each.code == "unreadable-files"]
    return [line for line in found.fix if not line.startswith("# ")]


def bash(*lines):
    """Types them in, and returns what it says."""
    command = [shutil.which("bash"), "-euc", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


def own(path, uid=OTHER, gid=OTHER, mode=0o600):
    os.chown(path, uid, gid)
    path.chmod(mode)


def test_a_way_is_every_directory_and_the_file(tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").touch()
    own(tmp_path / "dir", mode=0o2750)
    own(tmp_path / "dir/file", gid=0, mode=0o640)
    way = way_to(f"{tmp_path}/./dir//../dir/file", secret=True)
    *above, directory, file = way.steps
    assert [step.path for step in above] == [*map(str, reversed(tmp_path.parents)), str(tmp_path)]
    assert (directory.path, directory.directory) == (str(tmp_path / "dir"), True)
    assert (directory.uid, directory.gid, directory.mode) == (OTHER, OTHER, 0o2750)
    assert directory.owner == f"{OTHER}:{OTHER}"
    assert (file.path, file.directory) == (str(tmp_path / "dir/file"), False)
    assert (file.uid, file.gid, file.mode, file.owner) == (OTHER, 0, 0o640, f"{OTHER}:root")


@pytest.mark.parametrize("target", ["../b/file", "{}/b/file", "../b/../a/../b/file"])
def test_links_are_followed_and_the_directory_of_a_link_is_searched(tmp_path, target):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b/file").touch()
    (tmp_path / "a/link").symlink_to(target.format(tmp_path))
    (tmp_path / "to-a").symlink_to("a")
    steps = [step.path for step in way_to(str(tmp_path / "to-a/link"), secret=True).steps]
    top = [*map(str, reversed(tmp_path.parents)), str(tmp_path)]
    assert steps == [*top, f"{tmp_path}/a", f"{tmp_path}/b", f"{tmp_path}/b/file"]


@pytest.mark.parametrize("name", ["missing", "dangling", "loop", "file/below", "nul\0", "x" * 300])
def test_there_is_no_way_to_what_is_not_there(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("missing")
    (tmp_path / "loop").symlink_to("loop")
    path = str(tmp_path / name)
    assert way_to(path, secret=True) == Way(path=path, secret=True, steps=())


@pytest.mark.system
def test_an_ordinary_user_sees_the_way_as_far_as_he_may_go():
    script = (
        "import sys; from proxyd.doctor.files import way_to;"
        "print(*[step.path for step in way_to(sys.argv[1], secret=True).steps], sep='\\n')"
    )
    with short_directory(mode=0o755) as directory:
        (directory / "private").mkdir(mode=0o700)
        (directory / "private/key").touch()
        done = subprocess.run(
            [sys.executable, "-B", "-c", script, str(directory / "private/key")],
            capture_output=True,
            text=True,
            user="nobody",
            extra_groups=[],
            cwd=Path(__file__).parents[2],
            timeout=30,
            check=True,
        )
    assert done.stdout.splitlines()[-2:] == [str(directory), str(directory / "private")]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_the_doctor_says_what_the_kernel_says(tmp_path, kind):
    """All that owner, group and each class's bit can be."""
    bits = (0o400, 0o040, 0o004) if kind == "file" else (0o100, 0o010, 0o001)
    files = {}
    for uid, gid, *given in itertools.product((0, OTHER), (0, OTHER), *((0, bit) for bit in bits)):
        directory = tmp_path / f"{uid}-{gid}-{sum(given):o}"
        directory.mkdir()
        files[directory / "file"] = file = directory / "file"
        file.write_text("x")
        if kind == "file":
            own(file, uid, gid, sum(given))
        else:
            # A bit for reading a directory is of no use for searching it.
            own(directory, uid, gid, sum(given) | 0o666)
    said = [not closed(file) for file in files]
    assert said == read_by_the_service(map(str, files))
    assert len(said) == 32
    assert 0 < sum(said) < 32


def test_a_link_in_a_closed_directory_is_closed_whatever_it_leads_to(tmp_path):
    (tmp_path / "closed").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "closed/link").symlink_to("../file")
    own(tmp_path / "closed", mode=0o700)
    assert closed(tmp_path / "closed/link") == [str(tmp_path / "closed")]
    assert closed(tmp_path / "file") == []
    links = [str(tmp_path / "closed/link"), str(tmp_path / "file")]
    assert read_by_the_service(links) == [False, True]


@pytest.mark.parametrize("name", ["plain", "it's a $HOME; `x`", "new\nline\\'\x1b[31m", "\udcff"])
@pytest.mark.parametrize("secret", [True, False])
@pytest.mark.parametrize(
    ("uid", "gid", "mode"),
    [
        (OTHER, OTHER, 0o700),
        (OTHER, OTHER, 0o2750),
        (OTHER, 0, 0o700),
        (0, OTHER, 0o677),
    ],
)
def test_what_mends_it_can_be_typed_as_it_stands(tmp_path, name, secret, uid, gid, mode):
    (tmp_path / name).mkdir()
    file = tmp_path / name / "file"
    file.touch()
    own(file)
    own(tmp_path / name, uid, gid, mode)
    assert closed(file) == [str(tmp_path / name), str(file)]
    *commands, last = mending(way_to(str(file), secret=secret))
    assert last == RELOAD
    assert all(line.isprintable() for line in commands)
    assert bash(*commands) == ""
    assert closed(file) == []
    assert read_by_the_service([str(file)]) == [True]
    assert file.stat().st_mode & 0o777 == (0o600 if secret else 0o640)


def test_where_no_group_is_let_in_only_roots_is(tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").touch()
    own(tmp_path / "dir/file")
    own(tmp_path / "dir", mode=0o700)
    directory, file, *_ = mending(way_to(f"{tmp_path}/dir/file", secret=False))
    bash(directory, file)
    found = [path.stat() for path in (tmp_path / "dir", tmp_path / "dir/file")]
    assert [(each.st_uid, each.st_gid) for each in found] == [(OTHER, 0), (OTHER, 0)]
    assert [each.st_mode & 0o777 for each in found] == [0o710, 0o640]
