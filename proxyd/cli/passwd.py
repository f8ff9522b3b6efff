"""proxyd passwd: sets, removes and lists the passwords of users who come in by SCRAM."""

import argparse
import getpass
import os
import sys
from typing import Final

from proxyd.audit.outputs import AuditOutputError
from proxyd.audit.record import Event, Value
from proxyd.audit.writer import write_once
from proxyd.cli.commands import Command
from proxyd.cli.parser import complain
from proxyd.config.settings import Settings
from proxyd.daemon.audit_settings import asked_output
from proxyd.daemon.load_config import source_of
from proxyd.daemon.places import Places
from proxyd.process.exit_status import Exit, StartFailed

_LONGEST_LINE: Final = 4096
_NOBODY_LOGGED_IN: Final = 2**32 - 1
_EPILOG: Final = """\
examples:
  proxyd passwd joe                    ask for joe's password and set it
  proxyd passwd --stdin joe <FILE      take it from the first line of a file
  proxyd passwd --delete joe           joe gets in no more; connections that are open go on
  proxyd passwd --list                 who has a password

The file holds no passwords, only what they are checked with (SCRAM-SHA-256). A change counts from
the next client on, without a reload. Clients name their password in virsh's prompt or in a file
(https://libvirt.org/auth.html, "Client configuration").
"""


def _set_password(arguments: argparse.Namespace, places: Places) -> int:
    """Runs the command; returns the exit status."""
    if (arguments.name is None) is not arguments.list:
        arguments.parser.error("name a user, or use --list")
    from proxyd.sasl.passwords import PasswordError, PasswordFile  # noqa: PLC0415 (slow to load)

    try:
        settings = _settings(arguments, places)
        file = PasswordFile(_path(arguments, settings, places))
        if arguments.list:
            print("".join(f"{name}\n" for name in file.names()), end="")
        elif arguments.delete:
            file.remove(arguments.name)
            _record(Event.NO_PASSWORD, arguments.name, file.path, settings, places)
            print(f"{arguments.name} is no longer in {file.path}")
        else:
            file.set_password(arguments.name, _password(arguments))
            _record(Event.PASSWORD, arguments.name, file.path, settings, places)
            print(f"{arguments.name} has a password in {file.path}; it counts from now on")
    except (PasswordError, StartFailed, _NoPassword) as error:
        complain(str(error))
        return Exit.FAILED
    return Exit.OK


class _NoPassword(Exception):
    """None was given, or two different ones."""


def _settings(arguments: argparse.Namespace, places: Places) -> Settings | None:
    """None where the configuration cannot be read and is not needed: a file was named."""
    try:
        return source_of(arguments.config, places, os.environ).load().settings
    except StartFailed:
        if arguments.file is None:
            raise
        return None


def _path(arguments: argparse.Namespace, settings: Settings | None, places: Places) -> str:
    if arguments.file is not None:
        return os.path.abspath(str(arguments.file))
    assert settings is not None
    return settings.proxyd_passwords or places.passwords


def _record(event: Event, name: str, path: str, settings: Settings | None, places: Places) -> None:
    """For the audit of the daemon whose configuration this is. The change stands in any case."""
    if settings is None or not settings.proxyd_audit:
        return
    values: dict[str, Value | None] = {
        "target": name,
        "by_uid": os.getuid(),
        "by_pid": os.getpid(),
        "login_uid": _login_uid(),
        "outcome": "ok",
        "reason": f"in {path}",
    }
    try:
        write_once(asked_output(settings, places, os.getcwd()), event, values)
    except (AuditOutputError, OSError) as error:
        complain(f"the change is not recorded: {error}")


def _login_uid() -> int | None:
    """Who has logged in, whoever he is by now."""
    try:
        with open("/proc/self/loginuid") as file:
            found = int(file.read())
    except (OSError, ValueError):
        return None
    return None if found == _NOBODY_LOGGED_IN else found


def _password(arguments: argparse.Namespace) -> str:
    if arguments.stdin:
        line = sys.stdin.readline(_LONGEST_LINE)
        if not line.rstrip("\r\n"):
            raise _NoPassword("standard input has no password in its first line")
        return line.rstrip("\r\n")
    if not sys.stdin.isatty():
        raise _NoPassword("there is nobody to ask for the password; use --stdin")
    try:
        password = getpass.getpass(f"Password for {arguments.name}: ")
        again = getpass.getpass("Again: ")
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        raise _NoPassword("nothing was changed") from None
    if password != again:
        raise _NoPassword("these were two different passwords; nothing was changed")
    return password


def _add_arguments(parser: argparse.ArgumentParser, places: Places) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="whose password")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--delete", action="store_true", help="remove this user")
    what.add_argument("--list", action="store_true", help="print who has a password")
    what.add_argument("--stdin", action="store_true", help="read the password from standard input")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-f",
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"configuration that names the file (default {places.config_file})",
    )
    where.add_argument("--file", metavar="FILE", help=f"the file (default {places.passwords})")


PASSWD: Final = Command(
    name="passwd",
    description="Sets the password of a user who comes in by SASL's SCRAM-SHA-256, over TLS or"
    " the UNIX sockets.",
    epilog=_EPILOG,
    add_arguments=_add_arguments,
    act=_set_password,
)
