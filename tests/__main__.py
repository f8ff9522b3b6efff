"""`python -m tests …`: pytest with these arguments, side by side where that is possible.

What measures, or loads the machine, comes behind that, alone. -n 0 takes everything one after the
other. Where a few tests that measure, that look at the whole machine, or that have other people's
daemons, are all that failed, they are tried once more, and the output says so.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

PYTEST = (sys.executable, "-m", "pytest")
FAILED, NOTHING_THERE = 1, 5  # of pytest's exit statuses
MOST_AGAIN = 8  # of thousands; where more have failed it is not the machine


def main(arguments: Sequence[str]) -> int:
    """The exit status, pytest's own; that of the first part that ended badly."""
    cores = len(os.sched_getaffinity(0))
    # More than there are cores: most tests wait. loadfile: what a file sets up is set up once, and
    # files are begun in the order of tests/conftest.py, not those with the most tests first.
    files = ("--dist", "loadfile", "--no-loadscope-reorder")
    beside = ("-n", str(cores + 2), *files, "--part", "beside")
    first = looked_at_twice(*beside, *arguments)
    if first not in {0, FAILED, NOTHING_THERE}:
        return first
    second = looked_at_twice("--part", "alone", *arguments)
    if NOTHING_THERE in {first, second}:  # none of the tests that were asked for is in that part
        return second if first == NOTHING_THERE else first
    return first or second


def looked_at_twice(*arguments: str) -> int:
    """Runs a part, and what has failed again, if it is little and none of it is ours alone."""
    with tempfile.TemporaryFile("r+") as told:  # /tmp is another one there
        status = pytest("--tell-failed", str(told.fileno()), *arguments, tells=told.fileno())
        told.seek(0)
        failed = told.read().splitlines()
    if status != FAILED or not 0 < len(failed) <= MOST_AGAIN:
        return status
    print("\nFailed, and once more, by themselves:", *failed, sep="\n    ", flush=True)
    status = pytest(*(each for each in arguments if each == "--run-long"), *failed)
    if not status:
        print("\nFailed once and passed then (UNSTEADY):", *failed, sep="\n    ", flush=True)
    return status


def pytest(*arguments: str, tells: int | None = None) -> int:
    """Runs it to its end; Ctrl-C is for it to deal with. It may write to the descriptor `tells`."""
    passed_on = () if tells is None else (tells,)
    with subprocess.Popen([*PYTEST, *arguments], pass_fds=passed_on) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))  # noqa: TID251 (the one place that ends the process)
