"""What a subcommand is: its words for the one argument parser, and what it does."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from proxyd.daemon.places import Places


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`summary` is its line in `proxyd --help`, `act` returns the exit status."""

    name: str
    summary: str
    description: str
    epilog: str
    add_arguments: Callable[[argparse.ArgumentParser, Places], None]
    act: Callable[[argparse.Namespace, Places], int]
