"""Where the command begins: it needs an extra of the package, and says so where that is missing."""

import sys

from .extras import remedy
from .statuses import USAGE


def main(argv: list[str] | None = None) -> int:
    """The exit status of `cli.main`, or USAGE where what it imports is not installed."""
    try:
        from .cli import main as run  # noqa: PLC0415 (what is missing is told here)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "hdrh":
            raise
        print(
            f"proxyd-loadtest: a library that it needs is not installed; {remedy('loadtest')}",
            file=sys.stderr,
        )
        return USAGE
    return run(argv)
