"""Writes proxyd/wire/changes.py from the table of procedures: `generate_changes.py TABLE > FILE`.

tests/wire/test_changes.py holds the committed file to docs/protocol/procedures.tsv.

The rule. A permission is OBJECT:WORD, or OBJECT:WORD:FLAGS where it is asked for only with certain
flags. A call changes something if it always needs one whose word is more than reading: reading is
`getattr`, `read` and `search_…`, which are what libvirt allows on a read-only connection. Such
words as `read_secure`, `data_read` and `screenshot` are more: they give away what a guest or a
secret holds. What is asked for only with certain flags is not looked at: `domain:read_secure`
makes nobody's `dumpxml` a change.

libvirt itself asks too little for one call, which counts all the same (UNDERSTATED).
"""

import csv
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

READING = ("getattr", "read", "none")
SEARCHING = "search_"
UNDERSTATED = ("DOMAIN_SET_SCHEDULER_PARAMETERS",)  # domain:read, for a setter
PROGRAMS = ("REMOTE", "QEMU", "LXC")

# The table's words for first arguments, and libvirt's for these objects in its permissions.
KINDS = {
    "domain": "domain",
    "network": "network",
    "pool": "storage_pool",
    "volume": "storage_vol",
    "snapshot": "snapshot",
    "checkpoint": "checkpoint",
    "interface": "interface",
    "secret": "secret",
    "port": "network_port",
    "nwfilter": "nwfilter",
    "nwfilterbinding": "nwfilter_binding",
}
NAMES = ("string:name", "string:dname")
DESCRIPTIONS = ("string:xml", "string:xml_desc")

HEAD = '''"""Calls that change something, and what calls name: by script/generate_changes.py.

Source: docs/protocol/procedures.tsv. The rule stands in the script.
"""

from typing import Final

from proxyd.wire.objects import Where
from proxyd.wire.programs import Program

'''


def changes(row: Mapping[str, str]) -> bool:
    """Whether a call changes something."""
    words = [each.split(":") for each in row["permissions"].split()]
    always = [each[1] for each in words if len(each) == 2]
    more = any(word not in READING and not word.startswith(SEARCHING) for word in always)
    return more or row["name"] in UNDERSTATED


def names(row: Mapping[str, str]) -> tuple[str, str] | None:
    """Which kind of object a call names, and where."""
    first, subject = row["first"], row["permissions"].split()[0].partition(":")[0]
    if first in KINDS:
        return KINDS[first], "ARGUMENT"
    if subject == "connect":
        return None
    if first in NAMES:
        return subject, "NAME"
    return (subject, "REPLY") if first in DESCRIPTIONS and changes(row) else None


def table(path: Path) -> list[Mapping[str, str]]:
    """The calls."""
    with path.open(newline="") as text:
        return [row for row in csv.DictReader(text, delimiter="\t") if row["kind"] == "call"]


def render(rows: Iterable[Mapping[str, str]]) -> str:
    rows = list(rows)
    parts = [HEAD]
    for program in PROGRAMS:
        own = [row for row in rows if row["program"] == program]
        parts.append(f"_{program}_CHANGES: Final = frozenset(\n    {{\n")
        parts += [f"        {row['number']},  # {row['name']}\n" for row in own if changes(row)]
        parts.append("    }\n)\n")
        parts.append(f"\n_{program}_NAMED: Final = {{\n")
        for row in own:
            found = names(row)
            if found is not None:
                kind, where = found
                parts.append(f'    {row["number"]}: ("{kind}", Where.{where}),\n')
        parts.append("}\n\n")
    parts.append("CHANGES: Final[dict[int, frozenset[int]]] = {\n")
    parts += [f"    Program.{each}: _{each}_CHANGES,\n" for each in PROGRAMS]
    parts.append("}\n\nNAMED: Final[dict[int, dict[int, tuple[str, Where]]]] = {\n")
    parts += [f"    Program.{each}: _{each}_NAMED,\n" for each in PROGRAMS]
    return "".join([*parts, "}\n"])


if __name__ == "__main__":
    sys.stdout.write(render(table(Path(sys.argv[1]))))
