import os
import re
import select
import signal
import subprocess
import sys
import threading

import pytest

from proxyd.process.background import Foreground, become_daemon

# What a daemon does after its fork: {} is the part that a test is about. `control` is a pipe on
# which it is told to end, `answers` one on which it tells about itself.
DAEMON = """
import os, signal, sys
from proxyd.process.background import become_daemon
control, answers = int(sys.argv[1]), int(sys.argv[2])
print("before the fork")
readiness = become_daemon()
def answer(text):
    os.write(answers, text.encode())
{}
os.read(control, 1)
"""


class Starter:
    """Starts daemons and can tell them to end, since they are nobody's children."""

    def __init__(self):
        self.control_read, self.control = os.pipe()
        self.answers, self.answers_write = os.pipe()

    def start(self, part):
        command = [sys.executable, "-c", DAEMON.format(part), *map(str, self.theirs)]
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
            pass_fds=self.theirs,
        )

    @property
    def theirs(self):
        return self.control_read, self.answers_write

    def answer(self):
        """Everything that was told; the daemon has ended when it returns."""
        os.close(self.control)
        os.close(self.answers_write)
        self.control = self.answers_write = -1
        told = b""
        while chunk := os.read(self.answers, 1000):
            told += chunk
        return told.decode()

    def close(self):
        for fd in (self.control_read, self.control, self.answers, self.answers_write):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def starter():
    made = Starter()
    yield made
    made.close()


def test_the_starter_ends_well_when_the_daemon_is_ready(starter):
    # That run() returns while the daemon still lives shows that it let go of stdout and stderr.
    done = starter.start("readiness.ready(); answer('alive')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "before the fork\n", "")
    assert starter.answer() == "alive"


def test_the_daemon_has_no_terminal_no_parent_and_holds_no_directory(starter):
    done = starter.start(
        "readiness.ready()\n"
        "answer(f'{os.getpid()} {os.getsid(0)} {os.getcwd()}')\n"
        "answer(''.join(' ' + os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)))"
    )
    assert done.returncode == 0
    pid, session, *rest = starter.answer().split()
    assert session not in {pid, str(os.getsid(0))}
    assert rest == ["/", "/dev/null", "/dev/null", "/dev/null"]


def test_the_pipe_to_the_starter_is_closed_once_the_daemon_is_ready(starter):
    starter.start(
        "before = len(os.listdir('/proc/self/fd'))\n"
        "readiness.ready()\n"
        "answer(str(before - len(os.listdir('/proc/self/fd'))))"
    )
    assert starter.answer() == "2"  # the pipe and what was kept of /dev/null


def test_an_error_of_the_start_reaches_the_starter_with_its_status(starter):
    done = starter.start("readiness.failed('port 16509 is taken: stop libvirtd', 6); os._exit(6)")
    assert done.returncode == 6
    assert done.stderr == "proxyd: port 16509 is taken: stop libvirtd\n"


def test_an_error_longer_than_the_pipe_arrives_whole(starter):
    done = starter.start("readiness.failed('x' * 200_000, 1); os._exit(1)")
    assert done.stderr == f"proxyd: {'x' * 200_000}\n"


def test_a_failure_without_a_text_is_no_success(starter):
    assert starter.start("readiness.failed('', 0); os._exit(0)").returncode == 1


@pytest.mark.parametrize("death", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_daemon_that_dies_without_a_word_is_a_failure(starter, death):
    done = starter.start(death)
    assert done.returncode == 1
    assert "ended before it was ready" in done.stderr


def test_a_traceback_of_the_start_is_still_seen(starter):
    done = starter.start("raise ValueError('a mistake of ours')")
    assert done.returncode == 1
    assert "a mistake of ours" in done.stderr


def test_a_daemon_can_be_started_with_closed_standard_descriptors(starter):
    part = "readiness.ready(); answer(os.readlink('/proc/self/fd/2'))"
    command = [sys.executable, "-c", DAEMON.format(part), *map(str, starter.theirs)]
    closed = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command]
    done = subprocess.run(closed, check=False, timeout=30, pass_fds=starter.theirs)
    assert done.returncode == 0
    assert starter.answer() == "/dev/null"


def test_an_interrupted_starter_ends_and_the_daemon_runs_on(starter):
    part = (
        "answer(str(os.getppid()) + chr(10))\n"
        "os.read(control, 1)\n"
        "readiness.ready()\n"
        "answer('runs on')"
    )
    command = [sys.executable, "-c", DAEMON.format(part), *map(str, starter.theirs)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, pass_fds=starter.theirs, **pipes) as child:
        assert select.select([starter.answers], [], [], 30)[0]
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == -signal.SIGINT
        told = starter.answer()
        assert child.stderr.read() == b""
    assert re.fullmatch(r"\d+\nruns on", told)


def test_what_is_told_after_the_start_goes_nowhere(starter):
    done = starter.start(
        "readiness.ready()\n"
        "reused = os.open('/dev/full', os.O_WRONLY)\n"
        "readiness.ready()\n"
        "readiness.failed('too late', 1)\n"
        "answer('calm')"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert starter.answer() == "calm"


def test_a_program_with_threads_does_not_fork():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    with pytest.raises(RuntimeError, match="before them"):
        become_daemon()
    stop.set()
    thread.join()


def test_in_the_foreground_the_error_is_printed_and_readiness_is_silent(capfd):
    readiness = Foreground()
    readiness.ready()
    readiness.failed("no certificate: make one", 6)
    assert capfd.readouterr().err == "proxyd: no certificate: make one\n"
