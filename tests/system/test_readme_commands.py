"""What the README tells a newcomer to type works in a fresh clone, below a path with a space."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.bed.command import run_to_end
from tests.bed.daemon import short_directory
from tests.bed.libvirtd import every_pid
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

CHECKOUT = Path(__file__).parents[2]
# Of the caller's environment all is kept but what points into the virtual environment that runs
# this: pip may need its proxy, its index and its cache.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"VIRTUAL_ENV", "PYTHONPATH", "PYTEST_ADDOPTS"}
}
BOOTSTRAP_DEADLINE_S = 900  # a cold pip cache and a compiler


class Demo:
    """A running ./script/run of a clone, its output in a file, in a process group of its own."""

    def __init__(self, clone, output):
        self.output = output
        with output.open("w") as file:
            self.process = subprocess.Popen(
                ["./script/run"],
                cwd=clone,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self):
        return self.output.read_text()

    def wait_until_it_shows_the_log(self):
        wait_until(
            lambda: "proxyd's log:" in self.text() or self.process.poll() is not None,
            BOOTSTRAP_DEADLINE_S,
            "script/run shows proxyd's log",
        )
        assert self.process.poll() is None, self.text()

    def commands(self):
        return re.findall(r"^  ((?:virsh|virt-admin) .*)$", self.text(), re.MULTILINE)

    def interrupt(self):
        """What Ctrl-C does, and the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(60)

    def end(self):
        if self.process.poll() is None:
            self.interrupt()


@pytest.fixture(scope="module")
def clone():
    """A clone of what is committed: what a newcomer gets, not what lies about here."""
    with short_directory() as directory:
        clone = directory / "a clone"
        # The checkout may belong to the user who called sudo, whom git would distrust.
        (directory / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
        command = ["git", "clone", "--quiet", "--no-local", str(CHECKOUT), str(clone)]
        run_to_end(command, deadline_s=60, environment={"HOME": str(directory)}).succeeded()
        yield clone


@pytest.fixture
def demo(clone, tmp_path):
    started = Demo(clone, tmp_path / "output")
    try:
        started.wait_until_it_shows_the_log()
        yield started
    finally:
        started.end()


def in_clone(clone, *command):
    """Run a command there without a terminal and return its output; it must succeed."""
    done = subprocess.run(
        command,
        cwd=clone,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BOOTSTRAP_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def processes_that_name(*places):
    """The command lines in which one of these paths occurs."""
    lines = []
    for pid in every_pid():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        except OSError:
            continue  # ended since the directory was read
        if any(str(place) in line for place in places):
            lines.append(line)
    return lines


def test_the_readme_names_both_commands(clone):
    readme = (clone / "README.md").read_text()
    assert "./script/run" in readme
    assert "./script/test" in readme


def test_every_line_that_run_prints_can_be_pasted(demo):
    commands = demo.commands()

    said = [run_to_end(["bash", "-c", command], deadline_s=30).succeeded() for command in commands]

    assert len(commands) == 8
    held = re.search(r"but process (\d+)$", demo.text(), re.MULTILINE)[1]
    assert f"unix_process_id: {held}\n" in said[-1]


def test_a_second_run_says_that_the_first_still_runs(clone, demo):
    second = Demo(clone, demo.output.with_name("second"))

    assert second.process.wait(60) == 1
    assert "runs already" in second.text()
    assert demo.process.poll() is None


def test_ctrl_c_ends_run_and_leaves_nothing(clone, demo):
    run = (clone / ".run").resolve()
    assert (run / "libvirt-sock").is_socket()

    status = demo.interrupt()

    assert status == 0, demo.text()
    assert processes_that_name(clone, run) == []
    assert not os.path.lexists(clone / ".run")
    assert not run.exists()
    assert str(run) not in Path("/proc/self/mountinfo").read_text()
    assert in_clone(clone, "git", "status", "--porcelain") == ""


def test_script_test_runs_the_tests(clone):
    # Not all of them: this test is one of them. That every file is found, and that one folder
    # really runs, shows that the command does its part.
    collected = in_clone(clone, "./script/test", "--collect-only", "-q")
    assert "tests/system/test_readme_commands.py::" in collected

    assert " passed" in in_clone(clone, "./script/test", "tests/wire")
