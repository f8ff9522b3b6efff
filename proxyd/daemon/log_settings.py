"""From settings to where log lines go, and what an administrator has changed of that since."""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import trio

from proxyd.config.logstrings import LogFilter, LogOutput, parse_filters, parse_outputs
from proxyd.config.sources import Loaded
from proxyd.daemon.in_force import Options
from proxyd.log.journal import journal_is_available
from proxyd.log.logs import Logs, default_outputs
from proxyd.log.outputs import LogOutputError
from proxyd.process.exit_status import Exit, StartFailed

_DEFAULT_LEVEL: Final = 3

log = logging.getLogger("daemon.virtproxyd")


class LogSettings:
    """Level, filters and outputs in force. One change at a time: opening an output may wait."""

    def __init__(self, logs: Logs, options: Options) -> None:
        self.logs = logs
        self.level = _DEFAULT_LEVEL
        self.filters: tuple[LogFilter, ...] = ()
        self.outputs: tuple[LogOutput, ...] = ()
        self._options = options
        self._one_at_a_time = trio.Lock()

    def start(self, loaded: Loaded) -> None:
        """Applies what the configuration says, before the loop runs. Raises StartFailed."""
        try:
            self._apply(*self._asked(loaded))
        except LogOutputError as error:
            raise StartFailed(Exit.FAILED, f"cannot log: {error}") from error
        _warn_of(loaded)

    async def read_again(self, loaded: Loaded) -> None:
        """The same while the daemon runs. All of it or nothing. Raises StartFailed."""
        try:
            async with self._one_at_a_time:
                await self._change(*self._asked(loaded))
        except LogOutputError as error:
            raise StartFailed(Exit.FAILED, f"cannot log: {error}") from error
        _warn_of(loaded)

    async def set_filters(self, filters: Sequence[LogFilter]) -> None:
        """Raises LogOutputError, since an output is opened anew."""
        async with self._one_at_a_time:
            await self._change(self.level, tuple(filters), self.outputs)

    async def set_outputs(self, outputs: Sequence[LogOutput]) -> None:
        """None at all stand for the default ones. Raises LogOutputError."""
        async with self._one_at_a_time:
            asked = self._absolute(outputs) if outputs else self._default(self.level)
            await self._change(self.level, self.filters, asked)

    async def _change(
        self, level: int, filters: tuple[LogFilter, ...], outputs: tuple[LogOutput, ...]
    ) -> None:
        """For whoever has the lock, and has read what is in force under it."""
        await trio.to_thread.run_sync(self._apply, level, filters, outputs)

    def _apply(
        self, level: int, filters: tuple[LogFilter, ...], outputs: tuple[LogOutput, ...]
    ) -> None:
        self.logs.apply(level, filters, outputs)
        self.level, self.filters, self.outputs = level, filters, outputs

    def _asked(self, loaded: Loaded) -> tuple[int, tuple[LogFilter, ...], tuple[LogOutput, ...]]:
        settings = loaded.settings
        level = settings.log_level or _DEFAULT_LEVEL
        if settings.log_outputs:
            outputs = self._absolute(parse_outputs(settings.log_outputs))
        else:
            outputs = self._default(level)
        return level, tuple(parse_filters(settings.log_filters or "")), outputs

    def _absolute(self, outputs: Sequence[LogOutput]) -> tuple[LogOutput, ...]:
        return absolute(outputs, self._options.directory)

    def _default(self, level: int) -> tuple[LogOutput, ...]:
        outputs = default_outputs(
            level=level,
            daemonized=self._options.background,
            stdin_is_tty=sys.stdin is not None and sys.stdin.isatty(),
            journald_available=journal_is_available(),
            log_file=self._options.places.log_file,
        )
        if any(each.kind == "file" for each in outputs):
            self._make_log_directory()
        return outputs

    def _make_log_directory(self) -> None:
        """Of the usual file: a user's is there only after a first daemon of libvirt's."""
        places = self._options.places
        # What cannot be made is told when the file is opened.
        with suppress(OSError):
            os.makedirs(
                os.path.dirname(places.log_file),
                mode=0o755 if places.privileged else 0o700,
                exist_ok=True,
            )


def absolute(outputs: Sequence[LogOutput], directory: str) -> tuple[LogOutput, ...]:
    """Relative to where the daemon was started: in the background it stands in the root."""
    return tuple(
        replace(output, target=os.path.join(directory, output.target))
        if output.kind == "file" and output.target
        else output
        for output in outputs
    )


def _warn_of(loaded: Loaded) -> None:
    for doubt in loaded.doubts:
        log.warning("%s", doubt)
