"""proxyd upgrade: the program that is installed now takes over from the one that runs."""

import argparse
import json
import sys
from typing import Final

from proxyd.cli.admin_client import NoAnswer, Refusal
from proxyd.cli.commands import Command
from proxyd.cli.parser import complain
from proxyd.cli.whereabouts import add_where, reach, whereabouts
from proxyd.daemon.places import Places
from proxyd.process.exit_status import Exit

_EPILOG: Final = """\
The program is started anew with its command line: new code, new configuration, also of what takes
effect at a start alone. It takes over the listening sockets and every session that can move, amid
calls and transfers, without a client noticing. Sessions over TLS stay with the process before,
which serves them to their end (proxyd_retire_timeout) and lets nobody in; `status`, `clients` and
`kick` show and reach both.

exit status: 0 the new process serves; 1 the one before goes on to serve, as if nothing had been,
             or the daemon was not reached. SIGUSR1 to the daemon does the same.
examples:
  proxyd upgrade                          after an update of the package, or for a new configuration
  proxyd --check-config && proxyd upgrade tells what is wrong before anything is tried
"""


def _add_arguments(parser: argparse.ArgumentParser, places: Places) -> None:
    add_where(parser, places)
    parser.add_argument("--json", action="store_true", help="for machines")


def _act(arguments: argparse.Namespace, places: Places) -> int:
    told = sys.stderr.isatty() and not arguments.json
    try:
        with reach(whereabouts(arguments, places)) as connection:
            if told:
                print("starting the program anew …", end="", file=sys.stderr, flush=True)
            try:
                done = connection.upgrade()
            finally:
                if told:
                    print("\r\033[K", end="", file=sys.stderr, flush=True)
    except Refusal as refusal:
        complain(str(refusal))
    except NoAnswer as error:
        complain(str(error))
    else:
        if arguments.json:
            print(json.dumps(done))
        else:
            print(_text(done))
        return Exit.OK
    return Exit.FAILED


def _text(done: dict[str, object]) -> str:
    moved, staying = done["moved"], done["staying"]
    text = f"process {done['pid']} serves after {done['seconds']:.1f} s;"
    text += f" {moved or 'no'} session{'' if moved == 1 else 's'} moved"
    if staying:
        stay = "stays" if staying == 1 else "stay"
        text += f", {staying} {stay} with process {done['before']} to their end"
    return text


UPGRADE: Final = Command(
    name="upgrade",
    description="Starts the program that is installed now beside the daemon that runs, and has it"
    " take over: no client is cut off, and none meets a closed door.",
    epilog=_EPILOG,
    add_arguments=_add_arguments,
    act=_act,
)
