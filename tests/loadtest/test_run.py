"""`run` from its command line, with workers in processes of their own."""

import json
from array import array

import pytest

from loadtest import results
from loadtest.cli import main
from loadtest.figures import Latencies
from loadtest.mix import parse_mix
from loadtest.results import ToolUse
from loadtest.running.gathering import Gathering, percentile
from loadtest.running.limits import tool_use
from loadtest.running.parcels import Done, Tally
from loadtest.running.plan import Load
from loadtest.stages import steady
from loadtest.statuses import FAILED, MISSED, OK, USAGE
from loadtest.targets import parse_target
from proxyd.wire.programs import Remote
from tests.loadtest.fake_host import Stall, fake_host

SMALL = "CONNECT_GET_LIB_VERSION"


@pytest.fixture
def run(capsys):
    """Runs it; gives the document that it prints."""

    def run(*words, status=OK):
        assert main(["run", *words, "--json"]) == status
        printed = capsys.readouterr()
        assert printed.err == ""
        return json.loads(printed.out)

    return run


def test_a_known_delay_is_measured_within_5_percent(run, start_fake_process):
    fake = start_fake_process("--delay-ms", "200")
    words = ["--target", f"fake={fake.address}", "--workers", "1"]
    words += ["-R", "30", "-c", "8", "-d", "1s"]
    (target,) = run(*words)["targets"]
    waited = fake.stop()["median_wait_ns"]
    assert target["calls"]["count"] == 30
    assert target["calls"]["p50_ns"] == pytest.approx(waited, rel=0.05)
    assert target["errors"] == {}


def test_a_stall_shows_at_a_rate_and_not_in_the_closed_model(run, socket_paths):
    found = {}
    for model in (["-R", "200"], ["--closed"]):
        path = next(socket_paths)
        with fake_host(path, stall=Stall(at=50, seconds=0.5)):
            words = ["--target", f"fake=unix:{path}", "-c", "2", "-d", "1s", "--workers", "1"]
            found[model[0]] = run(*words, *model)["targets"][0]["calls"]
    assert found["-R"]["p90_ns"] > 250_000_000
    assert found["--closed"]["p99_ns"] < 50_000_000
    # It saw it, once for each connection, which no percentile tells.
    assert found["--closed"]["max_ns"] > 450_000_000


def test_a_missed_threshold_is_status_99(run, start_fake):
    _, address = start_fake()
    words = ["--target", f"fake={address}", "-R", "100", "-d", "300ms", "--workers", "1"]
    made = run(*words, "--threshold", "p99<1ns", "errors<1%", status=MISSED)
    assert [verdict["met"] for verdict in made["verdicts"]] == [False, True]
    made = run(*words, "--threshold", "p99<9s", "--threshold", "errors<1%", "fake:rate>90")
    assert [verdict["met"] for verdict in made["verdicts"]] == [True] * 3


def test_several_targets_are_driven_at_the_same_time(run, start_fake, start_tcp_fake):
    (one, first), (two, second) = start_fake(), start_tcp_fake()
    words = ["--target", f"a={first}", "--target", f"b=tcp:{second},uri=qemu:///system"]
    made = run(*words, "-R", "100", "-c", "3", "-d", "500ms", "--workers", "2")
    assert [target["calls"]["count"] for target in made["targets"]] == [50, 50]
    assert [target["uri"] for target in made["targets"]] == ["test:///default", "qemu:///system"]
    assert (len(one.callers), len(two.callers)) == (50, 50)
    assert made["tool"]["workers"] == 4
    assert made["tool"]["cpu_s"] > 0
    assert made["tool"]["late_p99_ns"] > 0


def test_intervals_are_the_run_in_pieces(run, start_fake):
    _, address = start_fake()
    words = ["--target", f"fake={address}", "--stages", "1s:200,500ms:200", "--interval", "500ms"]
    (target,) = run(*words, "-c", "2")["targets"]
    intervals = target["intervals"]
    assert [one["begins_s"] for one in intervals] == [0, 0.5, 1]
    assert [one["rate"] for one in intervals] == pytest.approx([50, 150, 200])
    assert [one["calls"] for one in intervals] == pytest.approx([25, 75, 100], abs=5)
    assert sum(one["calls"] for one in intervals) == target["calls"]["count"] == 200
    for one in intervals:
        assert 0 < one["p50_ns"] <= one["p99_ns"] <= one["max_ns"]


