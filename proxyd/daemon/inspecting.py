"""proxyd status, clients and kick: what the daemon that runs tells of itself."""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from proxyd.daemon.asking import Connection, NoAnswer, Refusal, admin_socket
from proxyd.daemon.commands import Command
from proxyd.daemon.exits import Exit, StartFailed
from proxyd.daemon.loaded import source_of
from proxyd.daemon.parsing import complain
from proxyd.daemon.places import Places

if TYPE_CHECKING:
    from rich.console import RenderableType

_EVERY_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 3600.0
_LONGEST_NUMBER: Final = len(str(2**64 - 1))
_ATTENTION: Final = 3  # it runs, and somebody should look at it

_Found = TypeVar("_Found")

_STATUS_EPILOG: Final = """\
exit status: 0 all is well; 1 the daemon was not reached; 3 it runs and something needs attention:
             a daemon does not answer, a certificate ends within 30 days, the last reload failed.
"""
_CLIENTS_EPILOG: Final = """\
examples:
  proxyd clients                       everybody who is connected
  proxyd clients --watch=1             the same, every second, until Ctrl-C
  proxyd clients --json | jq '.[] | select(.idle_s > 3600) | .id'
"""
_KICK_EPILOG: Final = """\
A session is ended at once, on both sides, whatever is under way. The client may connect again.
"""


def _add_where(parser: argparse.ArgumentParser, places: Places) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-s",
        "--socket",
        metavar="PATH",
        help=f"its admin socket (default {admin_socket(places.runtime_dir)})",
    )
    where.add_argument(
        "-f",
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="its configuration, which says where its sockets are",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for machines")
    how.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=_pause,
        const=_EVERY_S,
        help=f"show it again every so many seconds (default {_EVERY_S:g}), until Ctrl-C",
    )


def _pause(text: str) -> float:
    with suppress(ValueError):
        if 0.1 <= float(text) <= _LONGEST_PAUSE_S:
            return float(text)
    raise argparse.ArgumentTypeError(f"seconds from 0.1 to {_LONGEST_PAUSE_S:g}, not {text!r}")


def _add_status(parser: argparse.ArgumentParser, places: Places) -> None:
    _add_where(parser, places)
    _add_output(parser)
    parser.add_argument(
        "--no-probe",
        action="store_true",
        help="do not ask the daemons whether they answer, which starts those that systemd holds",
    )


def _add_clients(parser: argparse.ArgumentParser, places: Places) -> None:
    _add_where(parser, places)
    _add_output(parser)


def _add_kick(parser: argparse.ArgumentParser, places: Places) -> None:
    parser.add_argument(
        "id", metavar="ID", type=_number, nargs="+", help="as `proxyd clients` says"
    )
    _add_where(parser, places)
    parser.add_argument("--json", action="store_true", help="for machines")


def _number(text: str) -> int:
    digits = text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER
    if not digits or not 0 < int(text) < 1 << 64:
        raise argparse.ArgumentTypeError(f"a client's number expected, not {text!r}")
    return int(text)


def _status(arguments: argparse.Namespace, places: Places) -> int:
    from proxyd.daemon.showing import attention, status_view  # noqa: PLC0415 (slow to load)

    answers: dict[str, dict[str, Any]] | None = None if not arguments.no_probe else {}

    def ask(connection: Connection) -> dict[str, Any]:
        nonlocal answers
        # Once: asking again and again would keep daemons from ending that nobody needs.
        found = connection.status(ask_daemons=answers is None)
        if answers is None:
            answers = {each["socket"]: each for each in found["backends"]}
        found["backends"] = [answers.get(each["socket"], {}) | each for each in found["backends"]]
        return found

    def shown() -> int:
        found = _show(arguments, _socket_of(arguments, places), ask, status_view)
        return _ATTENTION if attention(found) else Exit.OK

    return _told(shown)


def _clients(arguments: argparse.Namespace, places: Places) -> int:
    from proxyd.daemon.showing import clients_view  # noqa: PLC0415 (slow to load)

    def shown() -> int:
        _show(arguments, _socket_of(arguments, places), Connection.clients, clients_view)
        return Exit.OK

    return _told(shown)


def _told(act: Callable[[], int]) -> int:
    """The exit status; what went wrong is one line."""
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names are in no encoding at times
        status = act()
        sys.stdout.flush()
    except (NoAnswer, StartFailed) as error:
        complain(str(error))
    except BrokenPipeError:
        # Whoever read it has seen enough. What is left goes where no flush can fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(file=sys.stderr)
    else:
        return status
    return Exit.FAILED


def _show(
    arguments: argparse.Namespace,
    path: str,
    ask: Callable[[Connection], _Found],
    view: Callable[[_Found], "RenderableType"],
) -> _Found:
    """Prints what the daemon tells, once or again and again; returns what it told last."""
    if arguments.watch is not None:
        return _watch(path, arguments.watch, ask, view)
    with Connection.open(path) as connection:
        found = ask(connection)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        from proxyd.daemon.showing import console  # noqa: PLC0415 (slow to load)

        screen = console()
        with screen.capture() as shown:  # a pipe that breaks is our own affair, not rich's
            screen.print(view(found))
        print(shown.get(), end="")
    return found


def _watch(
    path: str,
    every_s: float,
    ask: Callable[[Connection], _Found],
    view: Callable[[_Found], "RenderableType"],
) -> _Found:
    if not sys.stdout.isatty():
        raise NoAnswer("--watch needs a terminal; without one, use --json in a loop")
    from rich.live import Live  # noqa: PLC0415 (slow to load)

    from proxyd.daemon.showing import console  # noqa: PLC0415

    with Connection.open(path) as connection:
        found = ask(connection)
        with (
            suppress(KeyboardInterrupt),
            Live(console=console(), screen=True, auto_refresh=False) as live,
        ):
            while True:
                live.update(view(found), refresh=True)
                time.sleep(every_s)  # noqa: TID251 (a person looks at it meanwhile)
                found = ask(connection)
    return found


def _kick(arguments: argparse.Namespace, places: Places) -> int:
    def shown() -> int:
        kicked: list[int] = []
        numbers = list(dict.fromkeys(arguments.id))
        with Connection.open(_socket_of(arguments, places)) as connection:
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
        return Exit.OK if kicked == numbers else Exit.FAILED

    return _told(shown)


def _socket_of(arguments: argparse.Namespace, places: Places) -> str:
    """Raises StartFailed for a configuration that cannot be read."""
    if arguments.socket is not None:
        path = str(arguments.socket)
        return admin_socket(path) if os.path.isdir(path) else path
    source = source_of(arguments.config, places, os.environ)
    return admin_socket(source.load().settings.unix_sock_dir or places.runtime_dir)


STATUS: Final = Command(
    name="status",
    description="Listeners, daemons behind and whether each answers, limits and their use,"
    " certificates, the last reload.",
    epilog=_STATUS_EPILOG,
    add_arguments=_add_status,
    act=_status,
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
