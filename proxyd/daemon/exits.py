"""How the process ends (reference/config.md, section 3)."""

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1  # command line, configuration, logging, pid file
    RUN_DIR = 2
    LIMITS = 3
    NETWORK = 6


class StartFailed(Exception):
    """The daemon cannot start; the text says why and what to do."""

    def __init__(self, status: Exit, message: str) -> None:
        super().__init__(message)
        self.status = status