def test_what_is_kept_is_what_is_printed(run, start_fake, tmp_path):
    script, address = start_fake()
    script.refused[Remote.CONNECT_GET_LIB_VERSION] = "tired"
    out = tmp_path / "run.json"
    words = [
        "--target",
        f"fake={address}",
        "-R",
        "50",
        "-d",
        "400ms",
        "--out",
        str(out),
        "--workers",
        "1",
    ]
    made = run(*words, "--warmup", "100ms")
    assert json.loads(out.read_text()) == made
    kept = results.load(out)
    assert (kept.scenario, kept.targets[0].errors) == ("run", {"error 1": 20})
    assert kept.plan["mix"] == f"{SMALL}=1"
    assert kept.machine.command.startswith("proxyd-loadtest run --target")


def test_the_text_is_for_people(start_fake, capsys):
    _, address = start_fake()
    words = ["--target", f"fake={address}", "-R", "50", "-d", "300ms", "-C"]
    assert main(["run", *words]) == OK
    printed = capsys.readouterr()
    assert printed.err == ""  # where no terminal is nobody waits
    assert SMALL in printed.out
    assert "connects" in printed.out


def test_progress_is_for_a_terminal(start_fake, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, address = start_fake()
    words = ["--target", f"fake={address}", "-R", "50", "-d", "300ms", "--json"]
    assert main(["run", *words]) == OK
    told = capsys.readouterr().err
    assert "asked/s" in told
    assert "fake" in told


def test_nothing_that_works_is_status_1_and_one_line(socket_paths, capsys):
    path = next(socket_paths)
    words = ["--target", f"a=unix:{path}", "-R", "10", "-d", "10s"]
    assert main(["run", *words]) == FAILED
    told = capsys.readouterr().err
    assert told == f"proxyd-loadtest: target a: No such file or directory: {path}\n"


def test_one_that_works_is_measured_beside_one_that_does_not(run, start_fake, socket_paths):
    _, address = start_fake()
    words = ["--target", f"a={address}", "--target", f"b=unix:{next(socket_paths)}"]
    made = run(*words, "-R", "50", "-d", "500ms", "--workers", "1", "--timeout", "0.1")
    works, does_not = made["targets"]
    assert (works["calls"]["count"], works["errors"]) == (25, {})
    assert does_not["calls"]["count"] == 0
    assert does_not["errors"]["unsent"] == 25
    assert made["notes"][0].startswith("target b: No such file or directory")
    assert made["notes"][-1].startswith("b did not hold the rate: 25 calls")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "how much? Give -R RATE in calls per second, --stages, or --closed"),
        (["--closed", "-R", "5"], "--closed has no rate"),
        (["-R", "0"], "argument -R/--rate: '0' is no rate"),
        (["-R", "5", "--stages", "1s:5"], "not allowed with argument"),
        (["--stages", "1s:5", "-d", "3s"], "-d means nothing for --stages"),
        (["--stages", "1s"], "argument --stages: stage '1s': expected"),
        (["--stages", "1s:5", "--closed", "-c", "3"], "-c means nothing for --closed"),
        (["--closed", "--arrivals", "poisson"], "--arrivals means nothing for --closed"),
        (["-R", "5", "--mix", "small=x"], "argument --mix: 'small=x' in the mix"),
        (["-R", "5", "--mix", "idle=5"], "give at least one call"),
        (["-R", "5", "--mix", "download:1"], "transfers need --volume"),
        (["-R", "5", "--volume", "/v"], "--volume is for download and upload"),
        (["-R", "5", "-d", "10x"], "'10x' is no duration"),
        (["-R", "5", "--threshold", "p99"], "argument --threshold: threshold 'p99': expected"),
        (["-R", "5", "--threshold", "b:p99<1ms"], "threshold 'b:p99<1ms': the targets are a"),
        (["-R", "5", "--interval", "1ms", "-d", "1h"], "more than a million"),
        (["-R", "5", "--out", "/nowhere/x"], "--out /nowhere/x: No such file"),
        (["-R", "5", "--cert", "f"], "--cert is for tls: targets"),
        (["--closed", "-c", "200000"], "100000 are the most"),
    ],
)
def test_a_senseless_command_line_is_status_2(capsys, words, complaint):
    assert main(["run", "--target", "a=unix:/p", *words]) == USAGE
    told = capsys.readouterr().err
    assert complaint in told
    assert told.count("\n") == 1


