"""Plots as SVG, by matplotlib, for a page of any width, light or dark, on paper, and without seeing
colours. It is an extra: `extras.drawing` is the way here.

matplotlib draws all of it. Its SVG is then put in order: colours become variables, to which
plot.css gives a meaning by day and by night, and styles attributes, because the page's policy lets
in no style but its own; and it gets words for who cannot see it, and what the page's script shows.
A series is known by its dashes and its mark as well.
"""

import io
import json
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unicodedata import east_asian_width
from xml.etree.ElementTree import Element, fromstring

import matplotlib as mpl
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.scale import FuncScale
from matplotlib.transforms import Affine2D

from .markup import as_svg, element, plain
from .plots import Kind, Line, Plot, Point
from .words import clean, shortened

STYLE: Final = Path(__file__).with_name("plot.css")
_INCH: Final = 72  # so that a point is a pixel
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _ABOVE, _BELOW = 480, 240, 62, 20, 32, 44
_ROW: Final = 19  # of the legend
_LETTER: Final = 7.8  # as wide as the larger ones of a narrow page
_LONGEST_NAME: Final = 40
_MOST_MARKS: Final = 8  # on a line
# From here on a linear axis would press half of what is shown into its lowest tenth.
_WIDE: Final = 20.0
_STEPS: Final = (1, 2, 5, 10)
_UNITS: Final = ((3600, "h"), (60, "min"), (1, "s"))  # that people count time in
_DASHES: Final = ((), (3.5, 1.5), (1, 1.5), (4.5, 1.5, 1, 1.5), (7, 2), (2.5, 1, 2.5, 3))
# An octagon is a circle of few words.
_MARKS: Final = (("8", 8), ("s", 7), ("^", 9), ("D", 7))
# What matplotlib takes for colours, and what becomes of them: plot.css.
_COLOURS: Final = {f"#0000{n + 1:02x}": f"var(--c{n})" for n in range(8)} | {
    "#aa0000": "var(--ink)",
    "#bb0000": "var(--soft)",
    "#cc0000": "var(--rule)",
    "#dd0000": "var(--paper)",
}
_SERIES: Final = tuple(_COLOURS)[:8]
_INK, _SOFT, _RULE, _PAPER = tuple(_COLOURS)[8:]
_SETTINGS: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "",  # the same plot is the same text
    "text.parse_math": False,  # names may have a $ in them
    "axes.unicode_minus": False,
    "font.size": 11,
    "text.color": _INK,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.labelcolor": _SOFT,
}
_KEPT: Final = ("fill", "stroke", "stroke-width", "stroke-dasharray", "text-anchor", "opacity")
_SVG: Final = "{http://www.w3.org/2000/svg}"
_REFERENCE: Final = "{http://www.w3.org/1999/xlink}href"
_PLACES: Final = {f"{_SVG}path": ("d",), f"{_SVG}text": ("x", "y")}
_USUAL: Final = {"fill": "none", "stroke": "var(--rule)"}  # a grid's, which plot.css says of all


def picture(plot: Plot) -> str:
    """A file of its own, with its style in it."""
    root = drawn(plot, "plot")
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.insert(0, element("style", STYLE.read_text(encoding="utf-8")))
    return as_svg(root)


