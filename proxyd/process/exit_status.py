"""How the process ends (docs/protocol/process.md, section 2)."""

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1  # command line, configuration, logging, pid file
    RUN_DIR = 2
    LIMITS = 3
    NETWORK = 6


class StartFailed(Exception):
    """The daemon cannot start; the text says why and what to do.

    `key` is the setting that is to blame, "" where none is. Where there are several, `causes`
    has each, with the setting that is to blame for it.
    """

    def __init__(
        self,
        status: Exit,
        message: str,
        *,
        key: str = "",
        causes: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.key = key
        self.causes = tuple(causes) or ((key, message),)
