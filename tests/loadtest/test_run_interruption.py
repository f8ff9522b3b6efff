"""Ctrl-C in the middle of `run`: what was measured so far is shown and kept."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from loadtest import results
from loadtest.cli import main
from loadtest.running.interruption import ctrl_c_asked_for
from loadtest.statuses import INTERRUPTED
from tests.bed.waiting import wait_until
from tests.loadtest.conftest import ROOT


@pytest.fixture(autouse=True)
def as_at_a_terminal():
    """Whoever runs this in the background ignores Ctrl-C, and so would we."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_ctrl_c_is_an_answer_and_the_second_is_as_ever():
    with ctrl_c_asked_for() as is_pressed:
        assert not is_pressed()
        signal.raise_signal(signal.SIGINT)
        assert is_pressed()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_behind_the_block_it_is_as_ever():
    with ctrl_c_asked_for():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_who_ignores_it_goes_on_doing_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ctrl_c_asked_for() as is_pressed:
            signal.raise_signal(signal.SIGINT)
            assert not is_pressed()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_in_another_thread_it_is_nobodys_question(run_beside):
    answers = []

    def ask():
        assert threading.current_thread() is not threading.main_thread()
        with ctrl_c_asked_for() as is_pressed:
            answers.append(is_pressed())

    with run_beside(ask):
        pass
    assert answers == [False]


@pytest.mark.parametrize("model", [["-R", "100"], ["--closed"], ["-R", "100", "-C"]])
def test_a_run_that_is_interrupted_shows_what_it_has(start_fake, capsys, monkeypatch, model):
    _, address = start_fake(delay_s=0.002)
    seen = []

    def watch(_, interval):
        seen.append(interval)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("loadtest.running.cli.live", lambda _: Always(watch))
    words = ["--target", f"a={address}", *model, "-c", "2", "-d", "1h", "--interval", "200ms"]
    assert main(["run", *words, "--json", "--workers", "2"]) == INTERRUPTED
    made = json.loads(capsys.readouterr().out)
    (target,) = made["targets"]
    assert made["plan"]["interrupted"] is True
    assert made["notes"][0].startswith(f"interrupted after {target['elapsed_s']:.1f} s of 3600 s")
    # In the third interval, or a little later on a machine with other things to do.
    assert 0.4 < target["elapsed_s"] < 3
    assert sum(one["calls"] for one in target["intervals"]) == target["calls"]["count"] > 20
    last = target["intervals"][-1]
    assert last["begins_s"] + last["length_s"] == pytest.approx(target["elapsed_s"])
    # A worker that gets no processor for a while cuts the last one that much later.
    assert 0 < last["length_s"] < 2 * 0.2
    assert target["errors"] == {}
    if "-R" in model:
        assert [one["rate"] for one in target["intervals"]] == pytest.approx(
            [100] * len(target["intervals"])
        )


class Always:
    """A context that gives this."""

    def __init__(self, given):
        self._given = given

    def __enter__(self):
        return self._given

    def __exit__(self, *_):
        return None


def test_ctrl_c_at_the_terminal_keeps_the_result(start_fake, tmp_path):
    script, address = start_fake()
    out = tmp_path / "run.json"
    command = [sys.executable, "-m", "loadtest", "run", "--target", f"a={address}", "-R", "100"]
    with subprocess.Popen(
        [*command, "-d", "1h", "--out", str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C goes to all of a process group
    ) as process:
        wait_until(lambda: len(script.callers) > 10, 30, "it makes calls")
        os.killpg(process.pid, signal.SIGINT)
        told, complaints = process.communicate(timeout=30)
    assert process.returncode == INTERRUPTED
    assert complaints == ""
    assert "NOTE interrupted after" in told
    assert results.load(out).targets[0].calls.count > 0
