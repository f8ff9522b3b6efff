"""What script/common shows while something takes long, and which trees script/tree knows."""

import os
import pty
import re
import select
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.bed.waiting import wait_until

SCRIPT = Path(__file__).parents[1] / "script"


def shell(tmp_path, text, **more):
    """Run lines of bash behind script/common, with a bed of their own."""
    lines = f'set -euo pipefail; root=$1; . "{SCRIPT}/common"; {text}'
    return subprocess.run(
        ["bash", "-c", lines, "bash", str(tmp_path)],
        # Without TERM bash would take the terminal to be a dumb one.
        env={"PATH": os.environ["PATH"], "PROXYD_BED": str(tmp_path / "bed"), "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=60,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
    )


def test_a_step_is_two_lines_with_its_time_and_its_words_are_in_the_log(tmp_path):
    done = shell(tmp_path, 'step "Looking" echo many words; echo next')
    assert done.stdout == "next\n"
    first, second = done.stderr.splitlines()
    assert first == "Looking …"
    assert second.startswith("Looking: ")
    assert second.endswith(" s")
    assert "many words" in (tmp_path / "bed/log").read_text()


def test_a_step_that_fails_ends_the_script_with_its_status_and_shows_the_last_words(tmp_path):
    done = shell(tmp_path, 'work() { seq 1000; false; echo more; }; step "Looking" work; echo next')
    assert done.returncode == 1
    assert done.stdout == ""
    shown = done.stderr.splitlines()
    assert shown[1].startswith("Looking: failed after ")
    assert shown[2:] == [f"    {number}" for number in range(986, 1001)]


def test_a_step_shows_the_seconds_on_a_terminal_and_stays_in_one_line(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ours, theirs = pty.openpty()
    shown = []

    def look():
        if select.select([ours], [], [], 0)[0]:
            shown.append(os.read(ours, 4096).decode())
        return " … 1 s " in "".join(shown)

    def watch():
        try:
            wait_until(look, 30, "a second has passed")
        finally:
            pipe.write_text("enough")

    with ThreadPoolExecutor() as threads:
        watching = threads.submit(watch)
        done = shell(tmp_path, f"step Looking cat {pipe}", stderr=theirs)
        watching.result()
    shown.append(os.read(ours, 4096).decode())
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0
    assert re.match("(\rLooking … [0-9]+ s )+\rLooking: ", "".join(shown))
    assert "".join(shown).count("\n") == 1


def test_ctrl_c_ends_a_step_with_all_of_it_and_says_so(tmp_path):
    """What bash starts beside itself has SIGINT ignored, if nobody takes that back."""
    script = f"set -euo pipefail; root=$1; . '{SCRIPT}/common'; step Looking sleep 600; echo done"
    shown = []

    def look():
        if select.select([ours], [], [], 0)[0]:
            shown.append(os.read(ours, 4096).decode())
        return " … 1 s " in "".join(shown)

    def gone():
        return os.waitpid(pid, os.WNOHANG)[1]

    pid, ours = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests may have it ignored
        os.environ |= {"PROXYD_BED": str(tmp_path / "bed"), "TERM": "xterm"}
        os.execvp("bash", ["bash", "-c", script, "bash", str(tmp_path)])
    try:
        wait_until(look, 30, "a second has passed")
        os.write(ours, b"\x03")
        assert os.WTERMSIG(wait_until(gone, 30, "it ends")) == signal.SIGINT
        with suppress(OSError):  # EIO: nobody has the terminal open any more, the seconds neither
            while more := os.read(ours, 4096):
                shown.append(more.decode())
    finally:
        os.close(ours)  # which ends what is left
    assert "interrupted" in "".join(shown)
    assert "done" not in "".join(shown)


def test_a_dumb_terminal_is_shown_lines(tmp_path):
    ours, theirs = pty.openpty()
    shell(tmp_path, "TERM=dumb; step Looking true", stderr=theirs)
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert re.fullmatch("Looking …\r\nLooking: [0-9]+ s\r\n", shown)


def test_a_bed_that_may_not_be_written_into_is_said_in_a_line(tmp_path):
    done = shell(tmp_path, f"bed={os.devnull}/bed; step Looking true")
    assert done.returncode == 1
    assert done.stderr.startswith(f"bash: you may not write into {os.devnull}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["make"], ["make", "../etc", "run"], ["enter", "trixie"]])
def test_what_script_tree_does_not_understand_changes_nothing(tmp_path, words):
    done = subprocess.run(
        [SCRIPT / "tree", *words],
        env={"PATH": os.environ["PATH"], "PROXYD_BED": str(tmp_path / "bed")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr
    assert not (tmp_path / "bed").exists()
