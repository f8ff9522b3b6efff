import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.figures import HIGHEST_NS, Latencies, Round, TargetFigures, Work, against, cpu_ratio
from loadtest.targets import parse_target

TARGET = parse_target("a=unix:/p,pid=1,backend=2")


def plain_percentile(samples, percent):
    return sorted(samples)[max(0, math.ceil(len(samples) * percent / 100) - 1)]


@given(
    st.lists(st.integers(1, HIGHEST_NS), min_size=1, max_size=300),
    st.sampled_from([1.0, 50.0, 90.0, 99.0, 100.0]),
)
def test_the_histogram_agrees_with_sorted_samples(samples, percent):
    found = Latencies(samples).percentile(percent)
    # The histogram rounds the rank to the nearest, so a neighbour is right as well.
    near = [plain_percentile(samples, percent + by * 100 / len(samples)) for by in (-1, 0)]
    assert min(near) * 0.999 <= found <= max(near) * 1.001


def test_what_is_beyond_the_histogram_counts_as_its_highest():
    latencies = Latencies([HIGHEST_NS * 5])
    assert latencies.count == 1
    assert latencies.highest == pytest.approx(HIGHEST_NS, rel=0.001)


def a_round(latency_ns, calls=10, elapsed_ns=1000, **cpu_ns):
    made = Round(Latencies([latency_ns] * 5))
    made.add(Work(calls, elapsed_ns, 100, cpu_ns))
    return made


def test_costs_are_per_call_and_shares_of_elapsed_time():
    work = Work(calls=10, elapsed_ns=2000, tool_cpu_ns=500, cpu_ns={"pid": 3000})
    assert work.rate == 5e6
    assert (work.tool_per_call_ns, work.tool_share) == (50, 0.25)
    assert (work.per_call_ns("pid"), work.share("pid")) == (300, 1.5)


def test_rounds_are_added_up():
    figures = TargetFigures(TARGET, [a_round(100, pid=7), a_round(300, calls=30, pid=9)])
    whole = figures.combined()
    assert whole.latencies.count == 10
    assert whole.work == Work(40, 2000, 200, {"pid": 16})
    assert figures.rounds[0].latencies.count == 5  # the rounds themselves are as before


def test_ratios_are_taken_round_by_round_and_overall():
    first = TargetFigures(TARGET, [a_round(100), a_round(200)])
    mine = TargetFigures(TARGET, [a_round(150, calls=5), a_round(220, calls=5)])
    found = against(mine, first)
    assert found.p50_ratio.per_round == pytest.approx((1.5, 1.1))
    assert found.added_p50_ns.per_round == (50, 20)
    assert (found.added_ratio.low, found.added_ratio.high) == pytest.approx((0.1, 0.5))
    assert found.rate_ratio.value == 0.5


def test_one_disturbed_slice_does_not_move_the_ratio_of_rates():
    first, mine = Round(Latencies([1])), Round(Latencies([1]))
    for calls, disturbed in ((100, 100), (80, 8), (60, 60)):
        first.add(Work(calls, 1000, 1))
        mine.add(Work(disturbed, 1000, 1))
    found = against(TargetFigures(TARGET, [mine]), TargetFigures(TARGET, [first]))
    assert found.rate_ratio.value == 1


def test_groups_of_processes_are_divided():
    figures = TargetFigures(
        TARGET, [a_round(1, pid=30, backend=60), a_round(1, pid=10, backend=40)]
    )
    found = cpu_ratio(figures, "pid", "backend")
    assert found.value == 0.4
    assert found.per_round == (0.5, 0.25)


def test_nothing_is_divided_by_an_idle_process():
    figures = TargetFigures(TARGET, [a_round(1, pid=30, backend=0)])
    assert cpu_ratio(figures, "pid", "backend") is None
