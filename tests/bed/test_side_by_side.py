"""What the comparison of two ways takes for too long, and what for another result."""

import json

import pytest

from tests.bed import side_by_side
from tests.bed.side_by_side import MOST_BUSY_S, SLOWER_S, SideBySide, Way

KEEPALIVE_S = 5


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass, and busy ones, when something adds to them."""
    passed = {"seconds": 0.0, "busy": 0.0}
    monkeypatch.setattr(side_by_side.time, "monotonic", lambda: passed["seconds"])
    monkeypatch.setattr(side_by_side, "busy_seconds", lambda: passed["busy"])

    def takes(seconds, busy_s=0.0, result="done"):
        def do():
            passed["seconds"] += seconds
            passed["busy"] += busy_s
            return result

        return do

    return takes


def test_a_second_more_is_not_too_long(clock):
    assert SideBySide().of("it", clock(2), clock(2 + SLOWER_S)) == "done"


def test_more_is_and_both_times_are_told(clock):
    with pytest.raises(AssertionError, match=r"it .*: 3\.10 s through the proxy, 2\.00 s directly"):
        SideBySide().of("it", clock(2), clock(2 + SLOWER_S + 0.1))


def test_who_waits_for_a_processor_has_the_time_for_that(clock):
    assert SideBySide().of("it", clock(1), clock(3, busy_s=1.5)) == "done"


def test_who_waits_for_a_keepalive_is_seen_on_the_busiest_machine(clock):
    assert SLOWER_S + MOST_BUSY_S < KEEPALIVE_S
    with pytest.raises(AssertionError, match="through the proxy"):
        SideBySide().of("it", clock(0), clock(KEEPALIVE_S, busy_s=KEEPALIVE_S))


def test_each_run_counts(clock):
    steps = [clock(2), clock(0), clock(0)]

    def through():
        return steps.pop()()

    with pytest.raises(AssertionError, match="run 3 of 3"):
        SideBySide(runs=3).of("it", clock(0), through)


def test_another_result_is_no_success_however_fast(clock):
    with pytest.raises(AssertionError):
        SideBySide().of("it", clock(1), clock(0, result="something else"))


def test_what_has_to_be_done_before_takes_no_time(clock):
    assert SideBySide().of("it", clock(0), clock(0), before=clock(10)) == "done"


@pytest.mark.parametrize("at_once", [False, True])
def test_each_case_of_a_script_counts(monkeypatch, at_once):
    told = {
        "direct": {"one": ["a", 0.0, 0.0], "two": ["b", 0.0, 0.0]},
        "through": {"one": ["a", 0.5, 0.0], "two": ["b", 1.5, 0.0]},
    }

    class Said:
        def __init__(self, way):
            self.way = way

        def succeeded(self):
            return json.dumps(told[self.way.uri])

    monkeypatch.setattr(Way, "script", lambda way, script: Said(way))
    with pytest.raises(AssertionError, match=r"^two, through: 1\.50 s") as failed:
        SideBySide().script(Way("direct"), [Way("through")], "", at_once=at_once)
    assert "one" not in str(failed.value).split("(")[0]
