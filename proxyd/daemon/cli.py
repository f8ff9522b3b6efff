"""The command line, virtproxyd's own with a little more (reference/config.md, section 3)."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

from proxyd import __version__
from proxyd.config.report import report, report_json
from proxyd.config.settings import Settings
from proxyd.daemon.commands import Command, add_commands
from proxyd.daemon.exits import Exit, StartFailed
from proxyd.daemon.loaded import Source, demand_what_exists, source_of
from proxyd.daemon.parsing import Ended, Parser, complain
from proxyd.daemon.places import Places, places_of

_LONGEST_TIMEOUT_S: Final = 2147483  # INT_MAX milliseconds
_EPILOG: Final = """\
examples:
  proxyd                                  serve the legacy sockets in the foreground
  proxyd --check-config                   what is in force, and where each value came from
  proxyd -v -f ./virtproxyd.conf -p ""    try a configuration, with more in the log
  proxyd status                           how the daemon that runs here is
  proxyd clients --watch                  who is connected, and what they do
  proxyd kick 17                          end the session of client 17

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
    source = source_of(arguments.config, places, os.environ, verbose=arguments.verbose)
    if arguments.check_config:
        return _check(source, places, as_json=arguments.report_json)
    return _run(arguments, source, places)


def _obey(command: Command, arguments: argparse.Namespace, places: Places) -> int:
    for option, name in DAEMONS_OWN.items():
        given = getattr(arguments, name)
        if given is not None and given is not False:
            complain(
                f"error: {option} before a command is for the daemon itself, {command.name} takes"
                f" its options behind its name (try {command.name} --help)"
            )
            return Exit.FAILED
    return command.act(arguments, places)


def _run(arguments: argparse.Namespace, source: Source, places: Places) -> int:
    # Imported here so that --help and --check-config need not wait for trio.
    from proxyd.daemon.in_force import Options  # noqa: PLC0415
    from proxyd.daemon.serve import run_daemon  # noqa: PLC0415

    pid_file = places.pid_file if arguments.pid_file is None else arguments.pid_file
    return run_daemon(
        Options(
            source=source,
            places=places,
            pid_file=pid_file and os.path.abspath(pid_file),
            directory=_here(),
            background=arguments.daemon,
            idle_exit_s=arguments.timeout or 0,
        )
    )


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # somebody has removed it
        return "/"


def _load_what_it_names(settings: Settings, places: Places) -> None:
    """Certificates, keytab, passwords. Raises StartFailed."""
    from proxyd.daemon.entrances import load_sasl_for, load_tls_for  # noqa: PLC0415

    load_tls_for(settings, places)
    load_sasl_for(settings, places)


def _check(source: Source, places: Places, *, as_json: bool) -> int:
    """Prints what is in force; 0 when a daemon would start with it, 1 when not."""
    try:
        loaded = source.load()
        for doubt in () if as_json else loaded.doubts:
            complain(f"warning: {doubt}")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a path may be in no encoding
        print(report_json(loaded) if as_json else report(loaded), end="")
        demand_what_exists(loaded.settings)
        _load_what_it_names(loaded.settings, places)
    except StartFailed as error:
        complain(str(error))
        return Exit.FAILED
    return Exit.OK


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
    version = f"proxyd {__version__} (in the role of libvirt's virtproxyd 11.3.0)"
    add("-V", "--version", action="version", version=version)
    add_commands(parser, places, whole=whole)
    return parser
