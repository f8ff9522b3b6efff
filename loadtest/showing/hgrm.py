"""HdrHistogram's percentile distribution as text (`.hgrm`), which its plotter and others read."""

from typing import Final

from ..figures import Latencies, Level

_MS: Final = 1e6


def as_hgrm(latencies: Latencies) -> str:
    """In milliseconds, as wrk2 gives it.

    Written here, because the library's own leaves the standard deviation in nanoseconds.
    """
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    lines += [_line(level) for level in latencies.spectrum()]
    mean, deviation = latencies.mean / _MS, latencies.deviation / _MS
    lines += [
        f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]",
        f"#[Max     = {latencies.highest / _MS:12.3f}, Total count    = {latencies.count:12d}]",
    ]
    return "\n".join(lines) + "\n"


def _line(level: Level) -> str:
    line = f"{level.value / _MS:12.3f} {level.percent / 100:14.12f} {level.count:10d}"
    # The last one is infinitely far, and has no fourth column.
    return line if level.percent == 100 else f"{line} {100 / (100 - level.percent):14.2f}"
