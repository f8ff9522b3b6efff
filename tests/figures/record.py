"""What was measured, as a document that later measurements are added to, and as a table."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.figures.rows import MEASUREMENTS, ROWS, cells

SCHEMA: Final = "proxyd-figures/1"
BEGIN: Final = "<!-- script/figures writes from here -->"
END: Final = "<!-- to here -->"
HEAD: Final = ("figure", "C virtproxyd 11.3", "proxyd", "goal", "reached")


class NotKept(Exception):
    """A file that is no record, or that the table does not go into; one line that says why."""


@dataclass(slots=True, kw_only=True)
class Taken:
    """One measurement: where, when and how, and the values of each round by the row's name."""

    machine: str  # processors, kernel
    versions: dict[str, str]  # of what is measured, and the commit
    when: str  # ISO 8601, UTC
    quick: bool  # too few calls for figures to be believed
    commands: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # of the load tool's
    values: dict[str, list[float]] = field(default_factory=dict)


Record = dict[str, Taken]  # by the measurement's name


def load(path: Path) -> Record:
    """What an earlier run has kept; nothing, where there is no such file. Raises NotKept."""
    try:
        document = json.loads(path.read_bytes())
        kept = document["measurements"] if document["schema"] == SCHEMA else None
        return {name: Taken(**one) for name, one in kept.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotKept(f"{path} is no record of script/figures: {error!r}") from error


def as_json(record: Record) -> str:
    """The document."""
    measurements = {name: asdict(record[name]) for name in MEASUREMENTS if name in record}
    document = {"schema": SCHEMA, "measurements": measurements}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_markdown(record: Record) -> str:
    """The table, with what it was made on and by above and below it."""
    return "\n".join([*_origin(record), "", *_table(record), "", *_commands(record)]) + "\n"


def update(path: Path, record: Record) -> None:
    """Puts the table between the marks of a document. Raises NotKept."""
    text = path.read_text(encoding="utf-8")
    made = f"{BEGIN}\n\n{as_markdown(record)}\n{END}"
    between = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    changed, places = between.subn(lambda _: made, text)
    if places != 1:
        raise NotKept(f"{path} has {places} places for the table, between {BEGIN} and {END}")
    path.write_text(changed, encoding="utf-8")


def _origin(record: Record) -> Iterator[str]:
    """One line for each machine and build: measurements may come from several runs."""
    groups: dict[str, list[str]] = {}
    for name in MEASUREMENTS:
        if name in record:
            taken = record[name]
            versions = ", ".join(f"{what} {which}" for what, which in taken.versions.items())
            groups.setdefault(f"{taken.machine}; {versions}", []).append(name)
    for place, names in groups.items():
        which = "" if len(groups) == 1 else f"{', '.join(names)}: "
        days = sorted({record[name].when[:10] for name in names})
        yield f"{which}{place}; {' and '.join(days)}."
    if any(taken.quick for taken in record.values()):
        yield "Made with --quick: too few calls for any of it to be believed."


def _table(record: Record) -> Iterator[str]:
    yield _line(HEAD)
    yield _line(["---"] * len(HEAD))
    values: Mapping[str, Any] = {
        name: rounds for taken in record.values() for name, rounds in taken.values.items()
    }
    for row in ROWS:
        told, goal, reached = cells(row, values.get(row.name, []))
        yield _line([row.title, row.c_daemon, told, goal, reached])


def _commands(record: Record) -> Iterator[str]:
    yield _line(["figures", "how"])
    yield _line(["---"] * 2)
    for name in MEASUREMENTS:
        if name in record:
            yield _line([name, "; ".join(f"`{one}`" for one in record[name].commands)])


def _line(texts: Any) -> str:
    return f"| {' | '.join(texts)} |"
