"""What one turn of a generator's work took, and what came of it."""

from array import array
from collections.abc import Callable
from time import perf_counter_ns, process_time_ns

from .connecting import reason_of
from .failures import TargetFailure
from .turns import Slice, Turn


def measured(
    drive: "Callable[[Turn, array[int]], None]", turn: Turn, *, target: str, wait_s: float
) -> Slice:
    """`drive` works and notes latencies in nanoseconds. Raises TargetFailure for its OSError."""
    latencies = array("q")
    cpu_before, began = process_time_ns(), perf_counter_ns()
    try:
        drive(turn, latencies)
    except OSError as error:
        raise TargetFailure(target, reason_of(error, wait_s)) from error
    elapsed = perf_counter_ns() - began
    return Slice(elapsed, process_time_ns() - cpu_before, latencies.tobytes())
