"""What the load tool needs beyond the daemon: its extras, and what to type where one is missing."""

import importlib.util
import shlex
import sys
from types import ModuleType
from typing import Final

from .failures import UsageError
from .tickets import Tickets

# What the package below has no wheels for Linux and is built with.
_TO_BUILD: Final = (
    "apt-get install gcc python3-dev libkrb5-dev on Debian, dnf install gcc python3-devel"
    " krb5-devel on Fedora"
)


# What pyproject.toml says of each extra. It is named itself: from where a proxyd came that is
# installed here is not known, and another one of that name is not wanted.
REQUIREMENTS: Final = {
    "gssapi": "gssapi>=1.9",
    "loadtest": "hdrhistogram>=0.10.3",
    "plots": "matplotlib>=3.9",
}


def remedy(extra: str) -> str:
    """The command that installs what an extra needs into the place where this runs.

    Debian's package of the load tool has no pip, and no place for more.
    """
    if importlib.util.find_spec("pip") is None:
        return f"install proxyd[loadtest,{extra}] with pip into a virtual environment of its own"
    return shlex.join([sys.executable, "-m", "pip", "install", REQUIREMENTS[extra]])


def kerberos_login(tickets: Tickets) -> None:
    """Raises UsageError: no ticket, or no library."""
    try:
        from .kerberos import login  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise UsageError(
            f"gssapi: targets need a library that is not here ({error}): {_TO_BUILD}; then"
            f" {remedy('gssapi')}"
        ) from error
    login(tickets)


def drawing() -> ModuleType:
    """What draws plots. Raises UsageError: no library."""
    try:
        from .showing import drawing as found  # noqa: PLC0415 (an extra, and a second to load)
    except ImportError as error:
        raise UsageError(
            f"plots need a library that is not here ({error}): {remedy('plots')}"
        ) from error
    return found
