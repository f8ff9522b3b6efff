"""proxyd install, uninstall, doctor and switch, as the command line knows them."""

import argparse
import time
from typing import TYPE_CHECKING, Final

from proxyd import __version__
from proxyd.admin import document
from proxyd.cli.admin_client import NoAnswer
from proxyd.cli.commands import Command
from proxyd.cli.whereabouts import Asleep, Whereabouts, reach_quietly
from proxyd.config.settings import Settings
from proxyd.config.sources import Loaded
from proxyd.daemon.load_config import load_checked, source_of
from proxyd.daemon.places import Places, places_of, routing_table
from proxyd.deploy import install as deploy
from proxyd.doctor import command as doctor
from proxyd.doctor.files import way_to
from proxyd.doctor.state import Rules
from proxyd.doctor.surroundings import Surroundings, Unready
from proxyd.process.exit_status import StartFailed
from proxyd.process.health import Health
from proxyd.process.program import restart_of
from proxyd.switch import command as switch
from proxyd.switch.arrival import next_lines
from proxyd.switch.record import under_way

if TYPE_CHECKING:
    from proxyd.pki.files import CertificateFiles
    from proxyd.sasl.keytab import Keytab
    from proxyd.sasl.passwords import PasswordFile

# Whoever asks: it is the system's daemon that is looked at.
_SYSTEM: Final = places_of({}, euid=0)


def _install(arguments: argparse.Namespace, places: Places) -> int:
    from proxyd.cli.main import build_parser  # noqa: PLC0415 (which knows all commands, this too)
    from proxyd.deploy.host import this_host  # noqa: PLC0415 (asks systemd for its version)

    return deploy.install(arguments, build_parser(places, whole=True), this_host(next_lines))


def _uninstall(arguments: argparse.Namespace, _: Places) -> int:
    from proxyd.deploy.host import this_host  # noqa: PLC0415 (see above)

    return deploy.uninstall(arguments, this_host())


def _load(path: str | None) -> Loaded:
    try:
        return load_checked(source_of(path, _SYSTEM, {}))
    except StartFailed as error:
        raise Unready(str(error)) from error


# What follows is imported when it is needed: it brings OpenSSL and libkrb5 with it.


def _certificate_files(settings: Settings) -> "CertificateFiles":
    from proxyd.daemon.load_tls import certificate_files  # noqa: PLC0415

    return certificate_files(settings, _SYSTEM)


def _keytab(settings: Settings) -> "Keytab":
    from proxyd.daemon.load_sasl import keytab_of  # noqa: PLC0415

    return keytab_of(settings)


def _passwords(settings: Settings) -> "PasswordFile":
    from proxyd.daemon.load_sasl import passwords_of  # noqa: PLC0415

    return passwords_of(settings, _SYSTEM)


def _program(settings: Settings) -> document.Program | None:
    """What the system's daemon says of itself; nothing is started for that."""
    where = Whereabouts(directories=(settings.unix_sock_dir or _SYSTEM.runtime_dir,))
    try:
        with reach_quietly(where, passive=True) as connection:
            found = document.read(document.Status, connection.status(ask_daemons=False))
    except (Asleep, NoAnswer, document.Unreadable):
        return None
    if found.program is None:  # it does not know the question
        older = f"{found.version} runs, and is older than what asks, {__version__}"
        return document.Program(
            outdated=(older,), installed=__version__, remedy=restart_of(found.pid)
        )
    return found.program


def _rules(settings: Settings) -> Rules | None:
    from proxyd.cli.rules_file import house_of  # noqa: PLC0415
    from proxyd.daemon.load_rules import read_rules  # noqa: PLC0415
    from proxyd.rules.doubts import doubts_of  # noqa: PLC0415
    from proxyd.rules.words import summary  # noqa: PLC0415

    path = settings.proxyd_rules_file
    if path is None:
        return None
    files = (way_to(path, secret=False),)
    try:
        parsed = read_rules(path)
    except StartFailed as error:
        return Rules(path=path, trouble=str(error), files=files)
    return Rules(
        path=path,
        count=len(parsed.rules),
        faults=tuple(map(str, parsed.faults)),
        doubts=tuple(map(str, doubts_of(parsed, time.time(), house_of(settings)))),
        summary=() if parsed.faults else tuple(summary(parsed.rules)),
        files=files,
    )


def _doctor(arguments: argparse.Namespace, _: Places) -> int:
    around = Surroundings(
        config_file=_SYSTEM.config_file,
        runtime_dir=_SYSTEM.runtime_dir,
        load=_load,
        routing_table=lambda settings: routing_table(settings, _SYSTEM),
        certificate_files=_certificate_files,
        keytab=_keytab,
        passwords=_passwords,
        switching=under_way,
        program=_program,
        rules=_rules,
    )
    return doctor.run(arguments, around)


INSTALL: Final = Command(
    name="install",
    description=deploy.INSTALL_DESCRIPTION,
    epilog=deploy.INSTALL_EPILOG,
    add_arguments=lambda parser, _: deploy.add_install_arguments(parser),
    act=_install,
)
UNINSTALL: Final = Command(
    name="uninstall",
    description=deploy.UNINSTALL_DESCRIPTION,
    epilog=deploy.UNINSTALL_EPILOG,
    add_arguments=lambda parser, _: deploy.add_uninstall_arguments(parser),
    act=_uninstall,
)
DOCTOR: Final = Command(
    name="doctor",
    description=doctor.DESCRIPTION,
    epilog=doctor.EPILOG,
    add_arguments=lambda parser, _: doctor.add_arguments(parser),
    act=_doctor,
    misused=Health.UNKNOWN,
)
SWITCH: Final = Command(
    name="switch",
    description=switch.DESCRIPTION,
    epilog=switch.EPILOG,
    add_arguments=lambda parser, _: switch.add_arguments(parser),
    act=lambda arguments, _: switch.run(arguments),
)
