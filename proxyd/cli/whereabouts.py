"""Where the daemon is that the commands ask: its admin socket, found when things are not as usual.

* A configuration file that is broken says what it can; what it does not say is as by default.
* The socket has two names. Under systemd there may be only the one that the proxy that was there
  before us had, until the sockets are made anew.
* Who is not root may have a daemon of his own. Where there is none it is the system's that he has
  in mind, which root alone can ask.
"""

import argparse
import errno
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from proxyd.cli.admin_client import Connection, NoAnswer, admin_socket, why_not
from proxyd.cli.parser import complain
from proxyd.config.addresses import ADMIN_SOCKETS
from proxyd.daemon.load_config import source_of, unloadable
from proxyd.daemon.places import Places, places_of
from proxyd.invocation import name_the_daemon
from proxyd.process.exit_status import StartFailed
from proxyd.process.sockets import holders, short_name, unix_listeners

_SYSTEM: Final = places_of({}, euid=0)
_GONE: Final = {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR}
_BY_SYSTEMD: Final = "/run/systemd/system"
# Stopping a socket stops what is bound to it; those that were active are started again.
MAKE_ANEW: Final = (
    "S=$(systemctl list-units --plain --no-legend --state=active 'virtproxyd*.socket'"
    " | cut -d' ' -f1); systemctl daemon-reload;"
    " systemctl stop virtproxyd.service $S && systemctl start $S"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """`directories` are looked at one after the other; `socket`, if it was named, alone.

    `trouble` is what is wrong with the configuration; `users` whether the first of them is of a
    user's own daemon, and the last the system's.
    """

    socket: str = ""
    directories: tuple[str, ...] = ()
    trouble: str = ""
    users: bool = False

    def paths(self) -> Iterator[str]:
        if self.socket:
            yield self.socket
        for directory in self.directories:
            for name in reversed(ADMIN_SOCKETS):
                yield f"{directory}/{name}"


class Asleep(Exception):
    """systemd alone listens at this path: whoever connects starts the daemon."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def add_where(parser: argparse.ArgumentParser, places: Places) -> None:
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


def whereabouts(arguments: argparse.Namespace, places: Places) -> Whereabouts:
    """Raises NoAnswer for a file that was named and is not there."""
    if arguments.socket is not None:
        path = str(arguments.socket)
        name_the_daemon("--socket", os.path.abspath(path))
        if os.path.isdir(path):
            return Whereabouts(directories=(path,))
        return Whereabouts(socket=path)
    source = source_of(arguments.config, places, os.environ)
    if source.named:
        name_the_daemon("--config", os.path.abspath(source.path))
    directory, trouble = None, ""
    try:
        examined = source.examine()
    except StartFailed as error:
        if source.named:
            raise NoAnswer(str(error)) from error
        trouble = str(error)
    else:
        directory = examined.loaded.settings.unix_sock_dir
        trouble = unloadable(examined.faults[0]) if examined.faults else ""
    directories = [directory or places.runtime_dir]
    if trouble:
        directories.append(places.runtime_dir)
    users = not (source.named or places.privileged)
    if users:
        directories.append(_SYSTEM.runtime_dir)
    found = tuple(dict.fromkeys(directories))
    return Whereabouts(directories=found, trouble=trouble, users=users)


def reach(where: Whereabouts, *, passive: bool = False) -> Connection:
    """A connection to the daemon. What is not as usual is said on stderr.

    Raises NoAnswer; and Asleep, if it is `passive`, instead of starting the daemon.
    """
    connection, failures = _reach(where, passive=passive)
    _say_what_is_odd(where, connection.path, failures)
    return connection


def reach_quietly(where: Whereabouts, *, passive: bool = False) -> Connection:
    """The same for somebody who has been told what is odd, or need not be."""
    return _reach(where, passive=passive)[0]


def _reach(where: Whereabouts, *, passive: bool) -> tuple[Connection, list[tuple[str, OSError]]]:
    failures: list[tuple[str, OSError]] = []
    for path in where.paths():
        if passive and _is_asleep(path):
            raise Asleep(path)
        try:
            connection = Connection.connect(path)
        except OSError as error:
            failures.append((path, error))
            continue
        if failures and not _is_ours(connection):
            failures.append((path, OSError(0, "another daemon of libvirt's listens there")))
            continue
        return connection, failures
    raise _nobody(where, failures)


def _is_asleep(path: str) -> bool:
    """Nothing is connected to. Where it cannot be seen who listens, somebody may be asleep."""
    path = os.path.realpath(path)
    inodes = {inode for bound, inode in unix_listeners() if os.path.realpath(bound) == path}
    held = holders(inodes)
    names = {short_name(pid) for pids in held.values() for pid in pids}
    return bool(inodes) and not names - {"systemd"}


def _is_ours(connection: Connection) -> bool:
    """Whether it is proxyd's and not some other daemon's admin socket."""
    try:
        connection.demand_ours()
    except NoAnswer:
        connection.sock.close()
        return False
    return True


def _say_what_is_odd(where: Whereabouts, path: str, failures: list[tuple[str, OSError]]) -> None:
    if where.trouble:
        complain(f"warning: {where.trouble}; the daemon was found at {path} all the same")
    name = os.path.basename(path)
    if name != ADMIN_SOCKETS[-1] and name in ADMIN_SOCKETS and failures:
        missing = f"{os.path.dirname(path)}/{ADMIN_SOCKETS[-1]}"
        remedy = (
            f"its sockets were made before proxyd's units were there; to make them anew, which"
            f" ends all sessions: {MAKE_ANEW}"
            if os.path.isdir(_BY_SYSTEMD)
            else "start the daemon anew"
        )
        complain(f"warning: there is no {missing}, so {path} was asked; {remedy}")


def _nobody(where: Whereabouts, failures: list[tuple[str, OSError]]) -> NoAnswer:
    """What is said when nobody was reached; the first path is where it should have been."""
    behind = f" ({where.trouble}, so the usual places were tried)" if where.trouble else ""
    down = all(error.errno in _GONE for _, error in failures)
    if where.users:
        return NoAnswer(_no_daemon_of_a_user(where, dict(failures)) + behind, down=down)
    path, error = next((each for each in failures if each[1].errno not in _GONE), failures[0])
    tried = [each for each, _ in failures if each != path]
    others = f" (nor at {', '.join(tried)})" if tried and down else ""
    return NoAnswer(why_not(path, error, others) + behind, down=down)


def _no_daemon_of_a_user(where: Whereabouts, failures: dict[str, OSError]) -> str:
    """This user's first, then the system's."""
    own, system = (
        next(path for path in failures if os.path.dirname(path) == directory)
        for directory in (where.directories[0], where.directories[-1])
    )
    there = next(
        (
            path
            for path, error in failures.items()
            if os.path.dirname(path) == _SYSTEM.runtime_dir and error.errno not in _GONE
        ),
        None,
    )
    told = f"no proxyd of this user answers at {own}: {_reason(failures[own])}"
    if there is not None:
        return (
            f"{told}; the system's is at {there}, which only root may ask: sudo {_command_again()}"
        )
    return (
        f"{told}; nor does the system's at {system}: {_reason(failures[system])}. Start the"
        " system's (sudo systemctl start virtproxyd.socket), or this user's (systemctl --user"
        " start virtproxyd.socket, or proxyd -d)"
    )


def _command_again() -> str:
    """As it was typed, for root."""
    import sys  # noqa: PLC0415 (for this line alone)

    return shlex.join(["proxyd", *sys.argv[1:]])


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
