"""proxyd passwd: sets, removes and lists the passwords of users who come in by SCRAM."""

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from typing import Final

from proxyd.daemon.exits import Exit, StartFailed
from proxyd.daemon.loaded import Source
from proxyd.daemon.parsing import Ended, Parser, complain
from proxyd.daemon.places import Places

_LONGEST_LINE: Final = 4096
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


def passwd(argv: Sequence[str], places: Places) -> int:
    """Runs the command; returns the exit status."""
    try:
        arguments = _parser(places).parse_args(argv)
        if (arguments.name is None) is not arguments.list:
            _parser(places).error("name a user, or use --list")
    except Ended as ended:
        return ended.status
    from proxyd.auth.passwords import PasswordError, PasswordFile  # noqa: PLC0415 (slow to load)

    try:
        file = PasswordFile(_path(arguments, places))
        if arguments.list:
            print("".join(f"{name}\n" for name in file.names()), end="")
        elif arguments.delete:
            file.remove(arguments.name)
            print(f"{arguments.name} is no longer in {file.path}")
        else:
            file.set_password(arguments.name, _password(arguments))
            print(f"{arguments.name} has a password in {file.path}; it counts from now on")
    except (PasswordError, StartFailed, _NoPassword) as error:
        complain(str(error))
        return Exit.FAILED
    return Exit.OK


class _NoPassword(Exception):
    """None was given, or two different ones."""


def _path(arguments: argparse.Namespace, places: Places) -> str:
    if arguments.file is not None:
        return os.path.abspath(str(arguments.file))
    source = Source(
        path=os.path.abspath(arguments.config or places.config_file),
        named=arguments.config is not None,
        verbose=False,
        privileged=places.privileged,
        environ=dict(os.environ),
    )
    return source.load().settings.proxyd_passwords or places.passwords


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


def _parser(places: Places) -> Parser:
    parser = Parser(
        prog="proxyd passwd",
        description="Sets the password of a user who comes in by SASL's SCRAM-SHA-256, over TLS or"
        " the UNIX sockets.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
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
        help=f"configuration that names the file (default {places.config_file})",
    )
    where.add_argument("--file", metavar="FILE", help=f"the file (default {places.passwords})")
    return parser
