import json

import pytest

from loadtest.failures import NotKept, UsageError
from loadtest.figures import Latencies
from loadtest.machine import this_machine
from loadtest.results import (
    BadResult,
    Interval,
    ProcessUse,
    Result,
    TargetResult,
    ToolUse,
    Verdict,
    as_text,
    check_writable,
    load,
    save,
)


@pytest.fixture
def result():
    target = TargetResult(
        name="a",
        address="unix:/p",
        uri="test:///default",
        elapsed_s=1.5,
        calls=Latencies([1000, 2000, 5_000_000]),
        procedures={"CONNECT_GET_LIB_VERSION": Latencies([1000])},
        intervals=[Interval(begins_s=0.0, length_s=1.5, calls=3, events=2, errors={"reset": 1})],
        errors={"reset": 1},
        events=2,
        processes=[
            ProcessUse(
                label="pid",
                pids=(5, 6),
                cpu_s=0.5,
                rss_kib=10,
                rss_kib_before=9,
                descriptors=None,
                descriptors_before=None,
            )
        ],
    )
    return Result(
        scenario="run",
        machine=this_machine([]),
        started="2026-01-01T00:00:00+00:00",
        plan={"rate": 5.0, "mix": "small=1"},
        targets=[target],
        tool=ToolUse(workers=1, cpu_s=0.1, busiest_share=0.2),
        verdicts=[Verdict(text="p99<1ms", target="a", value=5e6, met=False)],
        notes=["so it was"],
    )


def test_what_was_saved_is_loaded(result, tmp_path):
    path = tmp_path / "run.json"
    save(result, path)
    loaded = load(path)
    assert as_text(loaded) == path.read_text() == as_text(result)
    assert loaded.targets[0].processes == result.targets[0].processes
    assert loaded.targets[0].intervals == result.targets[0].intervals
    assert loaded.targets[0].calls.percentile(50) == result.targets[0].calls.percentile(50)
    assert loaded.targets[0].connects.count == 0


def test_what_was_saved_before_there_were_events_is_loaded(result, tmp_path):
    document = json.loads(as_text(result))
    del document["targets"][0]["events"], document["targets"][0]["intervals"][0]["events"]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document))
    assert load(path).targets[0].events == 0


def target(document):
    return document["targets"][0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda made: made.update(schema="other"), "is no result of proxyd-loadtest"),
        (lambda made: made.pop("tool"), "is damaged: tool is missing"),
        (lambda made: made.update(more=1), "is damaged: more: nothing of that name is known"),
        (
            lambda made: target(made)["calls"].update(histogram="x"),
            "targets[0].calls: no histogram",
        ),
        (lambda made: target(made).update(calls=None), "targets[0].calls: expected a histogram"),
        (
            lambda made: target(made)["intervals"][0].update(rate="abc"),
            "is damaged: targets[0].intervals[0].rate: expected a number and found 'abc'",
        ),
        (lambda made: target(made).update(elapsed_s=True), "expected a number and found True"),
        (lambda made: target(made).update(elapsed_s=10**400), "expected a number and found 1000"),
        (lambda made: target(made).update(name=5), "targets[0].name: expected a text and found 5"),
        (lambda made: target(made).update(events=1.5), "expected a whole number and found 1.5"),
        (
            lambda made: target(made)["errors"].update(reset="2"),
            "targets[0].errors.reset: expected",
        ),
        (lambda made: target(made)["processes"][0].update(pids=[1, "2"]), "processes[0].pids[1]: "),
        (lambda made: made.update(targets={}), "targets: expected a list and found {}"),
        (lambda made: made.update(machine=[]), "machine: expected an object and found []"),
        (lambda made: made["verdicts"][0].update(met=1), "expected true or false and found 1"),
        (lambda made: made.update(notes=["x" * 999, 5]), "notes[1]: expected a text"),
    ],
)
def test_a_file_that_no_run_has_written_is_told(result, tmp_path, change, complaint):
    document = json.loads(as_text(result))
    change(document)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document))
    with pytest.raises(BadResult) as refused:
        load(path)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, '{"a": "\xff"}', "9" * 5000])
def test_what_is_no_json_is_told(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BadResult, match="is no JSON"):
        load(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_told(result, tmp_path, number):
    path = tmp_path / "run.json"
    path.write_text(as_text(result).replace('"elapsed_s": 1.5', f'"elapsed_s": {number}'))
    with pytest.raises(BadResult, match=r"targets\[0\].elapsed_s: expected a number and found"):
        load(path)


def test_where_the_result_goes_is_looked_at_before_and_what_is_there_left_alone(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("from last time")
    check_writable(path)
    assert path.read_text() == "from last time"
    with pytest.raises(UsageError, match=r"--out .*/none/run\.json: No such file"):
        check_writable(tmp_path / "none" / "run.json")


def test_a_result_that_cannot_be_written_is_told(result, tmp_path):
    with pytest.raises(NotKept, match=r"cannot write .*: Is a directory"):
        save(result, tmp_path)
