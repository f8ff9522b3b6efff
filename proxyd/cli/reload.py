"""proxyd reload: the configuration is read again, and whoever asks learns how that went."""

import argparse
from typing import Final

from proxyd.cli.admin_client import NoAnswer, Refusal
from proxyd.cli.commands import Command
from proxyd.cli.parser import complain
from proxyd.cli.whereabouts import add_where, reach, whereabouts
from proxyd.daemon.places import Places
from proxyd.process.exit_status import Exit

_EPILOG: Final = """\
exit status: 0 the new configuration is in force; 1 nothing was changed, or the daemon was not
             reached. `systemctl reload virtproxyd` is the same.
"""


def _act(arguments: argparse.Namespace, places: Places) -> int:
    try:
        with reach(whereabouts(arguments, places)) as connection:
            print(connection.reload())
    except Refusal as refusal:
        complain(f"reload failed, {refusal}")
    except NoAnswer as error:
        complain(str(error))
    else:
        return Exit.OK
    return Exit.FAILED


RELOAD: Final = Command(
    name="reload",
    description="Has the daemon read its configuration, certificates and passwords again. All of"
    " it takes effect, or nothing does.",
    epilog=_EPILOG,
    add_arguments=add_where,
    act=_act,
)
