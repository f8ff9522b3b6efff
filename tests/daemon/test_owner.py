import shlex
import subprocess
import sys
from contextlib import contextmanager

from proxyd.daemon.owner import Owner


@contextmanager
def running(*words):
    """A process with these words behind its program, past its exec and until the block ends."""
    program = [sys.executable, "-c", "input('x')", *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(program, **pipes) as child:
        # Between fork and exec a process has no command line at all.
        assert child.stdout.read(1) == b"x"
        yield child.pid
        child.communicate(b"\n")


def test_a_process_is_named_with_its_command_line():
    with running("two words") as pid:
        named = str(Owner(pid))
    assert named.startswith(f"pid {pid} ({shlex.quote(sys.executable)} -c ")
    assert named.endswith(" 'two words')")


def test_a_command_line_cannot_forge_a_line_and_is_cut():
    with running("x\ny", "z" * 1000) as pid:
        named = str(Owner(pid))
    assert "x\\ny" in named
    assert len(named) < 300


def test_a_process_that_is_gone_is_named_by_its_number():
    assert str(Owner(4194305)) == "pid 4194305"


def test_a_process_without_a_number_is_still_spoken_of():
    assert str(Owner(0)) == "a process that cannot be named from here"
