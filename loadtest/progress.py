"""Progress on stderr, for a person who waits; silent where nobody looks."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from .results import Interval
from .tables import NOTHING, us


@contextmanager
def progress(title: str, steps: int) -> Iterator[Callable[[], None]]:
    """Gives what is to be called after each step."""
    with _bar(TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=steps)

        def step() -> None:
            bar.advance(task)
            bar.refresh()

        yield step


@contextmanager
def countdown(title: str, duration_s: float) -> Iterator[Callable[[float, str], None]]:
    """Gives what is to be called with the seconds so far, and what there is to tell."""
    with _bar(TextColumn(title), BarColumn(), TextColumn("{task.fields[told]}")) as bar:
        task = bar.add_task("", total=duration_s, told="warm-up")
        bar.refresh()

        def show(elapsed_s: float, told: str) -> None:
            left = max(0, round(duration_s - elapsed_s))
            to_go = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} to go"
            bar.update(task, completed=elapsed_s, told=f"{to_go}, {told}")
            bar.refresh()

        yield show


def _bar(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    # Drawn between measurements only: the refreshing thread that rich offers would be measured.
    return Progress(
        *columns,
        console=console,
        auto_refresh=False,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def live(names: Sequence[str]) -> Iterator[Callable[[str, Interval], None]]:
    """Gives what is to be called with each interval of each target; the last one is shown."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda name, interval: None
        return
    latest: dict[str, Interval | None] = dict.fromkeys(names)
    errors = Counter[str]()
    # Drawn when an interval is over: the refreshing thread that rich offers would be measured.
    with Live(_table(latest, errors), console=console, auto_refresh=False, transient=True) as shown:

        def watch(name: str, interval: Interval) -> None:
            latest[name] = interval
            errors[name] += sum(interval.errors.values())
            shown.update(_table(latest, errors), refresh=True)

        yield watch


def _table(latest: Mapping[str, Interval | None], errors: Mapping[str, int]) -> Table:
    table = Table("target", box=None, pad_edge=False)
    for title in ("s", "asked/s", "got/s", "p50, µs", "p99, µs", "connects", "errors"):
        table.add_column(title, justify="right")
    for name, interval in latest.items():
        table.add_row(name, *_cells(interval, errors[name]))
    return table


def _cells(interval: Interval | None, errors: int) -> list[str]:
    if interval is None:
        return [NOTHING] * 7
    return [
        f"{interval.begins_s + interval.length_s:.0f}",
        NOTHING if interval.rate is None else f"{interval.rate:.0f}",
        f"{interval.calls / interval.length_s:.0f}",
        NOTHING if interval.p50_ns is None else us(interval.p50_ns),
        NOTHING if interval.p99_ns is None else us(interval.p99_ns),
        str(interval.connects),
        str(errors),
    ]
