"""proxyd metrics: the page for Prometheus without a port, say for node-exporter's text files."""

import argparse
import sys
from pathlib import Path
from typing import Final

from proxyd.cli.admin_client import NoAnswer
from proxyd.cli.commands import Command
from proxyd.cli.parser import complain
from proxyd.cli.whereabouts import Asleep, add_where, reach, whereabouts
from proxyd.daemon.places import Places
from proxyd.deploy.putting import write_whole
from proxyd.process.exit_status import Exit

_GAUGE: Final = "# HELP {name} {meaning}\n# TYPE {name} gauge\n{name} {value}\n"
_EPILOG: Final = """\
examples:
  proxyd metrics
  proxyd metrics --output /var/lib/prometheus/node-exporter/proxyd.prom     (from a timer)

Where proxyd is not reached, what is printed or written is proxyd_up 0, and the exit status is 1.
One that systemd starts when a client comes is not started for this: proxyd_asleep is 1 then.
For Prometheus itself, an address of its own: proxyd_metrics_listen.
"""


def _add_arguments(parser: argparse.ArgumentParser, places: Places) -> None:
    add_where(parser, places)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write them there, replacing the file in one step, instead of printing them",
    )


def _act(arguments: argparse.Namespace, places: Places) -> int:
    status, text = _asked(arguments, places)
    if arguments.output is None:
        sys.stdout.write(text)
        return status
    try:
        write_whole(Path(arguments.output), text.encode(), 0o644)
    except OSError as error:
        complain(f"cannot write {arguments.output}: {error.strerror}")
        return Exit.FAILED
    return status


def _asked(arguments: argparse.Namespace, places: Places) -> tuple[int, str]:
    try:
        with reach(whereabouts(arguments, places), passive=True) as connection:
            return Exit.OK, connection.metrics()
    except Asleep:
        asleep = _gauge("proxyd_asleep", "Whether systemd starts it when a client comes.", 1)
        return Exit.OK, _gauge("proxyd_up", "Whether it runs.", 0) + asleep
    except NoAnswer as error:
        complain(str(error))
        return Exit.FAILED, _gauge("proxyd_up", "Whether it was reached.", 0)


def _gauge(name: str, meaning: str, value: int) -> str:
    return _GAUGE.format(name=name, meaning=meaning, value=value)


METRICS: Final = Command(
    name="metrics",
    description="Print the figures of the daemon that runs here in Prometheus' text format.",
    epilog=_EPILOG,
    add_arguments=_add_arguments,
    act=_act,
)
