"""Plots as SVG, for a page of any width, light or dark, on paper, and without seeing colours.

Colours are classes, which `plot.css` gives their meaning. A series is known by its dashes and its
mark as well. Sizes are in pixels of a picture WIDTH wide; with letters that a narrow page makes
larger, all of it still has its place.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from unicodedata import east_asian_width
from xml.etree.ElementTree import Element

from loadtest.showing.markup import as_svg, element, plain
from loadtest.showing.plots import Line, Plot, Point
from loadtest.showing.words import shortened

WIDTH: Final = 480.0
HEIGHT: Final = 240.0  # of what lies between the axes
LEFT: Final = 62.0
RIGHT: Final = 20.0
ACROSS: Final = WIDTH - LEFT - RIGHT
ABOVE: Final = 32.0  # the name of the axis of what is shown
BELOW: Final = 44.0
STYLE: Final = Path(__file__).with_name("plot.css")

LOOKS: Final = 8  # colours in plot.css
_DASHES: Final = ("", "7 3", "2 3", "9 3 2 3", "14 4", "5 2 5 6")
_MARKS: Final = 4
_MOST_MARKS: Final = 8  # on a line
_LETTER: Final = 7.8  # as wide as the larger letters of a narrow page
_SAMPLE: Final = 30.0  # of a line, in the legend
_ROW: Final = 19.0
_LONGEST_NAME: Final = 40


def picture(plot: Plot) -> str:
    """A file of its own, with its style in it."""
    root = drawn(plot, "plot")
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.insert(0, element("style", STYLE.read_text(encoding="utf-8")))
    return as_svg(root)


def drawn(plot: Plot, name: str) -> Element:
    """An `svg` element; `name` is the only one of its kind on its page."""
    legend, legend_height = _legend(plot)
    top = legend_height + ABOVE
    root = element(
        "svg",
        element("title", plot.title, id=f"{name}-title"),
        element("desc", _description(plot), id=f"{name}-desc"),
        legend,
        element("g", *_axes(plot), class_="axes", transform=f"translate({LEFT:g} {top:g})"),
        element(
            "g",
            *(_line(plot, line) for line in plot.lines if line.pieces),
            class_="lines",
            transform=f"translate({LEFT:g} {top:g})",
        ),
        class_=f"plot {plot.kind}",
        viewBox=f"0 0 {WIDTH:g} {top + HEIGHT + BELOW:g}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )
    root.set("data-top", f"{top:g}")
    return root


def sample(look: int | None, faint: bool = False) -> Element:
    """What a series looks like, for a table."""
    return element(
        "svg",
        *_sample(look, faint),
        class_="plot sample",
        viewBox="0 -8 30 16",
        aria_hidden="true",
    )


def _description(plot: Plot) -> str:
    return f"{plot.y_title} against {plot.x_title}. {plot.summary}"


def _legend(plot: Plot) -> tuple[Element, float]:
    """Entries in as many rows as it takes, and their height."""
    entries: list[Element] = []
    across, row = 0.0, 0
    seen: set[tuple[str, int | None]] = set()
    for line in plot.lines:
        if (line.faint and line.look is not None) or (line.name, line.look) in seen:
            continue  # the other line of a series has the entry
        seen.add((line.name, line.look))
        name = shortened(line.name, _LONGEST_NAME)
        wide = _SAMPLE + 6 + _wide(name) + 14
        if across and across + wide > WIDTH - 4:
            across, row = 0.0, row + 1
        entries.append(
            element(
                "g",
                *_sample(line.look, line.faint),
                element("text", name, element("title", line.name), x=_SAMPLE + 6, y=4),
                transform=f"translate({across + 4:.1f} {row * _ROW + 12:g})",
            )
        )
        across += wide
    return element("g", *entries, class_="legend"), (row + 1) * _ROW if entries else 0.0


def _wide(text: str) -> float:
    return sum(_LETTER * (1.8 if east_asian_width(one) in "WF" else 1) for one in text)


def _sample(look: int | None, faint: bool) -> Iterator[Element]:
    yield element("path", d=f"M0 0H{_SAMPLE:g}", **_looks(look, faint))
    if look is not None:
        yield _mark(look, _SAMPLE / 2, 0)


def _looks(look: int | None, faint: bool) -> dict[str, str]:
    names = ["line", "asked" if look is None else f"c{look % LOOKS}", *(["faint"] if faint else [])]
    dashes = "2 4" if look is None else _DASHES[look % len(_DASHES)]
    return {"class_": " ".join(names), **({"stroke_dasharray": dashes} if dashes else {})}


def _axes(plot: Plot) -> Iterator[Element]:
    for value, text in plot.y.ticks:
        y = HEIGHT * (1 - plot.y.place(value))
        yield element("path", d=f"M0 {y:.1f}H{ACROSS:g}", class_="grid")
        yield element("text", text, x=-7, y=y + 4, class_="y")
    # Where letters are large every other number leaves its room to its neighbours.
    crowded = sum(_wide(text) + _LETTER for _, text in plot.x.ticks) > ACROSS
    for index, (value, text) in enumerate(plot.x.ticks):
        x = ACROSS * plot.x.place(value)
        yield element("path", d=f"M{x:.1f} 0V{HEIGHT:g}", class_="grid")
        name = "x spare" if crowded and index % 2 else "x"
        yield element("text", text, x=x, y=HEIGHT + 17, class_=name)
    yield element("path", d=f"M0 {HEIGHT:g}H{ACROSS:g}", class_="axis")
    yield element("text", plot.x_title, x=ACROSS, y=HEIGHT + 36, class_="x-title")
    yield element("text", plot.y_title, x=-LEFT + 4, y=-16, class_="y-title")
    if not any(line.pieces for line in plot.lines if line.look is not None):
        yield element("text", "nothing was measured", x=ACROSS / 2, y=HEIGHT / 2, class_="nothing")


def _line(plot: Plot, line: Line) -> Element:
    placed = [[_placed(plot, point) for point in piece] for piece in line.pieces]
    path = " ".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in piece) for piece in placed)
    made = element(
        "g",
        element("title", line.name),
        element("path", d=path, **_looks(line.look, line.faint)),
        class_="series",
    )
    if line.look is None or line.faint:
        return made
    every = [place for piece in placed for place in piece]
    # For the page's script, which shows what lies under the pointer.
    told = [
        [round(x, 1), round(y, 1), plain(point.told)]
        for (x, y), point in zip(every, line.points, strict=True)
    ]
    made.set("data-name", plain(line.name))
    made.set("data-look", str(line.look % LOOKS))
    made.set("data-points", json.dumps(told, ensure_ascii=False, separators=(",", ":")))
    made.extend(_mark(line.look, x, y) for x, y in _marked(every, line.look))
    return made


def _marked(places: list[tuple[float, float]], look: int) -> list[tuple[float, float]]:
    """Some of them; every series begins elsewhere, lest marks of equal lines hide each other."""
    step = -(-len(places) // _MOST_MARKS)
    return places[look * step // 3 % step :: step]


def _placed(plot: Plot, point: Point) -> tuple[float, float]:
    return plot.x.place(point.x) * ACROSS, HEIGHT * (1 - plot.y.place(point.y))


def _mark(look: int, x: float, y: float) -> Element:
    """A circle, a square, a triangle or a diamond."""
    shape = (
        "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        "m-3.5 -3.5h7v7h-7z",
        "m0 -4.5l4.5 8h-9z",
        "m0 -5l5 5l-5 5l-5 -5z",
    )[look % _MARKS]
    return element("path", d=f"M{x:.1f} {y:.1f}{shape}", class_=f"mark c{look % LOOKS}")
