"""From settings to what is recorded, and where that goes."""

import os

import trio

from proxyd.audit.outputs import AuditOutputError, Output
from proxyd.audit.writer import Audit
from proxyd.config.auditing import AuditOutput, parse_audit_output
from proxyd.config.logstrings import parse_outputs
from proxyd.config.settings import Settings
from proxyd.config.sources import Loaded
from proxyd.daemon.in_force import Options
from proxyd.daemon.log_settings import absolute
from proxyd.daemon.places import Places
from proxyd.log.journal import journal_is_available
from proxyd.process.exit_status import Exit, StartFailed

FILE_NAME = "virtproxyd-audit.log"


class AuditSettings:
    """What the configuration says of the audit, put in force at the start and at each reload."""

    def __init__(self, audit: Audit, options: Options) -> None:
        self.audit = audit
        self._options = options

    def start(self, loaded: Loaded) -> None:
        """Before the loop runs. Raises StartFailed."""
        self.put_in_force(loaded, self._opened(loaded))

    async def opened(self, loaded: Loaded) -> Output | None:
        """The output that a configuration asks for, to be put in force. Raises StartFailed."""
        return await trio.to_thread.run_sync(self._opened, loaded)

    def put_in_force(self, loaded: Loaded, output: Output | None) -> None:
        """Never fails."""
        settings = loaded.settings
        self.audit.put_in_force(
            settings.proxyd_audit,
            asked_output(settings, self._options.places, self._options.directory),
            output,
            required=settings.proxyd_audit_required,
        )

    def _opened(self, loaded: Loaded) -> Output | None:
        settings = loaded.settings
        if not settings.proxyd_audit:
            return None
        asked = asked_output(settings, self._options.places, self._options.directory)
        try:
            if asked.target == _beside(self._options.places.log_file):
                _make_directory(os.path.dirname(asked.target))
            # By default nobody has asked for a file: that there is none is an alarm, and no more.
            return self.audit.opened(asked, named=settings.proxyd_audit_output is not None)
        except AuditOutputError as error:
            text = f"cannot record: {error}"
            raise StartFailed(Exit.FAILED, text, key="proxyd_audit_output") from error


def asked_output(settings: Settings, places: Places, directory: str) -> AuditOutput:
    """Unset: the journal where there is one, or else a file beside the log."""
    if settings.proxyd_audit_output:
        return parse_audit_output(settings.proxyd_audit_output)
    if journal_is_available():
        return AuditOutput("journald")
    outputs = absolute(parse_outputs(settings.log_outputs or ""), directory)
    files = [each.target for each in outputs if each.kind == "file" and each.target]
    beside = files[0] if files else places.log_file
    return AuditOutput("file", _beside(beside))


def _beside(path: str) -> str:
    return os.path.join(os.path.dirname(path), FILE_NAME)


def _make_directory(path: str) -> None:
    """What cannot be made is said when the file is opened."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError:
        return
