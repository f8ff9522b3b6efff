"""Which rules file the verbs of `proxyd rules` are about."""

import argparse
import grp
import os
import pwd
from dataclasses import dataclass
from typing import Final

from proxyd.config.settings import Settings
from proxyd.daemon.load_config import source_of
from proxyd.daemon.load_rules import read_rules, rules_of
from proxyd.daemon.places import Places
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.rules.doubts import House
from proxyd.rules.grammar import Parsed
from proxyd.rules.pattern import Kind
from proxyd.rules.subject import Way

_SASL: Final = "sasl"


@dataclass(frozen=True, slots=True)
class RulesFile:
    """What it says, and what is known of the host that it is for."""

    parsed: Parsed
    house: House


def add_file(parser: argparse.ArgumentParser, places: Places) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="a rules file, if not the one that proxyd_rules_file names",
    )
    parser.add_argument(
        "-f",
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,  # proxyd itself has this option, too: either place will do
        help=f"the configuration (default {places.config_file})",
    )


def rules_file(arguments: argparse.Namespace, places: Places) -> RulesFile:
    """Raises StartFailed. Of a file that was named, the configuration has to be named as well."""
    if arguments.file is not None and arguments.config is None:
        return RulesFile(read_rules(arguments.file, piped=True), House(exists=_exists))
    source = source_of(arguments.config, places, os.environ)
    settings = source.load().settings
    if arguments.file is None:
        parsed = rules_of(settings)
    else:
        parsed = read_rules(arguments.file, piped=True)
    if parsed is None:
        raise StartFailed(
            Exit.FAILED,
            f"there are no rules: proxyd_rules_file is not set in {source.path}; set it, or name a"
            " file",
        )
    return RulesFile(parsed, house_of(settings))


def house_of(settings: Settings) -> House:
    """What this host and its configuration are to the rules."""
    return House(exists=_exists, sasl_ways=_sasl_ways(settings))


def _sasl_ways(settings: Settings) -> frozenset[Way]:
    methods = {
        Way.UNIX: settings.auth_unix_rw,
        Way.RO: settings.auth_unix_ro,
        Way.TCP: settings.auth_tcp,
        Way.TLS: settings.auth_tls,
    }
    return frozenset(way for way, method in methods.items() if method == _SASL)


def _exists(kind: Kind, name: str) -> bool:
    """Whether this host's name service knows it; may block."""
    try:
        if kind is Kind.USER:
            pwd.getpwnam(name)
        else:
            grp.getgrnam(name)
    except KeyError:
        return False
    return True
