"""One page with everything, readable without network and without its script.

The page forbids itself everything but its own style and script, by their hashes: should a foreign
text ever come through as markup, it could neither run nor fetch anything.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from xml.etree.ElementTree import Element

from .. import extras
from ..failures import UsageError
from ..results import Result
from . import verdicts
from .markup import as_html, element
from .plots import Kind, Plot, plot_of
from .runs import Run, Series, asked_rate, reached_rate, series_of, succeeded, tried
from .text import PERCENTS, latency_row, process_row, tool_figures
from .words import amount, duration, number, share

_PLOT_STYLE: Final = Path(__file__).with_name("plot.css")
_PAGE_STYLE: Final = Path(__file__).with_name("page.css")
_SCRIPT: Final = Path(__file__).with_name("page.js")
_LATENCY_HEAD: Final = ["count", "min", "mean", *(f"p{percent:g}" for percent in PERCENTS), "max"]
_LONG_TITLE: Final = 3  # targets; more are counted instead
_FIGURES_REMARK: Final = (
    "Latency and connecting are apart. Tool CPU: how much of a core the busiest worker of the load"
    " tool used; near 100 % the figures are the tool's own."
)

Cells = Sequence[Element | str]


def page(runs: Sequence[Run]) -> str:
    """An HTML document; its plots show all targets of all runs together.

    Where the library that draws is missing, the page says how it is installed in their place.
    """
    try:
        drawing, missing = extras.drawing(), ""
    except UsageError as error:
        drawing, missing = None, str(error)
    series = series_of(runs)
    title = _title(runs, series)
    style = _PLOT_STYLE.read_text(encoding="utf-8") + _PAGE_STYLE.read_text(encoding="utf-8")
    script = _SCRIPT.read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style),
    )
    body = element(
        "body",
        element("header", element("h1", title), *(_about(run, len(runs) > 1) for run in runs)),
        element(
            "main",
            *_callouts(runs),
            _section("Figures", _figures(series, drawing)),
            element("p", element("small", _FIGURES_REMARK)),
            element(
                "section",
                element("h2", "Plots"),
                element("p", missing) if drawing is None else _plots(series, drawing),
                class_="plots",
            ),
            _section("Latency of each procedure", _procedures(series)),
            _section("Connecting", _connects(series)),
            _section("Errors", _errors(series)),
            _section("Processes", _processes(series)),
            _section("Load tool", _tools(runs)),
            element("section", element("h2", "What was asked for"), *map(_plan, runs)),
        ),
        element("script", script),
    )
    return as_html(element("html", head, body, lang="en"))


def _policy(style: str, script: str) -> str:
    return f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}"


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _title(runs: Sequence[Run], series: Sequence[Series]) -> str:
    scenarios = " and ".join(dict.fromkeys(run.result.scenario for run in runs))
    names = list(dict.fromkeys(one.target.name for one in series))
    told = ", ".join(names) if len(names) <= _LONG_TITLE else f"{len(names)} targets"
    many = f"{len(runs)} runs, " if len(runs) > 1 else ""
    return f"proxyd-loadtest {scenarios}: {many}{told or 'no target'}"


def _about(run: Run, named: bool) -> Element:
    machine = run.result.machine
    return element(
        "p",
        element("strong", f"{run.name}: ") if named else None,
        f"{run.result.scenario}, started {run.result.started}, on {machine.cores} ×"
        f" {machine.cpu_model}, {machine.kernel}, Python {machine.python}; load before"
        f" {machine.load:.2f}; proxyd-loadtest {machine.tool_version}, commit"
        f" {machine.commit or 'unknown'}",
        element("br"),
        element("code", machine.command),
    )


def _callouts(runs: Sequence[Run]) -> Iterator[Element | None]:
    """What must be known before the figures are believed, and what came of the thresholds."""
    for run in runs:
        which = f"{run.name}: " if len(runs) > 1 else ""
        result = run.result
        if result.tool.bottleneck:
            text = f"{which}the load tool is the limit: {result.tool.bottleneck}"
            yield element("p", text, class_="callout missed", role="note")
        for note in result.notes:
            yield element("p", which + note, class_="callout", role="note")
        if result.verdicts:
            yield _section(f"{which}Thresholds", _thresholds(result))


def _thresholds(result: Result) -> Element:
    rows: list[Cells] = [
        [
            element(
                "span",
                f"{verdicts.mark(one)} {'met' if one.met else 'missed'}",
                class_="met" if one.met else "missed",
            ),
            one.text,
            one.target,
            verdicts.found(one),
        ]
        for one in result.verdicts
    ]
    return _table(["", "threshold", "target", "found"], rows, words=3)


def _figures(series: Sequence[Series], drawing: ModuleType | None) -> Element:
    head = ["target", "calls", "asked/s", "got/s", "success", "tool CPU", *_LATENCY_HEAD[1:]]
    head += ["in", "out", *(["events"] if any(one.target.events for one in series) else [])]
    rows: list[Cells] = []
    for look, one in enumerate(series):
        target = one.target
        calls = target.calls.count
        asked = asked_rate(target.intervals)
        rows.append(
            [
                _named(one, drawing.sample(look) if drawing else None),
                f"{calls:,}",
                "closed" if asked is None else number(asked),
                number(reached_rate(target)),
                share(succeeded(target), tried(target)),
                f"{one.run.result.tool.busiest_share:.0%}",
                *latency_row(target.calls)[1:],
                amount(target.bytes_down),
                amount(target.bytes_up),
                *([f"{target.events:,}"] if "events" in head else []),
            ]
        )
    return _table(head, rows)


def _named(series: Series, sample: Element | None) -> Element:
    about = [series.target.address, series.target.uri]
    about += [series.target.cipher] if series.target.cipher else []
    return element("span", sample, series.name, element("small", ", ".join(about)), class_="name")


def _plots(series: Sequence[Series], drawing: ModuleType) -> Element:
    plots = [plot_of(kind, series) for kind in Kind]
    return element("div", *(_figure(plot, drawing) for plot in plots), class_="pictures")


def _figure(plot: Plot, drawing: ModuleType) -> Element:
    remark = element("small", f" {plot.remark}") if plot.remark else None
    caption = element("figcaption", plot.title, remark)
    return element("figure", caption, drawing.drawn(plot, f"plot-{plot.kind}"))


def _procedures(series: Sequence[Series]) -> Element | None:
    rows = [
        [name, one.name, *latency_row(latencies)]
        for one in series
        for name, latencies in one.target.procedures.items()
    ]
    rows.sort(key=lambda row: row[0])
    return _table(["procedure", "target", *_LATENCY_HEAD], rows, words=2) if rows else None


def _connects(series: Sequence[Series]) -> Element | None:
    rows = [[one.name, *latency_row(one.target.connects)] for one in series]
    return _table(["target", *_LATENCY_HEAD], rows) if rows else None


def _errors(series: Sequence[Series]) -> Element | None:
    rows = [
        [one.name, name, f"{count:,}", share(count, tried(one.target))]
        for one in series
        for name, count in sorted(one.target.errors.items())
    ]
    if not rows:
        return element("p", "None.")
    return _table(["target", "class", "count", "of all calls"], rows, words=2)


def _processes(series: Sequence[Series]) -> Element | None:
    head = ["target", "label", "CPU", "of a core", "CPU/call", "RSS, KiB", "before", "fds"]
    rows = [
        [one.name, use.label, *process_row(use, one.target)]
        for one in series
        for use in one.target.processes
    ]
    return _table([*head, "before"], rows, words=2) if rows else None


def _tools(runs: Sequence[Run]) -> Element:
    rows = []
    for run in runs:
        tool = run.result.tool
        workers, cpu, busiest, *_ = tool_figures(tool)
        rows.append([run.name, workers, cpu, busiest, duration(tool.late_p99_ns)])
    return _table(["run", "workers", "CPU", "busiest worker", "calls sent late by, p99"], rows)


def _plan(run: Run) -> Element:
    rows = [[name, _in_words(value)] for name, value in run.result.plan.items()]
    return element(
        "details", element("summary", run.name), _table(["option", "value"], rows, words=2)
    )


def _in_words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_in_words, value))
    return "not given" if value is None else str(value)


def _section(title: str, content: Element | None) -> Element | None:
    return None if content is None else element("section", element("h2", title), content)


def _table(head: Sequence[str], rows: Sequence[Cells], words: int = 1) -> Element:
    """The first `words` columns hold words, the others numbers."""
    kinds = ["word" if index < words else "number" for index in range(len(head))]
    first = element(
        "tr",
        *(
            element("th", name, scope="col", class_=kind)
            for name, kind in zip(head, kinds, strict=True)
        ),
    )
    return element(
        "div",
        element(
            "table",
            element("thead", first),
            element("tbody", *(_row(row, kinds) for row in rows)),
        ),
        class_="wide",
        tabindex="0",  # so that what does not fit can be reached by keys
        role="group",
    )


def _row(row: Cells, kinds: Sequence[str]) -> Element:
    cells = zip(row, kinds, strict=True)
    return element("tr", *(element("td", one, class_=kind) for one, kind in cells))
