import shlex
import socket
import subprocess
import sys
from contextlib import contextmanager

from proxyd.process.sockets import Owner, unix_listeners
from tests.bed.daemon import short_directory


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


def test_a_path_with_a_line_end_does_not_break_the_table_of_sockets():
    with short_directory() as directory:
        odd, plain = directory / "a\nb: c d nothex e f 12 x", directory / "plain"
        with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
            for sock, path in ((one, odd), (two, plain)):
                sock.bind(str(path))
                sock.listen()
            found = dict(unix_listeners())
    assert found[str(plain)].isdecimal()
    assert not any("nothex" in path for path in found)
