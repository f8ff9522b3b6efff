"""What is in force and where it came from: the output of `proxyd --check-config`.

The table for people is itself a configuration file: put into one, it gives the same settings
again. What a file cannot say stands in it as a comment: a key that is unset, and the default of
tcp_min_ssf, which libvirt's rules let nobody write (docs/protocol/configuration.md, section 1).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from proxyd.config.grammar import Content, render
from proxyd.config.kinds import When
from proxyd.config.quoting import excerpt, one_line
from proxyd.config.settings import SPECS, Settings
from proxyd.config.sources import DEFAULT_ORIGIN, Loaded

_WIDEST_ALIGNED_VALUE: Final = 40  # one long list must not push every origin off the screen


@dataclass(frozen=True, slots=True)
class _Line:
    key: str  # with a # in front where the line is only a comment
    value: str
    origin: str
    differs: bool


def report(loaded: Loaded) -> str:
    """Return the table: first what the file, the environment or an option said, then the rest."""
    lines = list(_lines(loaded))
    key_width = max(len(line.key) for line in lines)
    value_width = min(max(len(line.value) for line in lines), _WIDEST_ALIGNED_VALUE)

    def rows(differing: bool) -> list[str]:
        return [
            f"{line.key:{key_width}} = {line.value:{value_width}}  # {line.origin}"
            for line in lines
            if line.differs == differing
        ]

    first = rows(differing=True)
    title = "# Set, or changed by something that is set:" if first else "# Nothing is set."
    return "\n".join([title, *first, "", "# As by default:", *rows(differing=False), ""])


def report_json(loaded: Loaded, faults: Sequence[Any] = ()) -> str:
    """Return the same for programs, values as the file would have them, null for unset.

    `takes_effect` is "reload", "start" or "never"; why never, is among the doubts. `faults` are
    dataclasses: what a start would meet with these settings.
    """
    settings = {
        key: {
            "value": _json_value(loaded.settings, key),
            "origin": loaded.origins[key],
            "takes_effect": spec.effect.when,
        }
        for key, spec in SPECS.items()
    }
    doubts = [asdict(doubt) for doubt in loaded.doubts]
    told = {"settings": settings, "doubts": doubts, "faults": [asdict(each) for each in faults]}
    return json.dumps(told, indent=2) + "\n"


def _lines(loaded: Loaded) -> Iterator[_Line]:
    for key, spec in SPECS.items():
        setting = getattr(loaded.settings, key)
        changed = setting != getattr(loaded.defaults, key)
        origin = loaded.origins[key]
        value = _written(spec.content(setting))
        is_set = origin != DEFAULT_ORIGIN
        where = one_line(origin)
        if is_set and not changed:
            where += " (the default)"
        elif changed and not is_set:
            where += " (follows another key)"
        if spec.effect.when is When.NEVER:
            where += " (no effect here)"
        yield _Line(
            key if value is not None else f"#{key}",
            value if value is not None else _unwritable(setting),
            where,
            differs=changed or is_set,
        )


def _written(content: Content | None) -> str | None:
    if content is None:
        return None
    try:
        return render(content)
    except ValueError:  # only the environment brings a string that no quotes of the file can hold
        return None


def _unwritable(setting: Any) -> str:
    if setting is None:
        return "unset"
    return excerpt(setting) if isinstance(setting, str) else str(setting)


def _json_value(settings: Settings, key: str) -> Content | None:
    setting = getattr(settings, key)
    return None if setting is None else SPECS[key].kind.content(setting)
