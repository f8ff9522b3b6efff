"""Waiting for a condition: the one place of the tests where time passes by intent."""

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

PAUSE_S: Final = 0.02


def wait_until(condition: Callable[[], T | None], deadline_s: float, what: str) -> T:
    """Ask again and again until the answer is true, and return it.

    After the deadline TimeoutError says what was waited for. The condition is asked at least once.
    """
    end = time.monotonic() + deadline_s
    # Never set: a process that is not our child, or a file, offers nothing to block on.
    pause = threading.Event()
    while not (answer := condition()):
        if time.monotonic() >= end:
            raise TimeoutError(f"not within {deadline_s:g} s: {what}")
        pause.wait(PAUSE_S)
    return answer
