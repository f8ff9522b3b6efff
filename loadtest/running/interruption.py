"""Ctrl-C as a question that is asked where there is an answer to it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ctrl_c_asked_for() -> Iterator[Callable[[], bool]]:
    """Gives the question whether somebody pressed it. A second Ctrl-C is what it always is."""
    before = signal.getsignal(signal.SIGINT)
    # Python gives signals to the main thread alone; a shell's background job ignores this one.
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: False
        return
    pressed = False

    def remember(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
