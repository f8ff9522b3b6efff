"""proxyd rules check: faults, doubts, and what the file says."""

import argparse
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from proxyd.cli.parser import complain
from proxyd.cli.rules_file import RulesFile, add_file, rules_file
from proxyd.config.grammar import ConfigError
from proxyd.config.quoting import one_line
from proxyd.config.sources import Doubt
from proxyd.daemon.places import Places
from proxyd.process.exit_status import StartFailed
from proxyd.process.health import Health
from proxyd.rules.doubts import doubts_of
from proxyd.rules.grammar import Parsed
from proxyd.rules.words import summary

EPILOG: Final = """\
examples:
  proxyd rules check                      the file that proxyd_rules_file names
  proxyd rules check ./new-rules.conf     one that is not in force yet

Faults are what cannot be obeyed: such a file is never in force, at a reload the rules before it go
on. Doubts are lines that never decide, have ended, or name who is not known on this host.

exit status: 0 all is well; 1 doubts; 2 faults; 3 it cannot be said, as where there is no file.
             Monitoring plugins have the same codes.
"""


def add_arguments(parser: argparse.ArgumentParser, places: Places) -> None:
    add_file(parser, places)
    parser.add_argument("--json", action="store_true", help="print it for machines")


def act(arguments: argparse.Namespace, places: Places) -> int:
    """Prints; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may be in no encoding
    try:
        found = rules_file(arguments, places)
    except StartFailed as error:
        complain(str(error))
        return Health.UNKNOWN
    parsed = found.parsed
    doubts = _doubts(found)
    if arguments.json:
        print(_as_json(parsed, doubts))
    else:
        for doubt in doubts:
            complain(f"warning: {doubt}")
        complain_of_faults(parsed.faults)
        for line in _lines(parsed):
            print(line)
    if parsed.faults:
        return Health.CRITICAL
    return Health.WARNING if doubts else Health.OK


def complain_of_faults(faults: Sequence[ConfigError]) -> None:
    for fault in faults:
        complain(str(fault))


def _doubts(found: RulesFile) -> tuple[Doubt, ...]:
    return doubts_of(found.parsed, time.time(), found.house)


def _lines(parsed: Parsed) -> Iterator[str]:
    head = f"{one_line(parsed.path)}: {_count(len(parsed.rules), 'rule')}"
    if parsed.sets:
        head += f", {_count(len(parsed.sets), 'set')}"
    if parsed.faults:
        yield f"{head}, {_count(len(parsed.faults), 'fault')}: such a file is not put in force"
        return
    yield head
    for each in summary(parsed.rules):
        yield f"  {each}"


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _as_json(parsed: Parsed, doubts: Sequence[Doubt]) -> str:
    document = {
        "path": parsed.path,
        "fine": not parsed.faults,
        "rules": len(parsed.rules),
        "sets": {known.name: list(known.words) for known in parsed.sets.values()},
        "summary": list(summary(parsed.rules)) if not parsed.faults else [],
        "faults": [
            {**_place(fault), "key": fault.key, "expected": fault.expected}
            for fault in parsed.faults
        ],
        "doubts": [{**_place(doubt), "key": doubt.key, "text": doubt.text} for doubt in doubts],
    }
    return json.dumps(document, indent=2)


def _place(said: ConfigError | Doubt) -> dict[str, str | int]:
    return {"path": said.path, "line": said.line, "column": said.column}
