"""`soak` against daemons that lie: each lie is found, and called by its name."""

import argparse
import json
import os
from contextlib import ExitStack

import pytest

from loadtest.cli import main
from loadtest.client import Opening
from loadtest.failures import TargetFailure, UsageError
from loadtest.machine import this_machine
from loadtest.results import load
from loadtest.soaking.cli import add_parsers, plan_of
from loadtest.soaking.ledger import EXAMPLES, Fault
from loadtest.soaking.outcome import as_text, duration, is_clean, result
from loadtest.soaking.questions import Question, Repertoire, Session, steady
from loadtest.soaking.run import Plan, run
from loadtest.statuses import INTERRUPTED, MISSED, OK
from loadtest.targets import parse_target
from proxyd.wire.frame import Frame, FrameType, Header
from proxyd.wire.programs import VERSION, Program
from proxyd.wire.xdr import Writer
from tests.loadtest.fake_liar import FakeLiar, Lie

SEED = 7


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A soak of less than a second is looked at more than once, and ends in time."""
    monkeypatch.setattr("loadtest.soaking.run._TICK_S", 0.1)
    monkeypatch.setattr("loadtest.soaking.run._QUIET_TICKS", 3)


@pytest.fixture
def start_liar(socket_paths):
    """Starts one in a thread of this process; gives its address."""
    with ExitStack() as running:

        def start(**lie):
            path = next(socket_paths)
            running.enter_context(FakeLiar(path, Lie(**lie)))
            return f"unix:{path}"

        yield start


AT_ONCE = {"opening": Opening("test:///default", readonly=False, wait_s=0.2)}


def silence(*_):
    """Nobody watches the progress."""


def plan(address, **more):
    """Of a soak that takes half a second."""
    given = {
        "targets": (parse_target(f"fake={address}"),),
        "opening": Opening("test:///default", readonly=False, wait_s=1.0),
        "seed": SEED,
        "connections": 4,
        "duration_s": 0.3,
        "warmup_s": 0.05,
        **more,
    }
    return Plan(**given)


def soaked(given):
    """What was found of the first target, and the result."""
    outcome = run(given, silence)
    return outcome.soaked[0], result(this_machine([]), "now", given, outcome)


def faults(one):
    return {str(fault) for fault, many in one.ledger.faults.items() if many}


def test_a_daemon_that_does_not_lie_is_clean_and_the_account_balances(start_liar):
    one, made = soaked(plan(start_liar(), volume="/v", size=1 << 20))
    entries = one.ledger.entries
    assert faults(one) == set()
    assert is_clean(made)
    assert entries.open == entries.wrong == entries.lost == 0
    assert entries.answered > 100
    assert entries.given_up > 0
    assert entries.stream_bytes >= entries.streams * 65536 > 0
    assert 0 < one.calls.count <= entries.answered


@pytest.mark.parametrize(
    ("lie", "found", "told"),
    [
        ("lose", "lost", "no reply to call "),
        ("double", "duplicated", "a second reply to call "),
        ("swap", "misdelivered", "the reply is that to call "),
        ("turn_round", "reordered", "of the same session"),
        ("other_serial", "misdelivered", "which it did not make"),
        ("garble", "corrupted", "the name in the reply is not whole"),
        ("refuse", "refused", "too many clients"),
    ],
)
def test_a_lie_about_calls_is_found_and_named(start_liar, lie, found, told):
    # Whatever is late is lost as well; nowhere else may it be.
    given = plan(start_liar(**{lie: True}), **(AT_ONCE if lie == "lose" else {}))
    one, made = soaked(given)
    assert faults(one) == {found}
    assert told in one.ledger.examples[Fault(found)][0]
    assert not is_clean(made)
    assert one.ledger.entries.open == 0
    missed = [verdict for verdict in made.verdicts if not verdict.met]
    assert [verdict.text for verdict in missed] == [f"{found}=0"]
    assert missed[0].value == one.ledger.faults[Fault(found)]


def test_a_daemon_that_hangs_up_loses_what_was_under_way(start_liar):
    one, _ = soaked(plan(start_liar(hang_up=True)))
    assert faults(one) == {"dropped", "lost"}
    assert one.ledger.faults[Fault.LOST] == one.ledger.entries.lost


def test_a_session_that_does_not_end_behind_ours_is_stuck(start_liar):
    one, _ = soaked(plan(start_liar(no_end=True), connections=2))
    assert faults(one) == {"stuck"}


@pytest.mark.parametrize(
    ("how", "found", "told"),
    [
        ("short", "lost", "7 of "),
        ("long", "duplicated", "7 bytes more than "),
        ("order", "reordered", "in another order: "),
        ("flipped", "corrupted", "not those of the volume: 1 of "),
    ],
)
def test_a_lie_about_a_stream_is_found_and_named(start_liar, how, found, told):
    one, _ = soaked(plan(start_liar(stream=how), volume="/v", size=1 << 20))
    assert faults(one) == {found}
    assert told in one.ledger.examples[Fault(found)][0]


def test_descriptors_that_go_on_leaking_are_found(start_liar, monkeypatch):
    monkeypatch.setattr("loadtest.soaking.run._SETTLE_S", 1.0)
    address = f"{start_liar(leak_fds=True)},pid={os.getpid()}"
    one, made = soaked(plan(address, duration_s=0.6))
    (watched,) = one.watched
    assert watched.leaked > 0
    missed = [verdict.text for verdict in made.verdicts if not verdict.met]
    assert missed == ["leaked descriptors(pid)≤0"]


def test_memory_that_grows_is_found(start_liar):
    address = f"{start_liar(leak_kib=64)},pid={os.getpid()}"
    one, made = soaked(plan(address, duration_s=1.0, memory_slope_kib_h=4096.0))
    assert one.watched[0].slope_kib_h > 4096
    missed = [verdict.text for verdict in made.verdicts if not verdict.met]
    assert missed == ["memory slope(pid)<4096KiB/h"]


def test_a_process_that_goes_away_ends_the_run(start_liar, start_fake_process):
    fake = start_fake_process()
    given = plan(f"{start_liar()},pid={fake.pid}", duration_s=60.0)

    def tell(*_):
        if not stopped:
            stopped.append(fake.stop())

    stopped = []
    outcome = run(given, tell)
    made = result(this_machine([]), "now", given, outcome)
    assert outcome.elapsed_s < 30
    assert any(v.text == "processes alive" and not v.met for v in made.verdicts)
    assert f"target fake: there is no process {fake.pid}" in made.notes


def test_a_server_that_quotes_nothing_cannot_be_soaked(fake_target, opening):
    _, target = fake_target()
    with pytest.raises(TargetFailure, match="no reply can be checked"):
        run(plan("unix:/none", targets=(target,), opening=opening), silence)


def test_a_server_that_is_not_there_cannot_be_soaked(socket_paths):
    with pytest.raises(TargetFailure, match="cannot connect"):
        run(plan(f"unix:{next(socket_paths)}"), silence)


def test_ctrl_c_ends_it_with_what_is_known(start_liar):
    def tell(elapsed_s, _):
        raise KeyboardInterrupt

    given = plan(start_liar(), duration_s=60.0)
    outcome = run(given, tell)
    made = result(this_machine([]), "now", given, outcome)
    assert outcome.interrupted
    assert is_clean(made)
    assert made.notes[0].startswith("interrupted after ")
    assert "interrupted after" in as_text(given, made, outcome)


def test_faults_are_counted_without_end_and_told_a_few_times(start_liar):
    one, made = soaked(plan(start_liar(double=True)))
    assert one.ledger.faults[Fault.DUPLICATED] > EXAMPLES
    assert len(one.ledger.examples[Fault.DUPLICATED]) == EXAMPLES
    assert sum("second reply" in note for note in made.notes) == EXAMPLES


# ---- the command line


@pytest.fixture
def soak(capsys):
    """Runs it as the command line does; gives its exit status and what it printed."""

    def soak(*words):
        return main(["soak", *words]), capsys.readouterr().out

    return soak


HALF_A_SECOND = ("-d", "500ms", "--warmup", "50ms", "-c", "3", "--timeout", "1", "--seed", "7")


def test_a_clean_soak_says_so_and_leaves_a_result(start_liar, soak, tmp_path):
    out = tmp_path / "soak.json"
    words = ("--target", f"fake={start_liar()}", *HALF_A_SECOND, "--out", str(out))
    status, told = soak(*words)
    assert status == OK
    assert "CLEAN: all of 9 checks hold" in told
    assert "--seed 7" in told
    made = load(out)
    assert made.scenario == "soak"
    ledger = made.plan["ledger"]["fake"]
    assert ledger["sent"] == ledger["answered"] + ledger["given_up"]
    assert sum(interval.calls for interval in made.targets[0].intervals) > 0
    assert json.loads(out.read_text())["plan"]["seed"] == 7


def test_a_bad_one_says_what_and_ends_with_99(start_liar, soak):
    status, told = soak("--target", f"fake={start_liar(double=True)}", *HALF_A_SECOND)
    assert status == MISSED == 99
    assert "BAD: 1 of 9 checks do not hold\nfake: duplicated=0 is not so, it is " in told
    assert max(map(len, told.splitlines())) <= 130


def test_an_interrupted_one_that_is_clean_ends_with_130(start_liar, soak, monkeypatch):
    monkeypatch.setattr("loadtest.soaking.run._sample", interrupt)
    status, told = soak("--target", f"fake={start_liar()}", "-d", "30s", "--warmup", "100ms")
    assert status == INTERRUPTED == 130
    assert "interrupted after" in told


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-c", "3000"], "2000 connections are the most"),
        (["--bulk", "1MiB"], "--bulk needs --volume PATH"),
        (["--volume", "/v", "--bulk", "1KiB"], "blocks of 64 KiB"),
        (["--user", "ann"], "--user is for scram+tls: targets"),
    ],
)
def test_what_makes_no_sense_is_refused(words, complaint):
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers())
    options = parser.parse_args(["soak", "--target", "a=unix:/p", "-d", "1s", *words])
    with pytest.raises(UsageError) as refused:
        plan_of(options)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.5, "0.5 s"), (12.34, "12.3 s"), (60, "1 min"), (3725, "1 h 2 min 5 s"), (7200, "2 h")],
)
def test_durations_are_told_as_people_say_them(seconds, told):
    assert duration(seconds) == told


def node_info(mhz, cpus=2):
    """What NODE_GET_INFO returns."""
    words = Writer().u64(1 << 20).i32(cpus).i32(mhz).take()
    header = Header(Program.REMOTE, VERSION, 6, FrameType.REPLY, 1)
    return Frame(header, bytes(128) + words + bytes(16))


def capabilities(frequency, more=""):
    text = f"<cpu><counter name='tsc' frequency='{frequency}'/></cpu>{more}"
    header = Header(Program.REMOTE, VERSION, 7, FrameType.REPLY, 1)
    return Frame(header, Writer().string(text).take())


@pytest.mark.parametrize("made", [node_info, capabilities])
def test_the_clock_of_the_processor_is_no_corruption(made):
    constants = {made(0).header.procedure: steady(made(2_593_906_000 % 2**31))}
    known, asked = Repertoire((), constants), Session(1, 1)
    question = Question(made(0).header.procedure, 0)
    for clock in (0, 9, 1_000_000_000):
        assert known.judge(question, asked, 1, made(clock)) is None
    wrong = known.judge(question, asked, 1, made(1, 3) if made is node_info else made(1, "x"))
    assert wrong.fault is Fault.CORRUPTED


def test_a_target_that_is_gentle_meets_nobody_who_dies_amid_calls(start_liar):
    given = plan(start_liar(), volume="/v", size=1 << 20, gentle=frozenset({"fake"}))
    one, _ = soaked(given)
    assert faults(one) == set()
    assert one.ledger.entries.given_up == 0
    assert one.ledger.entries.sessions > 0


def test_a_gentle_target_has_to_be_one(start_liar, capsys):
    assert main(["soak", start_liar(), "--gentle", "other", "-d", "1s"]) == 2
    assert "other: no target has this name" in capsys.readouterr().err
