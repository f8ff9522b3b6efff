"""proxyd status, clients and kick: what the daemon that runs tells of itself."""

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from proxyd import __version__
from proxyd.admin import document
from proxyd.cli.admin_client import Connection, NoAnswer, Refusal
from proxyd.cli.commands import Command
from proxyd.cli.parser import complain
from proxyd.cli.whereabouts import Asleep, Whereabouts, add_where, reach, reach_quietly, whereabouts
from proxyd.daemon.places import Places
from proxyd.invocation import pasteable
from proxyd.process.exit_status import Exit
from proxyd.process.health import Health

if TYPE_CHECKING:
    from rich.console import RenderableType

    from proxyd.cli.screens import Concern

EVERY_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 3600.0
_LONGEST_NUMBER: Final = len(str(2**64 - 1))
_NOT_THERE: Final = 2  # somebody who was to be kicked
_SYSTEMD_S: Final = 5.0

_Found = TypeVar("_Found")

_STATUS_EPILOG: Final = """\
Daemons behind are asked whether they answer, and idle ones are started by that. With --passive,
which --json brings with it, nothing is started: those alone are asked that have sessions, and of
a proxyd that systemd would have to start no more is told than that.

exit status, as monitoring plugins have it:
  0 OK
  1 WARNING: a certificate ends within 30 days, the last reload failed, a way in is not served,
    nobody new is let in (drain), what runs is not what is installed, places or log lines are short
  2 CRITICAL: clients get errors, as a daemon is gone or does not answer, or proxyd is down
  3 UNKNOWN: it was not asked, this user may not ask it, or the command line is wrong
"""
_CLIENTS_EPILOG: Final = """\
examples:
  proxyd clients                       everybody who is connected
  proxyd clients --watch=1             the same, every second, until Ctrl-C
  proxyd clients --json | jq '.[] | select(.idle_s > 3600) | .id'
"""
_KICK_EPILOG: Final = """\
A session is ended at once, on both sides, whatever is under way. Nothing keeps the client from
connecting again, which many do by themselves: who is to stay away is taken from the list that lets
him in (tls_allowed_dn_list, sasl_allowed_username_list), or his certificate is revoked.

exit status: 0 all of them were ended; 1 the command line is wrong, or the daemon was not reached;
             2 somebody is not there (the others were ended).
"""


def _add_output(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for machines")
    how.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=pause,
        const=EVERY_S,
        help=f"show it again every so many seconds (default {EVERY_S:g}), until Ctrl-C",
    )


def pause(text: str) -> float:
    with suppress(ValueError):
        if 0.1 <= float(text) <= _LONGEST_PAUSE_S:
            return float(text)
    raise argparse.ArgumentTypeError(f"seconds from 0.1 to {_LONGEST_PAUSE_S:g}, not {text!r}")


def _add_status(parser: argparse.ArgumentParser, places: Places) -> None:
    add_where(parser, places)
    _add_output(parser)
    asking = parser.add_mutually_exclusive_group()
    asking.add_argument(
        "--passive",
        action="store_true",
        help="start nothing: ask those daemons only that have sessions (the default with --json)",
    )
    asking.add_argument(
        "--probe",
        action="store_true",
        help="ask all daemons whether they answer, with --json too, which starts idle ones",
    )
    asking.add_argument(
        "--no-probe", action="store_true", help="ask no daemon behind; proxyd itself is asked"
    )


def _add_clients(parser: argparse.ArgumentParser, places: Places) -> None:
    add_where(parser, places)
    _add_output(parser)


def _add_kick(parser: argparse.ArgumentParser, places: Places) -> None:
    parser.add_argument(
        "id", metavar="ID", type=_number, nargs="+", help="as `proxyd clients` says"
    )
    add_where(parser, places)
    parser.add_argument("--json", action="store_true", help="for machines")


def _number(text: str) -> int:
    digits = text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER
    if not digits or not 0 < int(text) < 1 << 64:
        raise argparse.ArgumentTypeError(f"a client's number expected, not {text!r}")
    return int(text)


