"""Reads the rules file, for start, reload and check."""

import os
import stat
from pathlib import Path
from typing import Final

from proxyd.config.grammar import ConfigError
from proxyd.config.settings import Settings
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.rules.grammar import MAX_FILE_BYTES, Parsed, parse_rules
from proxyd.rules.permissions import remarks, unfit
from proxyd.rules.table import RuleTable

_KEY: Final = "proxyd_rules_file"


def rules_path(settings: Settings, directory: str) -> str | None:
    """Where the rules are, if there are any; `directory` is where relative paths start."""
    if settings.proxyd_rules_file is None:
        return None
    return os.path.join(directory, settings.proxyd_rules_file)


def read_rules(path: str) -> Parsed:
    """What a file says, with all its faults. Raises StartFailed where it cannot be read, or where
    anybody could have written it."""
    try:
        with Path(path).open("rb") as file:
            found = os.fstat(file.fileno())
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise StartFailed(
            Exit.FAILED,
            f"cannot load the rules: {path}: {reason}; without them nobody is let in. Write them"
            f" (docs/rules.md), or take {_KEY} out of the configuration",
            key=_KEY,
        ) from error
    if found.st_mode & stat.S_IWOTH:
        raise StartFailed(
            Exit.FAILED,
            f"cannot load the rules: everybody may write {path}; run: chmod o-w {path}",
            key=_KEY,
        )
    text = raw.decode("utf-8", "surrogateescape")
    return parse_rules(text, path, unfit=unfit, remarks=remarks)


def load_rules(settings: Settings, directory: str) -> RuleTable | None:
    """The rules to go by; None where there are none. Raises StartFailed; reads a file."""
    path = rules_path(settings, directory)
    if path is None:
        return None
    parsed = read_rules(path)
    if parsed.faults:
        causes = [(_KEY, unloadable(each)) for each in parsed.faults]
        more = f" (and {len(causes) - 1} more: proxyd rules check {path})" if causes[1:] else ""
        raise StartFailed(Exit.FAILED, f"{causes[0][1]}{more}", key=_KEY, causes=causes)
    return RuleTable(parsed.rules)


def unloadable(fault: ConfigError) -> str:
    """What is said of something in the file that cannot be obeyed."""
    return f"cannot load the rules: {fault}"
