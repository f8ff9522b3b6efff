"""proxyd doctor: what state the host is in, what is wrong with it, and what mends it."""

import argparse
import io
import os
import sys
from dataclasses import replace
from typing import Final

from proxyd.doctor.findings import Finding, exit_status
from proxyd.doctor.gather import gather, judge
from proxyd.doctor.report import JSON_SHAPE, report, report_json
from proxyd.doctor.surroundings import Surroundings
from proxyd.invocation import name_the_daemon, pasteable

DESCRIPTION: Final = (
    "Looks at the host's libvirt: which daemons are installed, enabled and running, who listens"
    " where, which daemons behind the proxy answer, and whether certificates, keytab and polkit are"
    " ready. Changes nothing, but asking a daemon that systemd starts on demand starts it."
)
EPILOG: Final = f"""\
Always the system's daemons are looked at. Who is not root sees less, and is told so.

exit status: 0 all is well, or there are notes; 1 warnings; 2 errors; 3 it cannot be said, as
             where the command line is wrong. Monitoring plugins have the same codes.

{JSON_SHAPE}"""

_DEADLINE_S: Final = 10.0
_LONGEST_DEADLINE_S: Final = 300.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `proxyd doctor`."""
    parser.add_argument(
        "-f",
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,  # proxyd itself has this option, too: either place will do
        help="the daemon's configuration, if not the usual one",
    )
    parser.add_argument("--json", action="store_true", help="print it for machines")
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_seconds,
        default=_DEADLINE_S,
        help=f"how long each daemon has for its answer (default {_DEADLINE_S:g})",
    )


def run(arguments: argparse.Namespace, around: Surroundings) -> int:
    """Looks, prints, and returns the exit status."""
    given = getattr(arguments, "config", None)
    config = None if given is None else os.path.abspath(given)
    if config is not None:
        name_the_daemon("--config", config)
    state = gather(around, config=config, deadline_s=arguments.wait)
    findings = [_pasteable(each) for each in judge(state)]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may be in no encoding
    text = (
        report_json(state, findings)
        if arguments.json
        else report(state, findings, colour=_may_colour())
    )
    print(text, end="")
    return exit_status(findings)


def _pasteable(finding: Finding) -> Finding:
    return replace(
        finding,
        what=pasteable(finding.what),
        why=pasteable(finding.why),
        fix=tuple(map(pasteable, finding.fix)),
    )


def _may_colour() -> bool:
    # https://no-color.org: set to anything.
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdout.isatty() and not plain


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_DEADLINE_S:
        raise argparse.ArgumentTypeError(
            f"seconds above 0 and up to {_LONGEST_DEADLINE_S:g} expected, not {text!r}"
        )
    return seconds
