"""The file's text, the environment and the option -v put together: what is in force, and why.

Precedence follows reference/config.md section 9: -v over environment over file. A reload calls
`load` and its companions again and swaps the result whole, so a file with an error changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

from proxyd.config import checks
from proxyd.config.agreement import first_clash
from proxyd.config.grammar import ConfigError, Entry, parse
from proxyd.config.kinds import Unfit
from proxyd.config.logstrings import LogLevel, LogStringError, parse_level
from proxyd.config.quoting import excerpt
from proxyd.config.settings import SPECS, Settings, resolve

DEFAULT_ORIGIN: Final = "default"
VERBOSE_ORIGIN: Final = "option -v"

# Finding the nearest name costs about a millisecond. Beyond these it is no slip of the fingers.
_LONGEST_SLIP: Final = 40
_MOST_SLIPS: Final = 20


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something in the file that is obeyed or skipped, and yet is hardly what was meant."""

    path: str
    line: int
    column: int
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The settings in force, where each came from, and what would be in force with no file.

    An origin is "default", "FILE:LINE", "environment NAME" or "option -v".
    """

    settings: Settings
    doubts: tuple[Doubt, ...]
    origins: Mapping[str, str]
    defaults: Settings


def load(text: str, path: str, *, privileged: bool) -> Loaded:
    """Read a configuration file's text; a missing default file is the empty text.

    Raises ConfigError with line and column for the first thing that cannot be obeyed.
    """
    entries, doubts = _sort_out(parse(text, path), path)
    values = {key: _setting(entry, path) for key, entry in entries.items()}
    settings = resolve(values, privileged=privileged)
    clash = first_clash(settings, entries.keys())
    if clash is not None:
        value = entries[clash.key].value
        raise ConfigError(path, value.line, value.column, clash.expected)
    origins = dict.fromkeys(SPECS, DEFAULT_ORIGIN)
    origins |= {key: f"{path}:{entry.line}" for key, entry in entries.items()}
    return Loaded(
        settings=settings,
        doubts=tuple(doubts),
        origins=origins,
        defaults=resolve({}, privileged=privileged),
    )


def with_environment(loaded: Loaded, environ: Mapping[str, str]) -> Loaded:
    """Let libvirt's logging variables override the file (config.md section 5).

    A variable that is empty counts as unset; one that makes no sense raises ConfigError.
    """
    for name, (key, read) in _VARIABLES.items():
        text = environ.get(name, "")
        if text:
            loaded = _override(loaded, key, read(name, text), f"environment {name}")
    return loaded


def with_verbose(loaded: Loaded) -> Loaded:
    """Log at least everything from the level of information on, whatever else was said."""
    if (loaded.settings.log_level or LogLevel.WARNING) <= LogLevel.INFO:
        return loaded
    return _override(loaded, "log_level", int(LogLevel.INFO), VERBOSE_ORIGIN)


def _sort_out(entries: list[Entry], path: str) -> tuple[dict[str, Entry], list[Doubt]]:
    """Part what counts from unknown and repeated keys, which libvirt passes over in silence."""
    known: dict[str, Entry] = {}
    doubts: list[Doubt] = []
    slips = 0
    for entry in entries:
        if entry.key not in SPECS:
            slips += 1
            text = f"unknown key {excerpt(entry.key)}{_nearest(entry.key, slips)}"
        elif entry.key in known:
            first = known[entry.key].line
            text = f'"{entry.key}" is here again: the one in line {first} counts'
        else:
            known[entry.key] = entry
            continue
        doubts.append(Doubt(path, entry.line, entry.column, entry.key, text))
    return known, doubts


def _nearest(key: str, slips: int) -> str:
    if len(key) > _LONGEST_SLIP or slips > _MOST_SLIPS:
        return ""
    names = get_close_matches(key, SPECS, n=1)
    return f' (did you mean "{names[0]}"?)' if names else ""


def _setting(entry: Entry, path: str) -> Any:
    try:
        return SPECS[entry.key].read(entry.value)
    except Unfit as unfit:
        expected = f"{entry.key} {unfit.expected}"
        raise ConfigError(path, unfit.line, unfit.column, expected) from unfit


def _override(loaded: Loaded, key: str, setting: int | str, origin: str) -> Loaded:
    changed: dict[str, Any] = {key: setting}
    return replace(
        loaded,
        settings=replace(loaded.settings, **changed),
        origins={**loaded.origins, key: origin},
    )


def _level_variable(name: str, text: str) -> int:
    try:
        return int(parse_level(text))
    except LogStringError as error:
        expected = f"a log level: {error}, not {excerpt(text)}"
        raise ConfigError(f"environment {name}", 0, 0, expected) from error


def _text_variable(check: checks.TextCheck) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        expected = check(text)
        if expected is not None:
            raise ConfigError(f"environment {name}", 0, 0, f"{expected}, not {excerpt(text)}")
        return text

    return read


_VARIABLES: Final[Mapping[str, tuple[str, Callable[[str, str], int | str]]]] = {
    "LIBVIRT_DEBUG": ("log_level", _level_variable),
    "LIBVIRT_LOG_FILTERS": ("log_filters", _text_variable(checks.log_filters)),
    "LIBVIRT_LOG_OUTPUTS": ("log_outputs", _text_variable(checks.log_outputs)),
}