class _Asking:
    """What is asked of the daemon, and what is kept of it while it is watched.

    Daemons behind are asked once, or again when proxyd was started anew: asking again and again
    would keep those from ending that nobody needs. Rows that are gone stay, as missing.
    """

    def __init__(self, *, ask_daemons: bool, ask_busy: bool) -> None:
        self._ask_daemons = ask_daemons
        self._ask_busy = ask_busy
        self._pid = 0
        self._asked_at = 0.0
        self._answers: dict[str, document.Answer | None] = {}
        self._rows: dict[str, document.Backend] = {}

    def ask(self, connection: Connection) -> dict[str, Any]:
        if not self._pid:
            return self._first(connection)
        found = connection.status(ask_daemons=False, ask_busy=self._ask_busy)
        return found if found.get("pid") == self._pid else self._first(connection)

    def _first(self, connection: Connection) -> dict[str, Any]:
        found = connection.status(ask_daemons=self._ask_daemons, ask_busy=self._ask_busy)
        status = document.read(document.Status, found)
        self._pid, self._asked_at = status.pid, time.monotonic()
        self._answers = {each.socket: each.answer for each in status.backends}
        return found

    def understood(self, found: dict[str, Any]) -> document.Status:
        status = document.read(document.Status, found)
        there = {each.socket: each for each in status.backends}
        gone = [
            replace(each, present=False, missing=True, sessions=0, answer=None)
            for path, each in self._rows.items()
            if path not in there
        ]
        self._rows |= {path: each for path, each in there.items() if each.present}
        backends = [
            replace(each, answer=each.answer or self._answers.get(each.socket))
            for each in (*status.backends, *gone)
        ]
        return replace(status, backends=tuple(backends))

    def ago_s(self, found: dict[str, Any]) -> dict[str, float]:
        """How old the answers are that are not in there."""
        fresh = {each["socket"] for each in found["backends"] if "answers" in each}
        age_s = time.monotonic() - self._asked_at
        return {path: age_s for path, each in self._answers.items() if each and path not in fresh}


def _status(arguments: argparse.Namespace, places: Places) -> int:
    from proxyd.cli.screens import concerns, health, status_view  # noqa: PLC0415 (slow to load)

    passive = arguments.passive or (arguments.json and not (arguments.probe or arguments.no_probe))
    asking = _Asking(ask_daemons=not (passive or arguments.no_probe), ask_busy=passive)

    def view(found: dict[str, Any]) -> "RenderableType":
        return status_view(asking.understood(found), asking.ago_s(found))

    def for_machines(found: dict[str, Any]) -> dict[str, Any]:
        status = asking.understood(found)
        return found | {"verdict": _verdict(concerns(status), _not_asked(status))}

    def shown() -> int:
        try:
            found = _show(arguments, asking.ask, view, for_machines, places, passive=passive)
        except Asleep as asleep:
            return _tell_asleep(asleep, as_json=arguments.json)
        _tell_releases(document.read(document.Status, found))
        return health(concerns(asking.understood(found)))

    return told(shown, failed=Health.UNKNOWN, down=Health.CRITICAL)


def _tell_releases(status: document.Status) -> None:
    """Where the daemon knows by itself whether it is what is installed, this is another copy."""
    if status.program is not None and status.version != __version__:
        complain(
            f"warning: the daemon is proxyd {status.version}, this command is {__version__}; use"
            " the one that belongs to the daemon"
        )


def _not_asked(status: document.Status) -> list[str]:
    return [each.daemon for each in status.backends if each.present and each.answer is None]


def _verdict(found: "Sequence[Concern]", not_asked: list[str]) -> dict[str, Any]:
    from proxyd.cli.screens import health  # noqa: PLC0415 (slow to load)

    worst = health(found)
    return {
        "status": int(worst),
        "name": worst.name,
        "attention": [{"level": each.level.name, "text": each.text} for each in found],
        "not_asked": not_asked,
    }


def _tell_asleep(asleep: Asleep, *, as_json: bool) -> int:
    """proxyd was not asked: what is known of it without that."""
    from proxyd.cli.screens import Concern  # noqa: PLC0415 (slow to load)

    if _has_failed():
        text = (
            "systemd could not keep virtproxyd.service running (journalctl -u virtproxyd), and"
            f" holds {asleep.path} alone"
        )
        concern = Concern(Health.CRITICAL, text)
    else:
        text = (
            f"proxyd was not asked: systemd holds {asleep.path}, and starts proxyd when somebody"
            " connects; `proxyd status --probe` does"
        )
        concern = Concern(Health.UNKNOWN, pasteable(text))
    if as_json:
        verdict = _verdict([concern], ["proxyd"])
        idle = {"format": document.FORMAT, "state": "idle", "verdict": verdict}
        print(json.dumps(idle, indent=2))
    else:
        print(concern.text)
    return concern.level


def _has_failed() -> bool:
    command = ["systemctl", "is-failed", "--quiet", "virtproxyd.service"]
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, timeout=_SYSTEMD_S, check=False).returncode == 0
    return False


def _clients(arguments: argparse.Namespace, places: Places) -> int:
    from proxyd.cli.screens import clients_view  # noqa: PLC0415 (slow to load)

    def view(found: _Listed) -> "RenderableType":
        return clients_view(_read(found.clients), found.drain)

    def shown() -> int:
        try:
            _show(
                arguments,
                _listed_for_machines if arguments.json else _listed,
                view,
                lambda found: found.clients,
                places,
                passive=arguments.json,
            )
        except Asleep:  # who does not run has no clients
            print("[]")
        return Exit.OK

    return told(shown)


