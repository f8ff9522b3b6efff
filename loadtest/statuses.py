"""How the process ends: the exit statuses of every word of the command line."""

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
MISSED: Final = 99
INTERRUPTED: Final = 130

TOLD: Final = (
    "Exit status: 0 it was done; 1 a target failed, or a file could not be read or written; 2 the"
    " command line makes no sense; 99 a threshold was missed, or a check of soak does not hold; 130"
    " interrupted."
)
