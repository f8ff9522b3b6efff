"""What the README tells a newcomer to type works in a fresh clone, whose path has to be quoted."""

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

    def __init__(self, clone, output, *options):
        self.output = output
        with output.open("w") as file:
            self.process = subprocess.Popen(
                ["./script/run", *options],
                cwd=clone,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self):
        return self.output.read_text()

    def wait_until_it_has_said_all(self):
        wait_until(
            lambda: "Ctrl-C here" in self.text() or self.process.poll() is not None,
            BOOTSTRAP_DEADLINE_S,
            "script/run says how it is stopped",
        )
        assert self.process.poll() is None, self.text()

    def commands(self):
        return re.findall(r"^  (\S.*)$", self.text(), re.MULTILINE)

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
        clone = directory / "it's a clône"
        # The checkout may belong to the user who called sudo, whom git would distrust.
        (directory / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
        command = ["git", "clone", "--quiet", "--no-local", str(CHECKOUT), str(clone)]
        run_to_end(command, deadline_s=60, environment={"HOME": str(directory)}).succeeded()
        yield clone


@pytest.fixture(params=[[]])
def demo(clone, tmp_path, request):
    started = Demo(clone, tmp_path / "output", *request.param)
    try:
        started.wait_until_it_has_said_all()
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


def pasted(line):
    """What a line says in a shell that is somewhere else."""
    return run_to_end(["bash", "-c", f"cd / && {line}"], deadline_s=60).succeeded()


def test_the_demo_says_in_ten_lines_what_runs_and_what_to_try(demo):
    shown = demo.text().rsplit("Starting libvirtd and proxyd\n", 1)[1].strip().splitlines()
    assert len(shown) == 10

    listed, over_tls, kicked, loaded = [pasted(line) for line in demo.commands()]

    assert " test " in listed
    assert "Name" in over_tls
    assert "its session is ended" in kicked
    assert "beside direct" in loaded
    wait_until(lambda: "has been cut off" in demo.text(), 15, "the demo says who was cut off")
    assert len(demo.text().strip().splitlines()) - len(shown) < 10


@pytest.mark.parametrize("demo", [["-v"]], indirect=True)
def test_v_shows_more_to_try_and_the_log(demo):
    said = [pasted(line) for line in demo.commands()]

    assert len(said) == 10
    held = re.search(r"but process (\d+)$", demo.text(), re.MULTILINE)[1]
    assert any(f"unix_process_id: {held}\n" in each for each in said)
    log = demo.text().split("proxyd's log:\n", 1)[1]
    assert "qemu:///system" in log
    # What the demo itself has looked for looks like trouble.
    assert log.count(" error ") == log.count(" warning ") == 0


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
    # Not all of them: this test is one of them. What comes before the others, with a tree and as
    # several users, script/first-minute shows.
    assert " passed" in in_clone(clone, "./script/test", "--unit", "tests/wire/test_frame.py")
