import csv
import io

from loadtest.figures import Latencies
from loadtest.showing import sheets
from loadtest.showing.hgrm import as_hgrm
from loadtest.showing.runs import Run
from tests.loadtest.showing.made import a_busy_result, a_result, a_target


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_summary_has_a_row_for_calls_connects_and_procedures_of_each_target():
    result = a_busy_result()
    rows = rows_of(sheets.summary([Run("a", result)]))
    assert [row["series"] for row in rows] == ["calls", "connects", "CONNECT_GET_LIB_VERSION"] * 3
    calls, target = rows[3], result.targets[1]
    assert (calls["run"], calls["target"], calls["errors"]) == ("a", "proxyd", "40")
    assert int(calls["count"]) == target.calls.count
    assert int(calls["p99_ns"]) == target.calls.percentile(99)
    assert int(calls["min_ns"]) == target.calls.lowest
    assert float(calls["tool_cpu_s"]) == 55
    assert rows[4]["errors"] == ""


def test_intervals_have_a_row_each_and_a_column_for_each_class_of_errors():
    result = a_busy_result()
    rows = rows_of(sheets.intervals([Run("a", result), Run("b", a_result(a_target(seconds=2)))]))
    assert len(rows) == 3 * 30 + 2
    assert [row["run"] for row in rows[-3:]] == ["a", "b", "b"]
    proxyd = [row for row in rows if row["target"] == "proxyd"]
    assert sum(int(row["errors: reset"]) for row in proxyd) == 20
    assert sum(int(row["calls"]) for row in proxyd) == result.targets[1].calls.count
    assert rows[-1]["errors: timeout"] == "0"


def test_an_interval_without_calls_has_empty_cells():
    (row,) = rows_of(sheets.intervals([Run("a", a_result(a_target(seconds=1, rate=0)))]))
    assert (row["calls"], row["p99_ns"]) == ("0", "")


def numbers(hgrm):
    """As HdrHistogram's plotter reads it: lines of four numbers."""
    lines = [line.split() for line in hgrm.splitlines() if not line.startswith("#")]
    return [
        [float(cell) for cell in line] for line in lines if len(line) == 4 and line[0] != "Value"
    ]


def test_hgrm_is_what_the_library_writes_but_for_its_deviation():
    latencies = Latencies(range(1_000_000, 9_000_000, 777))
    library = io.BytesIO()
    latencies._histogram.output_percentile_distribution(library, 1e6)
    assert numbers(as_hgrm(latencies)) == numbers(library.getvalue().decode())
    assert "StdDeviation   =        2.3" in as_hgrm(latencies)


def test_hgrm_ends_with_a_hundred_percent_and_the_maximum():
    latencies = Latencies([1_000_000] * 9 + [5_000_000])
    *_, last, mean, highest = as_hgrm(latencies).splitlines()
    assert [float(cell) for cell in last.split()] == [5.001, 1, 10]
    assert mean == "#[Mean    =        1.400, StdDeviation   =        1.200]"
    assert highest == "#[Max     =        5.001, Total count    =           10]"


def test_hgrm_of_nothing_is_a_heading_and_zeros():
    assert numbers(as_hgrm(Latencies())) == []
    assert "Total count    =            0]" in as_hgrm(Latencies())
