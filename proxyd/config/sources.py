"""The file's text, the environment and the option -v put together: what is in force, and why.

Precedence follows docs/protocol/logging.md, section 1: -v over environment over file. A reload
calls `load` and its companions again and swaps the result whole, so a file with an error changes
nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

from proxyd.config import checks
from proxyd.config.agreement import clashes, clashes_of
from proxyd.config.grammar import ConfigError, Entry, parse_all
from proxyd.config.kinds import Unfit
from proxyd.config.logstrings import (
    CATEGORIES,
    LogLevel,
    LogStringError,
    parse_filters,
    parse_level,
    parse_outputs,
    unfed_outputs,
    unheard_filters,
)
from proxyd.config.quoting import excerpt
from proxyd.config.settings import SPECS, Settings, resolve
from proxyd.config.transports import BY_NETWORK

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
    is_ignored: bool = False  # a key that has no effect here, and may stay

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        return f"{where}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The settings in force, where each came from, and what would be in force with no file.

    An origin is "default", "FILE:LINE", "environment NAME" or "option -v". `places` has where in
    the file, "FILE:LINE:COLUMN", the values stand that come from there.
    """

    settings: Settings
    doubts: tuple[Doubt, ...]
    origins: Mapping[str, str]
    defaults: Settings
    places: Mapping[str, str]

    @property
    def changed(self) -> list[str]:
        """The keys that were set, to something else than their defaults."""
        return [
            key
            for key, origin in self.origins.items()
            if origin != DEFAULT_ORIGIN
            and getattr(self.settings, key) != getattr(self.defaults, key)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What a file says, and everything in it that cannot be obeyed, whose keys have defaults."""

    loaded: Loaded
    faults: tuple[ConfigError, ...]


def load(text: str, path: str, *, privileged: bool) -> Loaded:
    """Read a configuration file's text; a missing default file is the empty text.

    A key that has no effect is a doubt if it asks for something else than its default, and so is a
    value that would not do if anybody read it.

    Raises ConfigError with line and column for the first thing that cannot be obeyed.
    """
    examined = examine(text, path, privileged=privileged)
    if examined.faults:
        raise examined.faults[0]
    return examined.loaded


def examine(text: str, path: str, *, privileged: bool) -> Examined:
    """The same for whoever wants to know of every fault. First come those of the syntax."""
    entries, faults = parse_all(text, path)
    known, doubts = _sort_out(entries, path)
    values: dict[str, Any] = {}
    for key, entry in known.items():
        try:
            values[key] = _setting(entry, path)
        except ConfigError as error:
            faults.append(error)
    settings = resolve(values, privileged=privileged)
    for clash in clashes(settings, known.keys()):
        if clash.key in values:
            value = known[clash.key].value
            faults.append(ConfigError(path, value.line, value.column, clash.expected, clash.key))
    origins = dict.fromkeys(SPECS, DEFAULT_ORIGIN)
    origins |= {key: f"{path}:{entry.line}" for key, entry in known.items()}
    loaded = Loaded(
        settings=settings,
        doubts=(),
        origins=origins,
        defaults=resolve({}, privileged=privileged),
        places={
            key: f"{path}:{entry.value.line}:{entry.value.column}" for key, entry in known.items()
        },
    )
    for entry, words in _of_no_effect(loaded, known):
        doubts.append(Doubt(path, entry.line, entry.column, entry.key, words, is_ignored=True))
    doubts.sort(key=lambda each: (each.line, each.column))
    return Examined(loaded=replace(loaded, doubts=tuple(doubts)), faults=tuple(faults))


def _of_no_effect(loaded: Loaded, entries: Mapping[str, Entry]) -> Iterator[tuple[Entry, str]]:
    """What is passed over, with reasons."""
    for key in loaded.changed:
        if why := SPECS[key].effect.why_not:
            yield entries[key], f"{key} has no effect here: {why}"
    for key, entry in entries.items():
        if SPECS[key].use.empty_is_unset and entry.value.content == "":
            yield entry, f"{key} is empty, which counts as unset"
    told = set()
    off = [each for each in BY_NETWORK if not getattr(loaded.settings, each.traits.listen)]
    for transport in off:
        for clash in clashes_of(loaded.settings, transport):
            switches = SPECS[clash.key].use.switches
            if clash.key not in told and not any(getattr(loaded.settings, key) for key in switches):
                told.add(clash.key)
                words = (
                    f"expected {clash.expected}; it does not matter as long as"
                    f" {transport.traits.listen} = 0"
                )
                yield entries[clash.key], words


def with_environment(loaded: Loaded, environ: Mapping[str, str]) -> Loaded:
    """Let libvirt's logging variables override the file (docs/protocol/process.md, section 4).

    A variable that is empty counts as unset; one that makes no sense raises ConfigError.
    """
    examined = examine_environment(loaded, environ)
    if examined.faults:
        raise examined.faults[0]
    return examined.loaded


def examine_environment(loaded: Loaded, environ: Mapping[str, str]) -> Examined:
    """The same for whoever wants to know of every fault."""
    faults = []
    for name, (key, read) in _VARIABLES.items():
        text = environ.get(name, "")
        if not text:
            continue
        try:
            loaded = _override(loaded, key, read(name, text), f"environment {name}")
        except ConfigError as error:
            faults.append(error)
    return Examined(loaded=loaded, faults=tuple(faults))


def with_verbose(loaded: Loaded) -> Loaded:
    """Log at least everything from the level of information on, whatever else was said."""
    if (loaded.settings.log_level or LogLevel.WARNING) <= LogLevel.INFO:
        return loaded
    return _override(loaded, "log_level", int(LogLevel.INFO), VERBOSE_ORIGIN)


def with_doubts_of_logging(loaded: Loaded) -> Loaded:
    """Once it is known what counts: says of what is asked for in the log that nothing comes of."""
    settings = loaded.settings
    filters = parse_filters(settings.log_filters or "")
    texts = {}
    if unheard := unheard_filters(filters):
        parts = " or ".join(map(excerpt, unheard))
        texts["log_filters"] = (
            f"log_filters: no line of proxyd's has a category with {parts} in it; its categories"
            f" are {', '.join(CATEGORIES)}"
        )
    level = settings.log_level or LogLevel.WARNING
    unfed = unfed_outputs(level, filters, parse_outputs(settings.log_outputs or ""))
    if unfed:
        lowest = min(output.priority for output in unfed)
        texts["log_outputs"] = (
            f"log_outputs asks for level {lowest}, and log_level lets through {level} and above"
            f" alone: set log_level = {lowest} for it"
        )
    doubts = [*loaded.doubts]
    for key, text in texts.items():
        path, line, column = loaded.places.get(key, f"{loaded.origins[key]}:0:0").rsplit(":", 2)
        doubts.append(Doubt(path, int(line), int(column), key, text, is_ignored=True))
    doubts.sort(key=lambda each: (each.line, each.column))
    return replace(loaded, doubts=tuple(doubts))


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
        raise ConfigError(path, unfit.line, unfit.column, expected, entry.key) from unfit


def _override(loaded: Loaded, key: str, setting: int | str, origin: str) -> Loaded:
    changed: dict[str, Any] = {key: setting}
    return replace(
        loaded,
        settings=replace(loaded.settings, **changed),
        origins={**loaded.origins, key: origin},
        places={name: place for name, place in loaded.places.items() if name != key},
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
