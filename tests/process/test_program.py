"""What runs and what is installed: a copy of the package, whose files are replaced."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import proxyd
from proxyd.process import program
from proxyd.process.program import Program, restart_of
from tests.bed.command import clean_environment, held_open, run_to_end

OLD_S = 1_500_000_000  # before all of them
RELEASE = proxyd.__version__


@pytest.fixture
def package(tmp_path):
    """A copy of ours, with what an interpreter makes there."""
    copied = tmp_path / "proxyd"
    shutil.copytree(Path(proxyd.__file__).parent, copied)
    (copied / "__pycache__").mkdir(exist_ok=True)
    return copied


def put(path, content, *, when=None):
    """As dpkg does: another file takes the name."""
    new = path.with_name(path.name + ".dpkg-new")
    new.write_bytes(content)
    if when is not None:
        os.utime(new, (when, when))
    new.rename(path)


def with_release(package, release):
    text = (package / "__init__.py").read_text()
    return text.replace(RELEASE, release).encode()


def test_nothing_is_told_of_a_program_whose_files_are_as_they_were(package):
    running = Program.of(package, RELEASE)
    (package / "__pycache__" / "made.pyc").write_bytes(b"code")
    (package / ".flow.py.swp").write_bytes(b"an editor's")
    found = running.difference()
    assert (found.told(), found.changed, found.installed) == ((), 0, RELEASE)
    assert len(running.files) > 200


@pytest.mark.parametrize("when", [None, OLD_S])
def test_files_of_another_release_are_told_with_both_releases(package, when):
    running = Program.of(package, RELEASE)
    put(package / "__init__.py", with_release(package, "99.1"), when=when)
    found = running.difference()
    assert found.told() == (f"{RELEASE} runs, 99.1 is installed",)
    assert found.installed == "99.1"


def test_a_file_that_has_the_same_length_and_is_older_is_another_one(package):
    running = Program.of(package, RELEASE)
    flow = package / "relay" / "flow.py"
    put(flow, flow.read_bytes(), when=OLD_S)
    assert running.difference().told() == ("1 of its files is not what it was started from",)


def test_what_a_package_manager_puts_there_again_is_the_same(package):
    running = Program.of(package, RELEASE)
    for path in [path for path in package.rglob("*.py") if path.is_file()]:
        put(path, path.read_bytes(), when=path.stat().st_mtime)
        os.utime(path, ns=(0, running.files[str(path.relative_to(package))][1]))
    assert running.difference().told() == ()


@pytest.mark.parametrize("change", ["added", "removed"])
def test_files_that_come_and_go_count(package, change):
    running = Program.of(package, RELEASE)
    if change == "added":
        (package / "novel").mkdir()
        (package / "novel" / "new.py").write_text("")
    else:
        (package / "invocation.py").unlink()
    assert running.difference().told() == ("1 of its files is not what it was started from",)


@pytest.mark.parametrize("remove", [shutil.rmtree, lambda path: path.rename(path.parent / "away")])
def test_a_package_that_was_removed_altogether_is_told(package, remove):
    running = Program.of(package, RELEASE)
    remove(package)
    found = running.difference()
    assert (found.told(), found.installed) == (("its files were removed",), "")


def test_an_init_file_that_is_none_has_no_release(package):
    running = Program.of(package, RELEASE)
    put(package / "__init__.py", b"\xff\xfe" * 100_000)
    found = running.difference()
    assert (found.changed, found.installed) == (1, "")


# A process that has a library mapped, and says what is different when it is told to.
HOLDING = """
import ctypes, sys
from pathlib import Path
from proxyd.process.program import Program
kept = ctypes.CDLL(sys.argv[1])
running = Program.at_start()
print("mapped", flush=True)
for _ in sys.stdin:
    print("; ".join(running.difference().told()) or "the same", flush=True)
