"""The strings that say where log lines go and which are kept: `log_outputs` and `log_filters`.

The same strings come from the configuration, the environment and virt-admin. What they mean and
how they are read back stands in docs/protocol/logging.md, section 3. Whether a filter fits a
category is decided by `globs.matches(filter.pattern, category)`; the first that fits counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal, TypeAlias, get_args

from proxyd.config.globs import matches
from proxyd.config.quoting import excerpt

OutputKind: TypeAlias = Literal["stderr", "journald", "syslog", "file"]


class LogStringError(ValueError):
    """A log string cannot be understood; its text is the reason, in plain words."""


class LogLevel(IntEnum):
    """libvirt's levels; what is logged is one of them and everything above."""

    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4


@dataclass(frozen=True, slots=True)
class LogOutput:
    """One output. `target` is the file's path or the syslog identifier, else None.

    A relative path stays as it was written: who opens the file knows the working directory.
    """

    priority: int
    kind: OutputKind
    target: str | None = None


@dataclass(frozen=True, slots=True)
class LogFilter:
    """One filter; `pattern` is what is compared with categories, stars included."""

    priority: int
    pattern: str


# What our log lines are filed under: words of libvirt's where it has them, for its filters' sake.
CATEGORIES: Final = (
    "daemon.admin",
    "daemon.upgrade",
    "daemon.virtproxyd",
    "proxyd.audit",
    "proxyd.metrics",
    "proxyd.relay",
    "remote.remote_driver",
    "rpc.netsaslcontext",
    "rpc.netserver",
    "rpc.netserverclient",
    "rpc.netserverservice",
    "rpc.netsocket",
    "rpc.nettlscontext",
    "util.gdbus",
)

_WORDS: Final = {level.name.lower(): level for level in LogLevel}
_NUMBERS: Final = {str(level.value): level for level in LogLevel}
_KINDS: Final[tuple[OutputKind, ...]] = get_args(OutputKind)
_TARGETS: Final[dict[OutputKind, str]] = {"syslog": "identifier", "file": "path"}


def parse_level(text: str) -> LogLevel:
    """Read the value of LIBVIRT_DEBUG, the one place where words stand for levels."""
    level = _NUMBERS.get(text) or _WORDS.get(text)
    if level is None:
        raise LogStringError("a level is a number from 1 to 4 or debug, info, warning or error")
    return level


def parse_outputs(text: str) -> tuple[LogOutput, ...]:
    """Read outputs; no item at all gives an empty tuple, which stands for the default output.

    Of two outputs of the same kind and target the later one counts, at its own place.
    """
    outputs: dict[tuple[OutputKind, str | None], LogOutput] = {}
    for item in _items(text):
        output = _output(item)
        identity = (output.kind, output.target)
        outputs.pop(identity, None)
        outputs[identity] = output
    return tuple(outputs.values())


def parse_filters(text: str) -> tuple[LogFilter, ...]:
    """Read filters; no item at all gives an empty tuple, and every category its default level."""
    return tuple(_filter(item) for item in _items(text))


def unheard_filters(filters: Iterable[LogFilter]) -> list[str]:
    """The parts of filters that no category of ours has in it."""
    return [
        kept.pattern.strip("*")
        for kept in filters
        if not any(matches(kept.pattern, category) for category in CATEGORIES)
    ]


def unfed_outputs(
    level: int, filters: Iterable[LogFilter], outputs: Iterable[LogOutput]
) -> list[LogOutput]:
    """The outputs that ask for lines which `level` and the filters let nobody have."""
    lowest = min(level, *(kept.priority for kept in filters), LogLevel.ERROR)
    return [output for output in outputs if output.priority < lowest]


def format_outputs(outputs: Iterable[LogOutput]) -> str:
    """Write outputs as virt-admin shows them; `parse_outputs` reads the same ones back."""
    return " ".join(_format_output(output) for output in outputs)


def format_filters(filters: Iterable[LogFilter]) -> str:
    """Write filters as virt-admin shows them: the stored pattern, and a space behind each.

    That is libvirt's read-back, so reading it again puts more stars around the pattern.
    """
    return "".join(f"{kept.priority:d}:{kept.pattern} " for kept in filters)


def _items(text: str) -> list[str]:
    # Only the space separates: a tab belongs to a path. Runs of spaces leave empty pieces.
    return [item for item in text.split(" ") if item]


def _output(item: str) -> LogOutput:
    level, _, rest = item.partition(":")
    word, *targets = rest.split(":")
    kind = next((known for known in _KINDS if known == word), None)
    if kind is None:
        kinds = ", ".join(_KINDS[:-1])
        wanted = f'an output is a level, ":" and {kinds} or {_KINDS[-1]}'
        raise LogStringError(f"{excerpt(item)}: {wanted}")
    needed = _TARGETS.get(kind)
    if needed is None and targets:
        raise LogStringError(f'{excerpt(item)}: nothing may follow "{kind}"')
    if needed is not None and (len(targets) != 1 or not targets[0]):
        wanted = f'"{kind}:" and one {needed} without ":" must follow the level'
        raise LogStringError(f"{excerpt(item)}: {wanted}")
    return LogOutput(_level(level, item), kind, targets[0] if targets else None)


def _filter(item: str) -> LogFilter:
    level, _, rest = item.partition(":")
    match = rest.split(":")[0].removeprefix("+")  # an old form; files that have it still work
    if not match:
        wanted = 'a filter is a level, ":" and a part of a category'
        raise LogStringError(f"{excerpt(item)}: {wanted}")
    return LogFilter(_level(level, item), f"*{match}*")


def _level(text: str, item: str) -> LogLevel:
    level = _NUMBERS.get(text)
    if level is None:
        wanted = "the level is 1 (debug), 2 (info), 3 (warning) or 4 (error)"
        raise LogStringError(f"{excerpt(item)}: {wanted}")
    return level


def _format_output(output: LogOutput) -> str:
    target = "" if output.target is None else f":{output.target}"
    return f"{output.priority:d}:{output.kind}{target}"