class _Listed(NamedTuple):
    clients: list[dict[str, Any]]
    drain: document.Drain | None = None


def _listed(connection: Connection) -> _Listed:
    clients = connection.clients()
    drain = None
    with suppress(document.Unreadable):  # of a newer daemon; its clients were told all the same
        drain = connection.draining()
    return _Listed(clients, drain)


def _listed_for_machines(connection: Connection) -> _Listed:
    return _Listed(connection.clients())


def _read(found: list[dict[str, Any]]) -> list[document.Client]:
    return [document.read(document.Client, each) for each in found]


def told(act: Callable[[], int], *, failed: int = Exit.FAILED, down: int = Exit.FAILED) -> int:
    """The exit status; what went wrong is one line. `down`: the daemon does not run or is stuck."""
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names are in no encoding at times
        status = act()
        sys.stdout.flush()
    except NoAnswer as error:
        complain(str(error))
        return down if error.down else failed
    except document.Unreadable as error:
        complain(f"the daemon's answer cannot be read: {error}")
    except BrokenPipeError:
        # Whoever read it has seen enough. What is left goes where no flush can fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(file=sys.stderr)
    else:
        return status
    return failed


def _show(
    arguments: argparse.Namespace,
    ask: Callable[[Connection], _Found],
    view: Callable[[_Found], "RenderableType"],
    for_machines: Callable[[_Found], object],
    places: Places,
    *,
    passive: bool = False,
) -> _Found:
    """Prints what the daemon tells, once or again and again; returns what it told last.

    For machines that is what came, with all that a newer daemon may say.
    """
    where = whereabouts(arguments, places)
    if arguments.watch is not None:
        return watch(where, arguments.watch, ask, view)
    with reach(where, passive=passive) as connection:
        found = ask(connection)
    if arguments.json:
        print(json.dumps(for_machines(found), indent=2))
    else:
        from proxyd.cli.screens import console  # noqa: PLC0415 (slow to load)

        screen = console()
        with screen.capture() as shown:  # a pipe that breaks is our own affair, not rich's
            screen.print(view(found))
        print(shown.get(), end="")
    return found


def watch(
    where: Whereabouts,
    every_s: float,
    ask: Callable[[Connection], _Found],
    view: Callable[[_Found], "RenderableType"],
) -> _Found:
    """Goes on while nobody answers, and says for how long; if so at the end, raises NoAnswer."""
    if not sys.stdout.isatty():
        raise NoAnswer("--watch needs a terminal; without one, use --json in a loop")
    from rich.live import Live  # noqa: PLC0415 (slow to load)

    from proxyd.cli.screens import console, stale  # noqa: PLC0415

    with ExitStack() as stack:
        first = stack.enter_context(reach(where))
        found, answered = ask(first), time.monotonic()
        connection: Connection | None = first
        lost: NoAnswer | None = None
        with (
            suppress(KeyboardInterrupt),
            Live(console=console(), screen=True, auto_refresh=False) as live,
        ):
            while True:
                shown = view(found)
                if lost is not None:
                    shown = stale(shown, str(lost), time.monotonic() - answered)
                live.update(shown, refresh=True)
                time.sleep(every_s)  # noqa: TID251 (a person looks at it meanwhile)
                try:
                    if connection is None:
                        connection = stack.enter_context(reach_quietly(where))
                    found, answered, lost = ask(connection), time.monotonic(), None
                except NoAnswer as error:
                    stack.close()
                    connection, lost = None, error
    if lost is not None:
        raise lost
    return found


def _kick(arguments: argparse.Namespace, places: Places) -> int:
    def shown() -> int:
        kicked: list[int] = []
        numbers = list(dict.fromkeys(arguments.id))
        with reach(whereabouts(arguments, places)) as connection:
            for number in numbers:
                try:
                    connection.kick(number)
                except Refusal as error:
                    complain(str(error))
                else:
                    kicked.append(number)
        if arguments.json:
            print(json.dumps({"kicked": kicked}))
        else:
            print("".join(f"client {number}: its session is ended\n" for number in kicked), end="")
        return Exit.OK if kicked == numbers else _NOT_THERE

    return told(shown)


STATUS: Final = Command(
    name="status",
    description="Listeners, daemons behind and whether each answers, limits and their use,"
    " certificates, the last reload.",
    epilog=_STATUS_EPILOG,
    add_arguments=_add_status,
    act=_status,
    misused=Health.UNKNOWN,
)
CLIENTS: Final = Command(
    name="clients",
    description="Every client: where it came in, who it is, what it opened, how much it does.",
    epilog=_CLIENTS_EPILOG,
    add_arguments=_add_clients,
    act=_clients,
)
KICK: Final = Command(
    name="kick",
    description="Ends the sessions of clients, by their numbers.",
    epilog=_KICK_EPILOG,
    add_arguments=_add_kick,
    act=_kick,
)
