"""proxyd install and uninstall, as the command line knows them."""

import argparse
from typing import Final

from proxyd.daemon.commands import Command
from proxyd.daemon.places import Places
from proxyd.deploy import install as deploy


def _install(arguments: argparse.Namespace, places: Places) -> int:
    from proxyd.daemon.cli import build_parser  # noqa: PLC0415 (which knows all commands, this too)
    from proxyd.deploy.host import this_host  # noqa: PLC0415 (asks systemd for its version)

    return deploy.install(arguments, build_parser(places), this_host())


def _uninstall(arguments: argparse.Namespace, _: Places) -> int:
    from proxyd.deploy.host import this_host  # noqa: PLC0415 (see above)

    return deploy.uninstall(arguments, this_host())


INSTALL: Final = Command(
    name="install",
    summary="put the systemd units and the rest of the service in place",
    description=deploy.INSTALL_DESCRIPTION,
    epilog=deploy.INSTALL_EPILOG,
    add_arguments=lambda parser, _: deploy.add_install_arguments(parser),
    act=_install,
)
UNINSTALL: Final = Command(
    name="uninstall",
    summary="remove what install has put in place",
    description=deploy.UNINSTALL_DESCRIPTION,
    epilog=deploy.UNINSTALL_EPILOG,
    add_arguments=lambda parser, _: deploy.add_uninstall_arguments(parser),
    act=_uninstall,
)