@pytest.fixture
def gathering(opening):
    load = Load(
        course=steady(100.0, 3.0), mix=parse_mix("small=2,xml=1"), connections=2, interval_s=1.0
    )
    return Gathering(parse_target("a=unix:/p"), opening, load, workers=2)


def parcel(interval, *calls, late=()):
    tally = Tally([array("q", one) for one in calls], late=array("q", late))
    return tally.parcel(interval)


def done(cpu=0.1, waited=0.0):
    """After all three seconds; of these, so much in each."""
    return Done(3, 3_000_000_000, int(cpu * 3e9), int(waited * 3e9))


def test_the_histogram_is_that_of_the_raw_samples(gathering):
    small = [number * number for number in range(1, 4000)]
    large = [number * 1000 for number in range(1, 3000)]
    for begin in range(0, 4000, 100):
        worker = begin // 100 % 2
        gathering.take(worker, parcel(0, small[begin : begin + 100], large[begin : begin + 100]))
    for worker in (0, 1):
        gathering.finish(worker, done())
    gathering.finished([], [], {})
    made, raw = gathering.result.calls, Latencies(small + large)
    assert made.encoded() == raw.encoded()
    ordered = sorted(small + large)
    for percent in (50, 90, 99):
        assert made.percentile(percent) == pytest.approx(percentile(ordered, percent), rel=0.001)
    assert gathering.result.procedures["CONNECT_GET_CAPABILITIES"].count == 2999
    assert gathering.result.intervals[0].p50_ns == percentile(ordered, 50)


def test_an_interval_is_over_when_all_workers_have_left_it(gathering):
    assert gathering.take(0, parcel(0, [5])) == []
    assert gathering.take(0, parcel(1, [6])) == []
    assert [one.calls for one in gathering.take(1, parcel(2, [7, 8]))] == [1]
    assert [one.calls for one in gathering.finish(0, done())] == [1]
    assert not gathering.is_done
    assert [one.calls for one in gathering.finish(1, done())] == [2]
    assert gathering.is_done


@pytest.mark.parametrize(("percent", "found"), [(50, 2), (51, 3), (99, 4), (25, 1)])
def test_a_percentile_is_the_least_value_that_is_enough(percent, found):
    assert percentile([1, 2, 3, 4], percent) == found
    assert percentile([], percent) is None


def used(gathering, first, late=(), calls=(1_000_000,)):
    gathering.take(0, parcel(0, calls, late=late))
    for worker, one in enumerate((first, done())):
        gathering.finish(worker, one)
    gathering.finished([], [], {})
    return tool_use([gathering], 0.5)


def test_a_tool_with_time_to_spare_is_no_bottleneck(gathering):
    told = used(gathering, done(cpu=0.25), late=[90_000])
    assert told == ToolUse(
        workers=2, cpu_s=1.55, busiest_share=0.25, late_p99_ns=told.late_p99_ns, bottleneck=None
    )
    assert told.late_p99_ns == pytest.approx(90_000, rel=0.001)


@pytest.mark.parametrize(
    ("first", "late", "calls", "told"),
    [
        (done(cpu=0.95), [], [1000], "a worker of a used 95% of a core: give it more"),
        (done(cpu=0.4, waited=0.55), [], [1000], "waited 55% of the time for one: this machine"),
        (done(), [2_000_000], [3_000_000], "sent late, by 2.0 ms at p99, although a connection"),
    ],
)
def test_a_tool_that_is_the_bottleneck_says_so(gathering, first, late, calls, told):
    assert told in used(gathering, first, late, calls).bottleneck


def test_calls_that_are_late_beside_a_loaded_target_are_not_the_tools_limit(gathering):
    assert used(gathering, done(), [2_000_000], [90_000_000]).bottleneck is None
