"""proxyd top: the sessions that do most right now, again and again."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from proxyd.admin import document
from proxyd.cli.admin_client import Connection
from proxyd.cli.commands import Command
from proxyd.cli.status import EVERY_S, pause, told, watch
from proxyd.cli.whereabouts import add_where, whereabouts
from proxyd.daemon.places import Places
from proxyd.process.exit_status import Exit

if TYPE_CHECKING:
    from rich.console import RenderableType

_ROWS: Final = 20
_MOST_ROWS: Final = 1000
_EPILOG: Final = """\
examples:
  proxyd top                         by calls, every 2 seconds, until Ctrl-C
  proxyd top --sort=latency -n 5     those that wait longest for their daemons

Rates are those between two screens; of a session that is new on it, since it was opened.
"""


@dataclass(frozen=True, slots=True)
class Rates:
    """What one session does: per second, and how long its calls took; None if none was timed."""

    client: document.Client
    calls: float
    bytes_up: float
    bytes_down: float
    latency_s: float | None


def rates(
    now: Sequence[document.Client], before: Mapping[int, document.Client], passed_s: float
) -> list[Rates]:
    """Of each open session. `before` is by their numbers, so many seconds ago."""
    found = []
    for client in now:
        if client.state != "open":
            continue
        known = before.get(client.id)
        seconds = max(passed_s if known else client.age_s, 1e-3)
        timed = client.timed_calls - (known.timed_calls if known else 0)
        took_s = client.timed_s - (known.timed_s if known else 0)
        found.append(
            Rates(
                client,
                calls=(client.calls - (known.calls if known else 0)) / seconds,
                bytes_up=(client.bytes_up - (known.bytes_up if known else 0)) / seconds,
                bytes_down=(client.bytes_down - (known.bytes_down if known else 0)) / seconds,
                latency_s=took_s / timed if timed > 0 else None,
            )
        )
    return found


SORTS: Final[Mapping[str, Callable[[Rates], float]]] = {
    "calls": lambda each: each.calls,
    "bytes": lambda each: each.bytes_up + each.bytes_down,
    "latency": lambda each: each.latency_s or 0.0,
    "age": lambda each: each.client.age_s,
}


class _Screen:
    """Keeps what the screen before was made of."""

    def __init__(self, sort: str, rows: int) -> None:
        self._sort = sort
        self._rows = rows
        self._before: dict[int, document.Client] = {}
        self._shown: list[Rates] = []
        self._found: list[dict[str, Any]] | None = None
        self._at = time.monotonic()

    def view(self, found: list[dict[str, Any]]) -> "RenderableType":
        from proxyd.cli.screens import top_view  # noqa: PLC0415 (slow to load)

        if found is not self._found:  # or it is an old answer, shown once more
            now, clients = (
                time.monotonic(),
                [document.read(document.Client, each) for each in found],
            )
            self._shown = rates(clients, self._before, now - self._at)
            self._before = {each.id: each for each in clients}
            self._found, self._at = found, now
        ordered = sorted(self._shown, key=SORTS[self._sort], reverse=True)
        return top_view(ordered[: self._rows], self._shown)


def _add_arguments(parser: argparse.ArgumentParser, places: Places) -> None:
    add_where(parser, places)
    parser.add_argument(
        "--sort", choices=sorted(SORTS), default="calls", help="what comes first (default calls)"
    )
    parser.add_argument(
        "-n",
        "--rows",
        metavar="N",
        type=_rows,
        default=_ROWS,
        help=f"how many sessions (default {_ROWS})",
    )
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        type=pause,
        default=EVERY_S,
        help=f"between two screens (default {EVERY_S:g})",
    )


def _rows(text: str) -> int:
    if text.isascii() and text.isdecimal() and 0 < int(text[:6]) <= _MOST_ROWS:
        return int(text[:6])
    raise argparse.ArgumentTypeError(f"a number from 1 to {_MOST_ROWS}, not {text!r}")


def _act(arguments: argparse.Namespace, places: Places) -> int:
    def shown() -> int:
        screen = _Screen(arguments.sort, arguments.rows)
        watch(whereabouts(arguments, places), arguments.every, Connection.clients, screen.view)
        return Exit.OK

    return told(shown)


TOP: Final = Command(
    name="top",
    description="The sessions that do most right now: calls, bytes, and how long their daemons"
    " take to answer.",
    epilog=_EPILOG,
    add_arguments=_add_arguments,
    act=_act,
)