def drawn(plot: Plot, name: str) -> Element:
    """An `svg` element; `name` is the only one of its kind on its page."""
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters that its own font has not
        entries, rows = _entries(plot)
        height = rows * _ROW + _ABOVE + _HEIGHT + _BELOW
        figure = Figure((_WIDTH / _INCH, height / _INCH), dpi=_INCH, facecolor="none")
        across, up = _WIDTH - _LEFT - _RIGHT, _HEIGHT
        axes = figure.add_axes(
            (_LEFT / _WIDTH, _BELOW / height, across / _WIDTH, up / height), facecolor="none"
        )
        _frame(axes, plot)
        for line, handle in zip(
            plot.lines, [_plotted(axes, line) for line in plot.lines], strict=True
        ):
            entries.get((line.name, line.look), []).append(handle)
        _legend(figure, entries)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    root = element(
        "svg",
        element("title", plot.title, id=f"{name}-title"),
        element(
            "desc", f"{plot.y_title} against {plot.x_title}. {plot.summary}", id=f"{name}-desc"
        ),
        *_cleaned(fromstring(file.getvalue())),  # noqa: S314 (matplotlib's, not somebody's)
        class_=f"plot {plot.kind}",
        viewBox=f"0 0 {_WIDTH} {height}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )
    root.set("data-axes", f"{_LEFT} {height - _BELOW - up} {_WIDTH - _RIGHT} {height - _BELOW}")
    series = [each for each in root.iter("g") if each.get("class") == "series"]
    for group, line in zip(series, (line for line in plot.lines if line.pieces), strict=True):
        _tell(group, line, axes, height)
    return root


def sample(look: int) -> Element:
    """What a series looks like, for a table."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure((30 / _INCH, 16 / _INCH), dpi=_INCH, facecolor="none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, 2)
        axes.plot([0, 1, 2], [0, 0, 0], markevery=(1, 2), **_style(look, faint=False))
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    shown = _cleaned(fromstring(file.getvalue()))  # noqa: S314
    return element("svg", *shown, class_="plot sample", viewBox="0 0 30 16", aria_hidden="true")


def _style(look: int | None, *, faint: bool) -> dict[str, Any]:
    if look is None:  # what is no series of its own
        return {"color": _SOFT, "linewidth": 1.5, "dashes": (1.4, 2.7)}
    style: dict[str, Any] = {"color": _SERIES[look % len(_SERIES)], "linewidth": 1 if faint else 2}
    style |= {"dashes": _DASHES[look % len(_DASHES)] or (None, None)}
    if faint:
        return {**style, "alpha": 0.75}
    mark, size = _MARKS[look % len(_MARKS)]
    return {**style, "marker": mark, "markersize": size, "markeredgecolor": _PAPER}


def _plotted(axes: Axes, line: Line) -> Any:
    """Broken between its pieces. Each series' marks begin elsewhere, lest those of equal lines hide
    each other."""
    points = [point for piece in line.pieces for point in (*piece, None)]
    places = [(math.nan, math.nan) if one is None else _within(axes, one) for one in points]
    step = max(1, -(-len(line.points) // _MOST_MARKS))
    begin = (line.look or 0) * step // 3 % step
    (made,) = axes.plot(
        [x for x, _ in places],
        [y for _, y in places],
        clip_on=False,
        markevery=(begin, step),
        gid="series" if places else None,  # one without a point has its entry in the legend alone
        **_style(line.look, faint=line.faint),
    )
    return made


def _within(axes: Axes, point: Point) -> tuple[float, float]:
    """Nothing lies beyond the axes: no zero on a logarithmic one."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    return min(max(point.x, left), right), min(max(point.y, low), high)


def _entries(plot: Plot) -> tuple[dict[tuple[str, int | None], list[Any]], int]:
    """Of the legend, each with room for its handle, and in how many rows they fit."""
    named = [line for line in plot.lines if not line.faint or line.look is None]
    found: dict[tuple[str, int | None], list[Any]] = {(one.name, one.look): [] for one in named}
    return found, math.ceil(len(found) / _columns(found)) if found else 0


def _columns(entries: Any) -> int:
    widest = max((_wide(shortened(name, _LONGEST_NAME)) for name, _ in entries), default=1)
    return max(1, int(_WIDTH / (48 + widest)))


def _wide(text: str) -> float:
    return sum(_LETTER * (1.8 if east_asian_width(one) in "WF" else 1) for one in text)


def _legend(figure: Figure, entries: dict[tuple[str, int | None], list[Any]]) -> None:
    if entries:
        across = _columns(entries)
        # matplotlib fills column after column; people read row after row.
        found = [one for first in range(across) for one in [*entries.items()][first::across]]
        figure.legend(
            [handles[0] for _, handles in found],
            [clean(shortened(name, _LONGEST_NAME)) for (name, _), _ in found],
            loc="upper left",
            ncols=across,
            columnspacing=0.6,
            handletextpad=0.5,
            frameon=False,
            borderpad=0.2,
            borderaxespad=0,
            labelspacing=0.45,
            handlelength=30 / 14,
            fontsize=14,  # the room that a narrow page needs
        )


def _frame(axes: Axes, plot: Plot) -> None:
    """Axes, their numbers and the grid."""
    axes.grid(color=_RULE, linewidth=1)
    axes.tick_params(length=0, pad=7)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set(edgecolor=_SOFT, linewidth=1)
    axes.set_xlabel(plot.x_title, loc="right", labelpad=8)
    axes.text(4 - _LEFT, _HEIGHT + 16, plot.y_title, transform=_pixels(axes), color=_SOFT)
    if not any(line.pieces for line in plot.lines if line.look is not None):
        nothing = axes.text(0.5, 0.5, "nothing was measured", ha="center", color=_SOFT)
        nothing.set_transform(axes.transAxes)
    _scale_up(axes, plot)
    if plot.kind is Kind.PERCENTILES:
        _scale_by_nines(axes, plot.end)
    else:
        _scale_by_time(axes, plot.end)
    labels = axes.get_xticklabels()
    # Where letters are large every other number leaves its room to its neighbours.
    if sum(_wide(one.get_text()) + _LETTER for one in labels) > _WIDTH - _LEFT - _RIGHT:
        for one in labels[1::2]:
            one.set_gid("spare")


def _pixels(axes: Axes) -> Any:
    """From the axes' lower left corner."""
    scaled = Affine2D().scale(1 / (_WIDTH - _LEFT - _RIGHT), 1 / _HEIGHT)
    return scaled + axes.transAxes


def _scale_up(axes: Axes, plot: Plot) -> None:
    values = [point.y for line in plot.lines for point in line.points]
    highest = max(values, default=0.0)
    lowest = min((value for value in values if value > 0), default=highest)
    if plot.kind in {Kind.PERCENTILES, Kind.LATENCY} and highest > _WIDE * lowest:
        axes.set_yscale("log")
        low, high = _round(lowest, up=False), _round(highest, up=True)
        steps = (1, 2, 5) if high < 300 * low else (1,)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=steps, numticks=20))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        axes.set_ylim(low, high)
    else:
        evenly = ticker.MaxNLocator(6, steps=_STEPS)
        ticks = evenly.tick_values(0, 1.02 * highest or plot.least)
        axes.set_yticks(ticks)
        axes.set_ylim(0, ticks[-1])
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: plot.shown(value)))


