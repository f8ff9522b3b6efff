"""`report` and `plot`: saved results are shown again. UsageError goes to the caller."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from .. import extras, results
from ..failures import UsageError
from ..results import BadResult, comparison_in
from ..statuses import FAILED, OK, TOLD
from . import sheets
from .hgrm import as_hgrm
from .html import page
from .plots import Kind, plot_of
from .runs import Run, load_runs, series_of
from .text import runs_as_text

_STDOUT: Final = Path("-")
_NOT_IN_NAMES: Final = str.maketrans({"/": "-", "\0": "-"})


def add_parsers(subparsers: Any) -> None:
    """Adds both words to what argparse's add_subparsers returned."""
    report = subparsers.add_parser(
        "report",
        help="saved results again: text, an HTML page with plots, CSV, .hgrm",
        description="Shows saved results again, several beside each other: as text, as one HTML"
        " page with plots that needs no network, as CSV, as HdrHistogram's .hgrm, or as JSON.",
        epilog=TOLD,
    )
    _add_files(report)
    report.add_argument(
        "-o",
        "--output",
        type=Path,
        default=_STDOUT,
        metavar="FILE",
        help="what to write (default -, stdout); for .hgrm of several targets a directory",
    )
    report.add_argument(
        "--format",
        choices=[*_FORMATS, "hgrm"],
        help="default: what FILE ends in (.html, .csv, .hgrm, .json), else text; csv has a row for"
        " each target and procedure, intervals is CSV with a row for each second",
    )
    report.set_defaults(act=_report)
    plot = subparsers.add_parser(
        "plot",
        help="one picture of saved results, as SVG",
        description="Draws one picture of saved results, several in one, as SVG.",
        epilog=TOLD,
    )
    _add_files(plot)
    plot.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="say p99.svg, or - for stdout",
    )
    plot.add_argument(
        "--kind",
        type=Kind,
        choices=list(Kind),
        default=Kind.PERCENTILES,
        metavar="{" + ",".join(Kind) + "}",
        help="latency by percentile, or one of three over time (default percentiles)",
    )
    plot.set_defaults(act=_plot)


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="what --out of run, soak, compare or limit has written (of the last two one)",
    )


def _as_json(runs: Sequence[Run]) -> str:
    if len(runs) > 1:
        raise UsageError("--format json shows one result at a time; give one file")
    return results.as_text(runs[0].result)


_FORMATS: Final[dict[str, Callable[[Sequence[Run]], str]]] = {
    "text": lambda runs: runs_as_text(runs) + "\n",
    "html": page,
    "csv": sheets.summary,
    "intervals": sheets.intervals,
    "json": _as_json,
}
_ENDINGS: Final = {".html": "html", ".htm": "html", ".csv": "csv", ".hgrm": "hgrm", ".json": "json"}


def _report(options: argparse.Namespace) -> int:
    if len(options.files) == 1 and (compared := comparison_in(options.files[0])):
        return _shown_comparison(options, compared)
    shape = options.format or _ENDINGS.get(options.output.suffix.lower(), "text")
    return _shown(options, lambda runs: _write_report(runs, shape, options.output))


def _shown_comparison(options: argparse.Namespace, document: dict[str, Any]) -> int:
    shape = options.format or _ENDINGS.get(options.output.suffix.lower(), "text")
    shapes = {"text": f"{document['text']}\n", "json": f"{json.dumps(document, indent=2)}\n"}
    if shape not in shapes:
        raise UsageError(f"what {document['scenario']} has written is shown as text or as json")
    try:
        _write(options.output, shapes[shape])
    except BrokenPipeError:
        raise  # as in _shown
    except OSError as error:
        return _complain(f"{error.filename or options.output}: {error.strerror}")
    return OK


def _plot(options: argparse.Namespace) -> int:
    picture = extras.drawing().picture
    return _shown(
        options,
        lambda runs: _write(options.output, picture(plot_of(options.kind, series_of(runs)))),
    )


def _shown(options: argparse.Namespace, show: Callable[[Sequence[Run]], None]) -> int:
    try:
        show(load_runs(options.files))
    except BadResult as error:
        return _complain(f"{error}; give a file that --out has written")
    except BrokenPipeError:
        raise  # the reader has seen enough, which the caller knows how to end
    except OSError as error:
        return _complain(f"{error.filename or options.output}: {error.strerror}")
    return OK


def _complain(line: str) -> int:
    print(f"proxyd-loadtest: {line}", file=sys.stderr)
    return FAILED


def _write_report(runs: Sequence[Run], shape: str, output: Path) -> None:
    if shape == "hgrm":
        _write_hgrm(runs, output)
    else:
        _write(output, _FORMATS[shape](runs))


def _write_hgrm(runs: Sequence[Run], output: Path) -> None:
    """A file holds one histogram."""
    series = series_of(runs)
    if output.is_dir():
        for one in series:
            name = one.name.translate(_NOT_IN_NAMES)
            _write(output / f"{name}.hgrm", as_hgrm(one.target.calls))
    elif len(series) == 1:
        _write(output, as_hgrm(series[0].target.calls))
    else:
        raise UsageError(
            f"--format hgrm has one file for each of {len(series)} targets;"
            " name a directory that exists with -o"
        )


def _write(output: Path, text: str) -> None:
    if output == _STDOUT:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
