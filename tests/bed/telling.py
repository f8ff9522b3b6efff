"""What a failed test prints: what is needed to understand it, and that once.

A plugin of pytest's. An assertion about a volume or a log can be of any length, and where CI is set
pytest cuts nothing and says it twice; a fixture that fails does so for every test that wants it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bed.daemon import STARTED, Daemon

FIRST_LINES: Final = 30  # of a part that is longer than these
LAST_LINES: Final = 40
WIDTH: Final = 400
SUMMARY: Final = 200  # characters of a test's line at the end
_ADDRESS: Final = re.compile(r"0x[0-9a-f]+|/tmp/[^\s'\"]+")

# Up to which byte each log has been shown, or was there before the test began.
_seen: dict[Path, int] = {}
# The first test that ended with this.
_told: dict[str, str] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    for daemon in STARTED:
        if isinstance(daemon, Daemon) and daemon.log.exists():
            _seen[daemon.log] = daemon.log.stat().st_size


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    report = yield
    if report.failed:
        report.sections = [(title, cut(text)) for title, text in report.sections]
        if item.get_closest_marker("system"):
            report.sections += list(_logs())
        _shorten(report.longrepr)
        known = _told.setdefault(_ADDRESS.sub("", report.longreprtext), report.nodeid)
        if known != report.nodeid:
            report.longrepr = f"as {known}"
            report.sections = []
    return report


def cut(text: str) -> str:
    """A text of which the middle is left out where it is long."""
    return "\n".join(_cut(text.splitlines()))


def _logs() -> Iterator[tuple[str, str]]:
    """What daemons that are still there have said since the test began and nobody has shown."""
    for daemon in STARTED:
        if not daemon.directory.exists():
            continue
        new = _new_in(daemon.log) if isinstance(daemon, Daemon) else daemon.story()
        if new:
            yield f"{daemon.name} in {daemon.directory}, log of this test", cut(new)


def _new_in(log: Path) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(_seen.get(log, 0))
        new = file.read()
        _seen[log] = file.tell()
    return new.decode(errors="replace")


def _shorten(shown: Any) -> None:
    """What pytest shows of an exception, and of those that led to it."""
    for traceback, crash, _ in getattr(shown, "chain", ()):
        for entry in traceback.reprentries:
            entry.lines = _cut(getattr(entry, "lines", []))
        _shorten_crash(crash)
    _shorten_crash(getattr(shown, "reprcrash", None))


def _shorten_crash(crash: Any) -> None:
    if crash is not None and len(crash.message) > SUMMARY:
        crash.message = f"{crash.message[:SUMMARY]}…"


def _cut(lines: Sequence[str]) -> list[str]:
    whole = [line if len(line) <= WIDTH else f"{line[:WIDTH]}…" for line in lines]
    left_out = len(whole) - FIRST_LINES - LAST_LINES
    if left_out <= 1:
        return whole
    return [*whole[:FIRST_LINES], f"… {left_out} lines …", *whole[-LAST_LINES:]]
