import json

import pytest

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


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda made: made.update(schema="other"), "is no result of proxyd-loadtest"),
        (lambda made: made.pop("tool"), "is damaged: KeyError: 'tool'"),
        (lambda made: made.update(more=1), "is damaged: TypeError"),
        (lambda made: made["targets"][0]["calls"].update(histogram="x"), "is damaged: ValueError"),
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


def test_what_is_no_json_is_told(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("{")
    with pytest.raises(BadResult, match="is no JSON"):
        load(path)
