from loadtest.figures import Latencies
from loadtest.results import Interval, ToolUse, Verdict
from loadtest.showing.runs import Run
from loadtest.showing.text import WIDTH, as_text, runs_as_text
from loadtest.showing.verdicts import found
from tests.loadtest.showing.made import a_busy_result, a_result, a_target


def lines_of(text, start):
    return [line for line in text.splitlines() if line.strip().startswith(start)]


def test_each_target_has_a_block_that_people_know_from_vegeta():
    text = as_text(a_result(a_target()))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "direct  unix:/run/direct  test:///default" in text.splitlines()
    (requests,) = lines_of(text, "Requests")
    assert requests.split("]")[1].split(", ") == ["     29579", "1,000", "986"]
    assert lines_of(text, "Success")[0].endswith(" 100%")
    assert lines_of(text, "Error Set")[0].endswith(" none")


def test_latencies_of_calls_connects_and_procedures_stand_apart():
    text = as_text(a_result(a_target()))
    head, calls, connects, procedure = [line.split() for line in _block(text, "  Latencies ")]
    assert head == ["Latencies", "count", "min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"]
    assert calls[:3] == ["calls", "29579", "19.2µs"]
    assert connects[:2] == ["connects", "64"]
    assert procedure[1:] == calls[1:]


def _block(text, start):
    lines = text.splitlines()
    (first,) = [index for index, line in enumerate(lines) if line.startswith(start)]
    return lines[first : lines.index("", first)]


def test_the_distribution_has_a_column_for_each_target():
    head, names, *rows = _block(as_text(a_busy_result()), "Latency Distribution (HdrHistogram)")
    assert names.split() == ["direct", "proxyd", "libvirtd"]
    assert [row.split()[0] for row in rows[:4]] == ["50.000%", "75.000%", "90.000%", "99.000%"]
    assert rows[-1].split() == ["100.000%", "3.93ms", "5.59ms", "5.98ms"]
    assert head.startswith("Latency")


def test_many_targets_are_shown_six_beside_each_other():
    text = as_text(a_result(*(a_target(f"number {n}", seconds=1) for n in range(7))))
    assert text.count("Latency Distribution") == 2
    assert max(map(len, text.splitlines())) <= WIDTH


def test_the_tools_own_cpu_stands_beside_every_target():
    text = as_text(a_busy_result())
    assert len(lines_of(text, "Load tool")) == 3
    assert all("97% of a core" in line for line in lines_of(text, "Load tool"))
    assert lines_of(text, "NOTE the load tool is the limit: 97% of a core was in use")


def test_errors_are_told_by_class_and_count_against_success():
    text = as_text(a_busy_result())
    assert "reset: 20, timeout: 20" in lines_of(text, "Error Set")[1]
    assert lines_of(text, "Success")[1].endswith("99.86%")


def test_thresholds_are_ticked_or_crossed_with_what_was_found():
    met, missed = _block(as_text(a_busy_result()), "Thresholds")[1:]
    assert met.split() == ["✓", "p99<2ms", "direct", "181µs"]
    assert missed.split() == ["✗", "errors<0.1%", "proxyd", "1.230%"]


def test_a_threshold_is_told_in_the_unit_that_it_was_given_in():
    values = {
        "p99.9<2ms": "1.50ms",
        "proxyd:max <= 1s": "1.50ms",
        "connect_p50<1ms": "1.50ms",
        "rate>1000": "1,500,000",
        "errors<1%": "150000000.000%",
    }
    made = [Verdict(text=text, target="a", value=1.5e6, met=True) for text in values]
    assert [found(verdict) for verdict in made] == list(values.values())
    assert found(Verdict(text="p99<1ms", target="a", value=None, met=False)) == "–"


def test_a_closed_model_asks_for_no_rate():
    target = a_target(seconds=1)
    target.intervals[:] = [Interval(begins_s=0, length_s=1, calls=5)]
    tool = ToolUse(workers=1, cpu_s=1, busiest_share=0.5)
    text = as_text(a_result(target, tool=tool))
    assert ", closed model, " in lines_of(text, "Requests")[0]
    assert "late" not in lines_of(text, "Load tool")[0]


def test_no_calls_at_all_are_shown_as_such():
    text = as_text(a_result(a_target(rate=0, errors=("refused",))))
    assert lines_of(text, "Success")[0].endswith(" 0%")
    assert lines_of(text, "calls")[0].split() == ["calls", "0", *["–"] * 8]
    assert "Distribution" not in text


def test_several_runs_stand_below_each_other_under_their_names():
    run = a_result(a_target(seconds=1))
    text = runs_as_text([Run("before", run), Run("after", run)])
    assert text.startswith("before\n======\nrun, started")
    assert "\n\n\nafter\n=====\nrun, started" in text
    assert runs_as_text([Run("alone", run)]) == as_text(run)


def test_an_error_reply_is_one_call_and_no_success():
    target = a_target(seconds=1)
    target.calls = Latencies([1000] * 10)
    target.errors = {"error 42": 4, "timeout": 6}
    assert lines_of(as_text(a_result(target)), "Success")[0].endswith(" 37.50%")  # 6 of 16


def test_events_are_told_where_there_were_any():
    target = a_target(seconds=1)
    assert not lines_of(as_text(a_result(target)), "Events")
    target.events = 7
    assert lines_of(as_text(a_result(target)), "Events")[0].endswith(" 7")
