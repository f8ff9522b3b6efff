"""proxyd certs: the tool of certs/, which has a command line of its own and is loaded when used."""

import argparse
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final

from proxyd.cli.commands import Command
from proxyd.daemon.places import Places

_INSTALLED: Final = "proxyd.certs"
_CHECKOUT: Final = Path(__file__).parents[2] / "certs"


def _tool(module: str) -> ModuleType:
    """A module of the tool: below this package where that is installed, else beside it."""
    installed = importlib.util.find_spec(_INSTALLED) is not None
    if not installed and not _CHECKOUT.is_dir():
        raise ModuleNotFoundError(f"this copy of proxyd came without {_INSTALLED}")
    return importlib.import_module(f"{_INSTALLED if installed else _CHECKOUT.name}.{module}")


def _add_arguments(parser: argparse.ArgumentParser, _: Places) -> None:
    _tool("options").add_verbs(parser)


def _act(arguments: argparse.Namespace, _: Places) -> int:
    status = _tool("cli").main(arguments.words)
    assert isinstance(status, int)
    return status


CERTS: Final = Command(
    name="certs",
    description="Makes, revokes and checks the certificates for TLS between libvirt's clients and"
    " a host.",
    epilog="",
    add_arguments=_add_arguments,
    act=_act,
    parses=True,
)
