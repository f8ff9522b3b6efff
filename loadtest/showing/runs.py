"""Saved runs, and the names under which their targets stand beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import results
from ..results import Interval, Result, TargetResult
from ..running.errors import is_answer


@dataclass(frozen=True, slots=True)
class Run:
    name: str
    result: Result


@dataclass(frozen=True, slots=True)
class Series:
    """One target of one run, by a name that no other series has."""

    name: str
    run: Run
    target: TargetResult


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Raises BadResult, or OSError."""
    loaded = [results.load(path) for path in paths]
    return [Run(name, result) for name, result in zip(names_of(paths), loaded, strict=True)]


def names_of(paths: Sequence[Path]) -> list[str]:
    """The files' names without ending; as they were given where that is not enough."""
    stems = [path.stem for path in paths]
    names = stems if len(set(stems)) == len(stems) else [str(path) for path in paths]
    return _apart(names)


def series_of(runs: Sequence[Run]) -> list[Series]:
    """Targets of a single run go by their own names, those of several by run/target."""
    found = [(run, target) for run in runs for target in run.result.targets]
    if len(runs) == 1:
        names = [target.name for _, target in found]
    else:
        names = [f"{run.name}/{target.name}" for run, target in found]
    return [Series(name, *one) for name, one in zip(_apart(names), found, strict=True)]


def _apart(names: list[str]) -> list[str]:
    """The same file may have been given twice."""
    made: list[str] = []
    for name in names:
        again, apart = 1, name
        while apart in made:
            again += 1
            apart = f"{name} ({again})"
        made.append(apart)
    return made


def asked_rate(intervals: Sequence[Interval]) -> float | None:
    """Calls per second that were asked for on the whole; None: the closed model."""
    timed = [(one.rate, one.length_s) for one in intervals if one.rate is not None]
    length_s = sum(length for _, length in timed)
    return sum(rate * length for rate, length in timed) / length_s if length_s > 0 else None


def reached_rate(target: TargetResult) -> float | None:
    """Calls per second that were answered."""
    return target.calls.count / target.elapsed_s if target.elapsed_s > 0 else None


def tried(target: TargetResult) -> int:
    """All calls; an error reply stands among the calls and among the errors, and is one."""
    unanswered = sum(count for name, count in target.errors.items() if not is_answer(name))
    return target.calls.count + unanswered


def succeeded(target: TargetResult) -> int:
    return max(0, tried(target) - sum(target.errors.values()))
