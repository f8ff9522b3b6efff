import itertools
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from loadtest import results
from loadtest.figures import Latencies
from loadtest.machine import Machine
from loadtest.results import Interval, ProcessUse, Result, TargetResult, ToolUse, Verdict
from loadtest.showing import sheets
from loadtest.showing.drawing import picture
from loadtest.showing.hgrm import as_hgrm
from loadtest.showing.html import page
from loadtest.showing.plots import MOST_POINTS, Kind, plot_of
from loadtest.showing.runs import Run, names_of, series_of
from loadtest.showing.text import WIDTH, as_text
from loadtest.showing.words import clean
from tests.bed.examples import examples
from tests.loadtest.showing.made import MACHINE, a_busy_result, a_result, a_target

SVG = "{http://www.w3.org/2000/svg}"


class Tags(HTMLParser):
    """All start tags with their attributes, and all text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def drawn_series(svg):
    return [one for one in svg.iter(f"{SVG}g") if one.get("class") == "series"]


def test_the_page_has_four_plots_with_a_title_and_words_for_who_cannot_see():
    tags = Tags(page([Run("a", a_busy_result())]))
    plots = [one for one in tags.of("svg") if one.get("role") == "img"]
    assert [one["class"] for one in plots] == [f"plot {kind}" for kind in Kind]
    ids = {one.get("id") for one in tags.of("title") + tags.of("desc")}
    assert {name for one in plots for name in one["aria-labelledby"].split()} <= ids
    assert "latency against calls at least as fast. direct: p50 80.1µs" in " ".join(tags.text)


def test_each_series_has_one_line_in_each_plot_and_two_of_latency_over_time():
    series = series_of([Run("a", a_busy_result())])
    count = {}
    for kind in Kind:
        svg = ET.fromstring(picture(plot_of(kind, series)))
        count[kind] = len(drawn_series(svg))
    # And what was asked for, once, because it was the same for all.
    assert count == {"percentiles": 3, "latency": 6, "throughput": 4, "errors": 3}


def test_series_differ_by_more_than_their_colour():
    series = series_of([Run("a", a_result(*(a_target(f"t{n}", seconds=2) for n in range(24))))])
    svg = ET.fromstring(picture(plot_of(Kind.PERCENTILES, series)))
    looks = set()
    for one in drawn_series(svg):
        line, marks = one.iter(f"{SVG}path")
        shapes = re.split(r"M[0-9. ]+", marks.get("d"))[1:]
        assert len({*shapes}) == 1
        looks.add((line.get("stroke-dasharray"), shapes[0], line.get("stroke")))
    assert len(looks) == 24
    assert len({look[:2] for look in looks}) == 12


def test_several_runs_are_in_one_picture_by_run_and_target():
    runs = [Run("before", a_busy_result()), Run("after", a_result(a_target(seed=9)))]
    names = [one.name for one in series_of(runs)]
    assert names == ["before/direct", "before/proxyd", "before/libvirtd", "after/direct"]
    text = page(runs)
    assert all(text.count(f'data-name="{name}"') == len(Kind) for name in names)


def test_files_of_one_name_are_told_apart(tmp_path):
    one, other = tmp_path / "x" / "a.json", tmp_path / "y" / "a.json"
    assert names_of([one, tmp_path / "b.json"]) == ["a", "b"]
    assert names_of([one, other]) == [str(one), str(other)]
    assert names_of([one, one]) == [str(one), f"{one} (2)"]


def test_a_line_is_broken_where_nothing_was_answered():
    target = a_target(seconds=5)
    stalled = target.intervals[2]
    stalled.calls, stalled.p50_ns, stalled.p99_ns, stalled.max_ns = 0, None, None, None
    series = series_of([Run("a", a_result(target))])
    lines = plot_of(Kind.LATENCY, series).lines
    assert [[len(piece) for piece in line.pieces] for line in lines] == [[2, 2], [2, 2]]
    (_, throughput) = plot_of(Kind.THROUGHPUT, series).lines
    assert [point.y for point in throughput.points][2] == 0


def test_a_long_run_is_drawn_with_few_points_that_keep_the_worst():
    target = a_target(seconds=1)
    target.intervals[:] = [
        Interval(begins_s=n, length_s=1, calls=10, p50_ns=100, p99_ns=200, max_ns=300)
        for n in range(10_000)
    ]
    target.intervals[5_000].p99_ns = 7_000_000
    target.intervals[5_001].errors = {"reset": 34}
    plots = {kind: plot_of(kind, series_of([Run("a", a_result(target))])) for kind in Kind}
    points = plots[Kind.LATENCY].lines[1].points
    assert len(points) <= MOST_POINTS
    assert max(point.y for point in points) == 7_000_000
    assert plots[Kind.LATENCY].remark.startswith("Up to 34 intervals in a point")
    assert {point.y for point in plots[Kind.THROUGHPUT].lines[0].points} == {10}
    assert max(point.y for point in plots[Kind.ERRORS].lines[0].points) == 1


def test_foreign_text_is_only_text():
    evil = "</script></style><script>alert(1)</script>\"'&\u202e\x00"
    target = a_target(evil, seconds=1, errors=(evil,))
    target.errors[evil] = 1
    target.address = target.uri = target.cipher = evil
    target.procedures = {evil: target.calls}
    result = a_result(target, notes=[evil], started=evil, plan={evil: evil})
    tags = Tags(page([Run(evil, result)]))
    assert len(tags.of("script")) == 1
    assert len(tags.of("style")) == 1
    assert tags.text.count("</script></style><script>alert(1)</script>\"'&��") >= 8


def test_the_page_refers_to_nothing_outside_and_forbids_itself_to():
    text = page([Run("a", a_busy_result())])
    tags = Tags(text)
    names = {name for _, attributes in tags.found for name in attributes}
    assert not names & {"src", "href", "xlink:href", "srcset", "action", "style", "onload"}
    outside = re.findall(r"url\(|@import|https?://[^\"]*", text)
    assert outside == ["http://www.w3.org/2000/svg"]  # a namespace's name, in the script
    (policy,) = [one["content"] for one in tags.of("meta") if "http-equiv" in one]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def numbers_of(series, kind, side):
    """What stands at an axis, from the left or from below."""
    svg = ET.fromstring(picture(plot_of(kind, series)))
    return [one.text for one in svg.iter(f"{SVG}text") if one.get("text-anchor") == side][:9]


X, Y = "middle", "end"


def test_axes_have_round_numbers_around_all():
    series = series_of([Run("a", a_busy_result())])
    units = ["50µs", "100µs", "200µs", "500µs", "1ms", "2ms", "5ms"]
    assert numbers_of(series, Kind.LATENCY, Y)[1:] == units
    assert numbers_of(series, Kind.THROUGHPUT, Y)[1:] == [
        *("0", "200", "400", "600", "800", "1,000", "1,200")
    ]


def test_nines_are_equally_wide():
    series = series_of([Run("a", a_busy_result())])
    svg = ET.fromstring(picture(plot_of(Kind.PERCENTILES, series)))
    found = [one for one in svg.iter(f"{SVG}text") if one.get("text-anchor") == X]
    assert [one.text for one in found] == ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]
    places = [float(one.get("x")) for one in found]
    steps = [after - before for before, after in itertools.pairwise(places)]
    assert steps == pytest.approx([steps[0]] * 4, abs=0.2)


@pytest.mark.parametrize(
    ("seconds", "last"),
    [(1, "1 s"), (30, "30 s"), (200, "3 min"), (600, "10 min"), (86400, "20 h")],
)
def test_time_is_told_in_units_that_people_count_in(seconds, last):
    target = a_target(seconds=1)
    target.intervals[0].length_s = seconds
    series = series_of([Run("a", a_result(target))])
    assert numbers_of(series, Kind.ERRORS, X)[-1] == last


def test_names_are_no_mathematics_and_need_no_font():
    target = a_target("$\\frac$ 主機 \U0001f600", seconds=2)
    assert "$\\frac$ 主機 \U0001f600" in picture(
        plot_of(Kind.ERRORS, series_of([Run("a", a_result(target))]))
    )


def test_a_page_without_the_library_that_draws_says_how_it_comes(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "loadtest.showing.drawing")
    monkeypatch.delattr("loadtest.showing.drawing", raising=False)
    tags = Tags(page([Run("a", a_busy_result())]))
    assert tags.of("svg") == []
    assert "pip install 'matplotlib>=3.9'" in " ".join(tags.text)
    assert "29579" in " ".join(tags.text).replace(",", "")


def test_a_run_without_targets_is_a_page_as_well():
    tags = Tags(page([Run("a", a_result())]))
    assert tags.text.count("nothing was measured") == len(Kind)


names = st.text(max_size=12) | st.sampled_from(["x" * 500, "<b>", "a\nb", "\ud800", "", "é" * 40])
counts = st.integers(0, 1 << 50)
few = st.integers(0, 3)
seconds = st.just(0.0) | st.floats(1e-3, 1e5)
kib = st.integers(0, 1 << 31)
nanoseconds = st.none() | st.integers(0, 60_000_000_000)
latencies = st.lists(st.integers(0, 100_000), max_size=4).map(Latencies)
errors = st.dictionaries(names, st.integers(1, 1 << 40), max_size=2)
intervals = st.builds(
    Interval,
    begins_s=seconds,
    length_s=seconds,
    rate=st.none() | st.floats(0, 1e9),
    calls=counts,
    connects=counts,
    bytes_up=counts,
    bytes_down=counts,
    p50_ns=nanoseconds,
    p99_ns=nanoseconds,
    max_ns=nanoseconds,
    errors=errors,
)
uses = st.builds(
    ProcessUse,
    label=names,
    pids=st.just((1,)),
    cpu_s=seconds,
    rss_kib=kib,
    rss_kib_before=kib,
    descriptors=st.none() | few,
    descriptors_before=st.none() | few,
)
targets = st.builds(
    TargetResult,
    name=names,
    address=names,
    uri=names,
    cipher=st.none() | names,
    elapsed_s=seconds,
    connects=latencies,
    calls=latencies,
    procedures=st.dictionaries(names, latencies, max_size=1),
    intervals=st.lists(intervals, max_size=3),
    errors=errors,
    bytes_up=counts,
    bytes_down=counts,
    processes=st.lists(uses, max_size=1),
)
odd_results = st.builds(
    Result,
    scenario=names,
    machine=st.just(MACHINE)
    | st.builds(Machine, few, names, names, names, names, st.none() | names, names, seconds),
    started=names,
    plan=st.dictionaries(names, st.none() | names | seconds | st.lists(names, max_size=2)),
    targets=st.lists(targets, max_size=2),
    tool=st.builds(
        ToolUse,
        workers=few,
        cpu_s=seconds,
        busiest_share=seconds,
        late_p99_ns=nanoseconds,
        bottleneck=st.none() | names,
    ),
    verdicts=st.lists(
        st.builds(
            Verdict,
            text=names | st.sampled_from(["p99<1ms", "errors<1%"]),
            target=names,
            value=st.none() | st.floats(-1e12, 1e12),
            met=st.booleans(),
        ),
        max_size=2,
    ),
    notes=st.lists(names, max_size=2),
)


@examples(12, suppress_health_check=[HealthCheck.too_slow])
@given(odd_results, names)
def test_whatever_a_result_holds_it_can_be_shown(result, name):
    runs = [Run(name, result), Run(name, result)]
    text = as_text(result)
    assert all(line.isprintable() for line in text.split("\n"))
    words = clean(result.machine.command).split(" ")
    lines = [line for line in text.split("\n") if line.strip() not in words]
    assert max(map(len, lines), default=0) <= WIDTH
    sheets.summary(runs).encode()
    sheets.intervals(runs).encode()
    Tags(page(runs).encode().decode())
    for kind in Kind:
        ET.fromstring(picture(plot_of(kind, series_of(runs))))
    for target in result.targets:
        assert as_hgrm(target.calls).endswith("]\n")


@pytest.mark.parametrize("made", [a_busy_result, a_result])
def test_a_saved_result_is_shown_as_it_was_before(tmp_path, made):
    result = made()
    results.save(result, tmp_path / "a.json")
    loaded = results.load(tmp_path / "a.json")
    assert as_text(loaded) == as_text(result)
    assert page([Run("a", loaded)]) == page([Run("a", result)])
    assert results.as_text(loaded) == results.as_text(result)
