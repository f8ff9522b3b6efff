"""The page and the pictures as a real browser has them."""

import re

import pytest

from loadtest.showing.drawing import picture
from loadtest.showing.html import page
from loadtest.showing.plots import Kind, plot_of
from loadtest.showing.runs import Run, series_of
from tests.bed.browser import screenshot, visit
from tests.loadtest.showing.made import a_busy_result, a_result, a_target

pytestmark = pytest.mark.system

# Of the first three series, as plot.css has them.
LIGHT = ("#0072b2", "#d55e00", "#00805c")
DARK = ("#56b4e9", "#ff8a3d", "#2fc79a")


def test_the_page_stands_alone_and_its_script_runs(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page([Run("a", a_busy_result())]))
    seen = visit(path, tmp_path)
    assert (seen.console, seen.requests) == ([], [])
    assert '<html lang="en" class="live">' in seen.dom
    assert seen.dom.count('class="series"') == 3 + 6 + 4 + 3
    assert seen.dom.count('role="img"') == len(Kind)


def test_what_a_page_fetches_and_gets_wrong_would_be_seen(tmp_path):
    path = tmp_path / "bad.html"
    path.write_text('<img src="http://192.0.2.1/a.png"><script>nothing.there()</script>')
    seen = visit(path, tmp_path)
    assert seen.requests == ["http://192.0.2.1/a.png"]
    assert "nothing is not defined" in seen.console[0]


def test_pointing_at_a_plot_tells_the_figures_of_each_series(tmp_path):
    moved = (
        "<script>for (const plot of document.querySelectorAll('figure > .plot'))"
        " plot.dispatchEvent(new PointerEvent('pointermove', {clientX: 300}))</script></body>"
    )
    text = page([Run("a", a_busy_result())])
    # The page would not let a script in that is not its own.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    path = tmp_path / "report.html"
    path.write_text(text.replace("</body>", moved))
    seen = visit(path, tmp_path)
    assert seen.console == []
    told = re.findall(r'class="told" role="status"[^>]*>(.*?)</div></div>', seen.dom)
    assert len(told) == len(Kind)
    assert re.search(r"direct: [0-9.]+ %: [0-9.]+µs", told[0])
    assert re.search(r"proxyd: p50 [0-9]+µs, p99 [0-9.]+[µm]s, max", told[1])
    assert re.search(r"libvirtd: [0-9]+/s of 1,000 asked", told[2])


def test_a_foreign_script_is_not_run(tmp_path):
    text = page([Run("a", a_result(a_target(seconds=1)))])
    path = tmp_path / "report.html"
    path.write_text(text.replace("</body>", "<script>document.title = 'taken'</script></body>"))
    seen = visit(path, tmp_path)
    assert "taken</title>" not in seen.dom
    assert "Content Security Policy" in seen.console[0]


@pytest.mark.parametrize(
    ("dark", "colours", "paper"), [(False, LIGHT, "#ffffff"), (True, DARK, "#14171a")]
)
def test_a_picture_shows_each_series_by_day_and_by_night(tmp_path, dark, colours, paper):
    path = tmp_path / "plot.svg"
    path.write_text(picture(plot_of(Kind.PERCENTILES, series_of([Run("a", a_busy_result())]))))
    seen = screenshot(path, tmp_path, width=400, height=280, dark=dark)
    assert seen.count(paper) > 50_000
    assert all(seen.count(colour) > 50 for colour in colours)
