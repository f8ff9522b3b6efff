"""The table of procedures, as rows."""

import csv
from dataclasses import dataclass
from pathlib import Path

from proxyd.wire.programs import Program

TABLE = Path(__file__).parents[2] / "docs" / "protocol" / "procedures.tsv"


@dataclass(frozen=True, slots=True)
class Procedure:
    program: Program
    number: int
    name: str
    kind: str


def procedures():
    with TABLE.open(newline="") as text:
        return [
            Procedure(Program[row["program"]], int(row["number"]), row["name"], row["kind"])
            for row in csv.DictReader(text, delimiter="\t")
        ]
