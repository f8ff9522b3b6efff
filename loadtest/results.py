"""What a run leaves behind: one JSON document, from which every report can be made again.

Histograms are stored whole, as HdrHistogram's own compressed text, so that several runs can be put
into one picture, or one histogram, later. Times are nanoseconds where a name ends in `_ns`.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from .failures import NotKept, UsageError
from .figures import Latencies
from .machine import Machine
from .reading import NotAsDescribed, read

SCHEMA: Final = "proxyd-loadtest/1"
LARGEST_FILE: Final = 256 << 20  # a day of seconds for a hundred targets is a tenth of that


class BadResult(Exception):
    """A file that no run has written; one line that says what is wrong with it."""


@dataclass(slots=True, kw_only=True)
class Interval:
    """What one target did in a part of the run, a second as a rule."""

    begins_s: float  # since the measured part began
    length_s: float
    rate: float | None = None  # calls per second that were asked for; None: closed model
    calls: int = 0  # that were answered, with a reply or an error reply
    connects: int = 0  # new sessions that came about
    bytes_up: int = 0
    bytes_down: int = 0
    events: int = 0  # that registered connections were sent
    p50_ns: int | None = None  # of the calls answered in it; None if there were none
    p99_ns: int | None = None
    max_ns: int | None = None
    errors: dict[str, int] = field(default_factory=dict)  # class of error → how many


@dataclass(slots=True, kw_only=True)
class ProcessUse:
    """What a group of measured processes used."""

    label: str
    pids: tuple[int, ...]
    cpu_s: float
    rss_kib: int  # at the end
    rss_kib_before: int
    descriptors: int | None
    descriptors_before: int | None


@dataclass(slots=True, kw_only=True)
class TargetResult:
    """All that is known of one target at the end."""

    name: str
    address: str  # with its kind: tls:host:16514
    uri: str
    cipher: str | None = None
    elapsed_s: float = 0.0  # of the measured part
    connects: Latencies = field(default_factory=Latencies)  # from connect to the reply to OPEN
    calls: Latencies = field(default_factory=Latencies)
    procedures: dict[str, Latencies] = field(default_factory=dict)
    intervals: list[Interval] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    events: int = 0
    processes: list[ProcessUse] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class ToolUse:
    """What the load tool itself used, and whether it was what ended the rise."""

    workers: int
    cpu_s: float
    busiest_share: float  # of a core's time, by the busiest worker
    late_p99_ns: int | None = None  # how late calls were sent; None: closed model
    bottleneck: str | None = None  # why the figures are those of the tool and not of the target


@dataclass(slots=True, kw_only=True)
class Verdict:
    """One threshold, beside one target."""

    text: str  # as it was given
    target: str
    value: float | None
    met: bool


@dataclass(slots=True, kw_only=True)
class Result:
    """A whole run."""

    scenario: str  # run, soak
    machine: Machine
    started: str  # ISO 8601, UTC
    plan: dict[str, Any]  # what was asked for, by the names of its options
    targets: list[TargetResult]
    tool: ToolUse
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def as_text(result: Result) -> str:
    """The document."""
    document = {"schema": SCHEMA, **_plain(result)}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def check_writable(path: Path | None) -> None:
    """Before hours have passed; what is there is left alone. Raises UsageError."""
    if path is None:
        return
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise UsageError(f"--out {path}: {error.strerror}") from error


def save(result: Result, path: Path | None) -> None:
    """Writes the file anew, if there is to be one. Raises NotKept."""
    keep(as_text(result), path)


def keep(text: str, path: Path | None) -> None:
    """A document of any scenario's. Raises NotKept."""
    if path is None:
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise NotKept(f"cannot write {path}: {error.strerror}") from error


def comparison_in(path: Path) -> dict[str, Any] | None:
    """What `compare` or `limit` has written; None for all else, of which `load` says what it is."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            return None
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    match found:
        case {"scenario": "compare" | "limit", "text": str(), "targets": list()}:
            return dict(found)
        case _:
            return None


def load(path: Path) -> Result:
    """Reads what `save` wrote. Raises BadResult, or OSError."""
    if path.stat().st_size > LARGEST_FILE:
        raise BadResult(f"{path} is larger than {LARGEST_FILE >> 20} MiB: no result of a run")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadResult(f"{path} is no JSON: {error}") from None
    if not isinstance(document, dict) or document.pop("schema", None) != SCHEMA:
        raise BadResult(f"{path} is no result of proxyd-loadtest (its schema is not {SCHEMA})")
    try:
        return read(Result, document, {Latencies: _latencies})
    except NotAsDescribed as error:
        raise BadResult(f"{path} is damaged: {error}") from None


def _plain(value: Any) -> Any:
    """A value of this module as JSON knows it. asdict would copy the histograms' insides."""
    if isinstance(value, Latencies):
        return _series(value)
    if isinstance(value, Machine):
        return asdict(value)
    if hasattr(value, "__dataclass_fields__"):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def _series(latencies: Latencies) -> dict[str, Any]:
    """The figures are for people and other tools; only the histogram is read back."""
    if not latencies.count:
        return {"count": 0, "histogram": None}
    return {
        "count": latencies.count,
        "mean_ns": latencies.mean,
        **{f"p{percent:g}_ns": latencies.percentile(percent) for percent in (50, 90, 99, 99.9)},
        "max_ns": latencies.highest,
        "histogram": latencies.encoded(),
    }


def _latencies(series: object) -> Latencies:
    if not isinstance(series, dict) or "histogram" not in series:
        raise ValueError("expected a histogram with its figures")
    text = series["histogram"]
    return Latencies() if text is None else Latencies.decoded(text)