def _round(value: float, *, up: bool) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    near = [step * power for step in _STEPS]
    beyond = [one for one in near if (one >= value if up else one <= value)]
    return (beyond or near)[0 if up else -1]


def _scale_by_nines(axes: Axes, end: float) -> None:
    """As much room for each further nine."""

    def bend(percent: Any) -> Any:
        return -np.log10(1 - np.minimum(percent, end) / 100)

    axes.set_xscale(FuncScale(axes.xaxis, (bend, lambda bent: 100 - 100 * 10.0**-bent)))
    axes.set_xlim(0, end)
    nines = range(1, int(bend(end) + 1e-9) + 1)
    # Decimals are said, because 100 - 10**-3 in binary has a tail.
    told = [f"{100 - 10.0 ** (2 - n):.{max(0, n - 2)}f} %" for n in nines]
    axes.set_xticks([0, *(100 - 10.0 ** (2 - n) for n in nines)], ["0 %", *told])


def _scale_by_time(axes: Axes, seconds: float) -> None:
    length = max(seconds, 1e-3)
    unit, name = next((one for one in _UNITS if length >= 3 * one[0]), _UNITS[-1])
    ticks = ticker.MaxNLocator(6, steps=_STEPS).tick_values(0, length / unit)
    shown = [tick for tick in ticks if tick * unit <= length * (1 + 1e-9)]
    axes.set_xticks([tick * unit for tick in shown], [f"{tick:.4g} {name}" for tick in shown])
    axes.set_xlim(0, length)


def _tell(group: Element, line: Line, axes: Axes, height: float) -> None:
    """What the page's script shows of a series, and its name for who points at it."""
    group.insert(0, element("title", line.name))
    if line.look is None or line.faint:
        return
    places = axes.transData.transform([_within(axes, point) for point in line.points])
    told = [
        [_tenth(x), _tenth(height - y), plain(point.told)]
        for (x, y), point in zip(places, line.points, strict=True)
    ]
    group.set("data-name", plain(line.name))
    group.set("data-look", str(line.look % len(_SERIES)))
    group.set("data-points", json.dumps(told, ensure_ascii=False, separators=(",", ":")))


def _cleaned(parent: Element, shapes: dict[str, str] | None = None) -> Iterator[Element]:
    """What is to be seen of matplotlib's SVG, in few words. `shapes` are those of marks, by id."""
    shapes = {} if shapes is None else shapes
    marks, drawn = "", parent
    for one in parent:
        match one.tag.removeprefix(_SVG):
            case "g":
                inside = _cleaned(one, shapes)
                if one.get("id") in {"series", "spare"}:
                    yield element("g", *inside, class_=str(one.get("id")))
                else:
                    yield from inside
            case "defs":
                for each in one.iter(f"{_SVG}path"):
                    shapes[f"#{each.get('id')}"] = _relative(each.get("d", ""))
            case "use":
                place = _short(f"{one.get('x')} {one.get('y')}")
                marks, drawn = f"{marks}M{place}{shapes[one.get(_REFERENCE, '')]}", one
            case "text":
                yield element("text", one.text, **_attributes(one))
            case "path" if "stroke:" in one.get("style", ""):  # others are empty backgrounds
                yield element("path", **_attributes(one))
    if marks:
        yield element("path", d=marks, **_attributes(drawn))


def _relative(shape: str) -> str:
    """A closed polygon, as it is drawn from wherever one is."""
    points = [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", shape)]
    steps = zip([(0.0, 0.0), *points], points, strict=False)
    moves = [f"{_tenth(x1 - x0)} {_tenth(y1 - y0)}" for (x0, y0), (x1, y1) in steps]
    return f"m{moves[0]}l{' '.join(moves[1:])}z"


def _attributes(one: Element) -> dict[str, str]:
    told = {name: _short(one.get(name, "")) for name in _PLACES.get(one.tag, ()) if one.get(name)}
    for each in one.get("style", "").split(";"):
        name, _, value = (word.strip() for word in each.partition(":"))
        if name in _KEPT:
            told[name] = _COLOURS.get(value, value)
    return {name: value for name, value in told.items() if _USUAL.get(name) != value}


def _tenth(place: float) -> float:
    """Of a pixel, as few digits."""
    rounded = round(float(place), 1)
    return int(rounded) if rounded.is_integer() else rounded


def _short(numbers: str) -> str:
    """Coordinates to a tenth of a pixel, without blanks that mean nothing."""
    told = re.sub(r"-?\d+\.\d+", lambda one: f"{_tenth(float(one[0]))}", numbers)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", told).strip()