"""


@pytest.fixture
def library(tmp_path):
    """A copy of one that every Python has mapped."""
    maps = Path("/proc/self/maps").read_text()
    found = re.search(r"(/\S+/libc\.so\S*|/\S+/libc-\S+\.so)$", maps, re.MULTILINE)
    assert found is not None
    math = Path(found[1]).with_name("libm.so.6")
    return Path(shutil.copy(math, tmp_path / "libexample.so.3"))


@pytest.mark.parametrize("becomes", ["replaced", "removed"])
def test_a_library_that_was_replaced_while_it_is_mapped_is_told(library, becomes):
    with held_open([sys.executable, "-c", HOLDING, str(library)]) as holding:

        def different():
            holding.stdin.write("\n")
            holding.stdin.flush()
            return holding.stdout.readline().strip()

        assert holding.stdout.readline() == "mapped\n"
        assert different() == "the same"
        if becomes == "replaced":
            put(library, library.read_bytes())
        else:
            library.unlink()
        assert different() == "libexample.so.3 was replaced, and the old one is in use"


def test_memory_that_has_no_file_is_no_library(tmp_path, monkeypatch):
    maps = """\
55d0-55d1 r-xp 00000000 fe:00 131 /usr/bin/python3.11 (deleted)
7f10-7f11 r-xp 00000000 fe:00 132 /usr/lib/libssl.so.3 (deleted)
7f11-7f12 r--p 00000000 fe:00 133 /usr/lib/libread.so (deleted)
7f12-7f13 r-xp 00000000 00:01 134 /memfd:ffi (deleted)
7f13-7f14 rwxp 00000000 00:05 135 /dev/zero (deleted)
7f14-7f15 r-xp 00000000 fe:00 136 /usr/lib/libc.so.6
7f15-7f16 r-xp 00000000 fe:00 137 /opt/with space/lib (1).so (deleted)
7f16-7f17 r-xp 00000000 00:00 0 [vdso]
"""
    (tmp_path / "maps").write_text(maps)
    monkeypatch.setattr(program, "_MAPS", str(tmp_path / "maps"))
    assert program._lost_libraries() == [
        "/opt/with space/lib (1).so",
        "/usr/bin/python3.11",
        "/usr/lib/libssl.so.3",
    ]


# How it is started anew


SLEEPER = """
import os, sys, time
seconds = 0 if os.path.exists("again") else 60
print(os.getcwd(), sys.argv[1:], flush=True)
time.sleep(seconds)
"""


def test_who_was_started_by_hand_is_started_again_as_he_was(tmp_path):
    """The line is pasted: it ends the process, waits for that, and starts it where it was."""
    script = tmp_path / "some thing.py"
    script.write_text(SLEEPER)
    command = [sys.executable, str(script), "it's $HOME"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=clean_environment()
    ) as started:
        said = started.stdout.readline()
        (tmp_path / "again").touch()
        line = restart_of(started.pid)
        reaped = functools.partial(started.wait, 10)
        again = subprocess.Popen(["bash", "-c", line], stdout=subprocess.PIPE, text=True, cwd="/")
        assert reaped() == -15
        assert again.communicate(timeout=30)[0] == said
        assert again.returncode == 0


def test_nothing_is_said_of_a_process_that_is_not_there():
    done = run_to_end([sys.executable, "-c", "import os; print(os.getpid())"], deadline_s=10)
    assert restart_of(int(done.stdout)) == ""


@pytest.mark.parametrize(
    ("group", "environ", "says"),
    [
        ("/system.slice/virtproxyd.service", "", "systemctl restart virtproxyd.service"),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/virtproxyd.service",
            "",
            "systemctl --user restart virtproxyd.service",
        ),
        ("/system.slice/own.service", "SYSTEMD_EXEC_PID={pid}", "systemctl restart own.service"),
        ("/system.slice/ci-runner.service", "SYSTEMD_EXEC_PID=1", "kill {pid}; "),
        ("/system.slice/ci-runner.service", "", "kill {pid}; "),
        ("/user.slice/user-0.slice/session-3.scope", "", "kill {pid}; "),
        ("/", "", "kill {pid}; "),
        (None, "", "kill {pid}; "),
    ],
)
def test_who_was_started_by_systemd_is_started_by_it(tmp_path, monkeypatch, group, environ, says):
    pid = 4242
    place = tmp_path / str(pid)
    place.mkdir()
    (place / "cmdline").write_bytes(b"proxyd\0-d\0")
    (place / "cwd").symlink_to("/srv")
    (place / "environ").write_text(f"A=b\0{environ.format(pid=pid)}\0C=d")
    if group is not None:
        (place / "cgroup").write_text(f"1:cpu:/elsewhere.service\n0::{group}\n")
    monkeypatch.setattr(program, "_PROC", str(tmp_path))
    assert restart_of(pid).startswith(says.format(pid=pid))
