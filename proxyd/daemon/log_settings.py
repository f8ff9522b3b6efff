"""From settings to where log lines go."""

import logging
import os
import sys
from dataclasses import replace
from typing import Final

from proxyd.config.loading import Loaded
from proxyd.config.logstrings import parse_filters, parse_outputs
from proxyd.daemon.exits import Exit, StartFailed
from proxyd.daemon.in_force import Options
from proxyd.daemon.journal import journal_is_available
from proxyd.daemon.logoutputs import LogOutputError
from proxyd.daemon.logs import Logs, default_outputs

_DEFAULT_LEVEL: Final = 3

log = logging.getLogger("daemon.virtproxyd")


def start_logging(logs: Logs, loaded: Loaded, options: Options) -> None:
    """Applies what the settings say, all of it or nothing. Raises StartFailed."""
    settings = loaded.settings
    level = settings.log_level or _DEFAULT_LEVEL
    if settings.log_outputs:
        # Relative to where the daemon was started: in the background it stands in the root.
        outputs = tuple(
            replace(output, target=os.path.join(options.directory, output.target))
            if output.kind == "file" and output.target
            else output
            for output in parse_outputs(settings.log_outputs)
        )
    else:
        outputs = default_outputs(
            level=level,
            daemonized=options.background,
            stdin_is_tty=sys.stdin is not None and sys.stdin.isatty(),
            journald_available=journal_is_available(),
            log_file=options.places.log_file,
        )
    try:
        logs.apply(level, parse_filters(settings.log_filters or ""), outputs)
    except LogOutputError as error:
        raise StartFailed(Exit.FAILED, f"cannot log: {error}") from error
    for doubt in loaded.doubts:
        log.warning("%s", doubt)
