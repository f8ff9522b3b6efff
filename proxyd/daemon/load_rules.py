"""Reads the rules file, for start, reload and check."""

import os
import stat
from typing import Final

from proxyd.config.grammar import ConfigError
from proxyd.config.settings import Settings
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.rules.grammar import MAX_FILE_BYTES, Parsed, parse_rules
from proxyd.rules.permissions import remarks, unfit
from proxyd.rules.table import RuleTable

_KEY: Final = "proxyd_rules_file"


def rules_of(settings: Settings) -> Parsed | None:
    """The rules that the settings name, None for no rules. Raises StartFailed; may block."""
    path = settings.proxyd_rules_file
    return None if path is None else read_rules(path)


def read_rules(path: str, *, piped: bool = False) -> Parsed:
    """What a file says, with all its faults. Raises StartFailed where it cannot be read, or where
    anybody could have written it.

    `piped`: it may be no regular file as well, which is read for as long as that takes.
    """
    try:
        with open(path, "rb", opener=None if piped else _open_at_once) as file:
            found = os.fstat(file.fileno())
            if not (piped or stat.S_ISREG(found.st_mode)):
                raise StartFailed(
                    Exit.FAILED,
                    f"cannot load the rules: {path} is not a regular file; name another one in"
                    f" {_KEY}",
                    key=_KEY,
                )
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise StartFailed(
            Exit.FAILED,
            f"cannot load the rules: {path}: {reason}; mend that, or name another file in {_KEY}",
            key=_KEY,
        ) from error
    if stat.S_ISREG(found.st_mode) and found.st_mode & stat.S_IWOTH:
        raise StartFailed(
            Exit.FAILED,
            f"cannot load the rules: everybody may write {path}; run: chmod o-w {path}",
            key=_KEY,
        )
    text = raw.decode("utf-8", "surrogateescape")
    return parse_rules(text, path, unfit=unfit, remarks=remarks)


def _open_at_once(path: str, flags: int) -> int:
    """A pipe that nobody writes to would hold up a reload, and with it all later ones."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def load_rules(settings: Settings) -> RuleTable | None:
    """The rules to go by; None where there are none. Raises StartFailed; may block."""
    parsed = rules_of(settings)
    if parsed is None:
        return None
    if parsed.faults:
        causes = [(_KEY, unloadable(each)) for each in parsed.faults]
        count = len(causes) - 1
        more = f" (and {count} more: proxyd rules check {parsed.path})" if count else ""
        raise StartFailed(Exit.FAILED, f"{causes[0][1]}{more}", key=_KEY, causes=causes)
    return RuleTable(parsed.rules)


def unloadable(fault: ConfigError) -> str:
    """What is said of something in the file that cannot be obeyed."""
    return f"cannot load the rules: {fault}"
