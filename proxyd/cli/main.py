"""The command line, virtproxyd's own with a little more (docs/protocol/process.md, section 1)."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from proxyd.cli.commands import Command, add_commands
from proxyd.cli.parser import Ended, Parser, complain
from proxyd.cli.version import ShowVersion
from proxyd.config.report import report, report_json
from proxyd.daemon.load_config import Source, source_of
from proxyd.daemon.places import Places, places_of
from proxyd.later import put_off
from proxyd.process.exit_status import Exit, StartFailed

if TYPE_CHECKING:
    from proxyd.daemon.in_force import Options

_LONGEST_TIMEOUT_S: Final = 2147483  # INT_MAX milliseconds
_EPILOG: Final = """\
examples:
  proxyd                                  serve the legacy sockets in the foreground
  proxyd --check-config                   what is in force, and where each value came from
  proxyd -v -f ./virtproxyd.conf -p ""    try a configuration, with more in the log
  proxyd status                           how the daemon that runs here is
  proxyd clients --watch                  who is connected, and what they do
  proxyd kick 17                          end the session of client 17
  proxyd drain                            let in nobody new, wait for those who are here

signals: SIGTERM, SIGINT and SIGQUIT stop the daemon; SIGHUP reads the configuration again.
exit status: 0 ok; 1 command line, configuration, logging or pid file; 2 run-time directory;
             6 sockets, certificates, keytab.
"""
# By their names in the namespace, which no command uses for its own: there they would be lost.
DAEMONS_OWN: Final = {
    "--pid-file": "pid_file",
    "--daemon": "daemon",
    "--timeout": "timeout",
    "--verbose": "verbose",
    "--check-config": "check_config",
    "--json": "report_json",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    places = places_of(os.environ, euid=os.geteuid())
    try:
        parser = build_parser(places)
        parser.check_options(argv)
        arguments = parser.parse_args(argv)
        if arguments.command is not None:
            return _obey(arguments.command, arguments, places)
    except Ended as ended:
        return ended.status
    if arguments.report_json and not arguments.check_config:
        complain("error: --json goes with --check-config (try --help)")
        return Exit.FAILED
    put_off()
    source = source_of(arguments.config, places, os.environ, verbose=arguments.verbose)
    options = _options(arguments, source, places)
    if arguments.check_config:
        return _check(options, as_json=arguments.report_json)
    from proxyd.daemon.serve import run_daemon  # noqa: PLC0415 (it brings the loop with it)

    return run_daemon(options)


def _obey(command: Command, arguments: argparse.Namespace, places: Places) -> int:
    for option, name in DAEMONS_OWN.items():
        given = getattr(arguments, name)
        if given is not None and given is not False:
            complain(
                f"error: {option} before a command is for the daemon itself, {command.name} takes"
                f" its options behind its name (try {command.name} --help)"
            )
            return command.misused
    try:
        return command.act(arguments, places)
    except ImportError as error:  # a library in another version than ours: it says which
        if error.name != "OpenSSL":
            raise
        complain(f"error: {error}")
        return Exit.FAILED


def _options(arguments: argparse.Namespace, source: Source, places: Places) -> "Options":
    from proxyd.daemon.in_force import Options  # noqa: PLC0415 (--help need not wait for it)

    pid_file = places.pid_file if arguments.pid_file is None else arguments.pid_file
    return Options(
        source=source,
        places=places,
        pid_file=pid_file and os.path.abspath(pid_file),
        directory=_here(),
        background=arguments.daemon,
        idle_exit_s=arguments.timeout or 0,
    )


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # somebody has removed it
        return "/"


def _check(options: "Options", *, as_json: bool) -> int:
    """Prints what is in force; 0 when a daemon would start with it and serve all, 1 when not."""
    from proxyd.daemon.rehearsal import rehearse  # noqa: PLC0415 (it needs all that a start does)

    try:
        examined = options.source.examine()
    except StartFailed as error:
        complain(str(error))
        return Exit.FAILED
    loaded, faults = examined.loaded, rehearse(examined, options)
    for doubt in () if as_json else loaded.doubts:
        complain(f"warning: {doubt}")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may be in no encoding
    if not examined.faults:
        print(report_json(loaded, faults) if as_json else report(loaded), end="")
    for fault in faults:
        complain(str(fault))
    return Exit.FAILED if faults else Exit.OK


def _seconds(text: str) -> int:
    digits = text.isascii() and text.isdecimal() and len(text) <= len(str(_LONGEST_TIMEOUT_S))
    if not digits or int(text) > _LONGEST_TIMEOUT_S:
        raise argparse.ArgumentTypeError(
            f"seconds from 0 (never) to {_LONGEST_TIMEOUT_S} expected, not {text!r}"
        )
    return int(text)


def build_parser(places: Places, *, whole: bool = False) -> Parser:
    """The one parser of the whole command line; help, man page and completion come from it."""
    parser = Parser(
        prog="proxyd",
        description="Listens where libvirt's monolithic daemon did and takes each client to the\n"
        "modular daemon that its URI asks for.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-f", "--config", metavar="FILE", help=f"configuration file (default {places.config_file})")
    add(
        "-p",
        "--pid-file",
        metavar="FILE",
        help=f'file for the process number, "" for none (default {places.pid_file})',
    )
    add(
        "-d",
        "--daemon",
        action="store_true",
        help="run in the background; returns when the daemon is ready, or says why it is not",
    )
    add(
        "-t",
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        help="exit when no client was connected for so long (default 0: never)",
    )
    add("-v", "--verbose", action="store_true", help="log at least at level 2, information")
    add(
        "--check-config",
        action="store_true",
        help="print every setting in force and where it came from, then exit with 0 or 1",
    )
    add(
        "--json",
        dest="report_json",
        action="store_true",
        help="with --check-config: for machines",
    )
    add(
        "-V",
        "--version",
        action=ShowVersion,
        help="print the version, the build and the OpenSSL in use, then exit",
    )
    add_commands(parser, places, whole=whole)
    return parser
