"""Writes proxyd/wire/permissions.py from the table of procedures: `generate_permissions.py TABLE`.

tests/wire/test_permissions.py holds the committed file to docs/protocol/procedures.tsv.

A permission is OBJECT:WORD where libvirt always asks for it. Where it asks for it with certain
flags only, the flags stand behind a second colon: with all of them it is asked for, or, behind a
`!`, with none of them. Behind a third colon it is an argument of that name that has to be equal.
"""

import csv
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

PROGRAMS = ("REMOTE", "QEMU", "LXC")

# The values of libvirt's public headers.
VALUES = {
    "VIR_DOMAIN_AFFECT_LIVE": 1,
    "VIR_DOMAIN_AFFECT_CONFIG": 2,
    "VIR_DOMAIN_CHECKPOINT_CREATE_QUIESCE": 2,
    "VIR_DOMAIN_CHECKPOINT_XML_SECURE": 1,
    "VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT": 1,
    "VIR_DOMAIN_REBOOT_GUEST_AGENT": 2,
    "VIR_DOMAIN_SAVE_IMAGE_XML_SECURE": 1,
    "VIR_DOMAIN_SHUTDOWN_GUEST_AGENT": 2,
    "VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE": 64,
    "VIR_DOMAIN_SNAPSHOT_XML_SECURE": 1,
    "VIR_DOMAIN_VCPU_GUEST": 8,
    "VIR_DOMAIN_XML_MIGRATABLE": 8,
    "VIR_DOMAIN_XML_SECURE": 1,
    "VIR_NETWORK_UPDATE_AFFECT_CONFIG": 2,
    "VIR_NETWORK_UPDATE_AFFECT_LIVE": 1,
    "VIR_NODE_DEVICE_UPDATE_AFFECT_CONFIG": 2,
    "VIR_NODE_DEVICE_UPDATE_AFFECT_LIVE": 1,
}

HEAD = '''"""What libvirt's access control asks for: by script/generate_permissions.py, not by hand.

Source: docs/protocol/procedures.tsv. A permission is OBJECT:WORD.
"""

from typing import Final, NamedTuple

from proxyd.wire.programs import Program


class Asked(NamedTuple):
    """A permission that is asked for with certain flags only: `unless` they have one of `flags`,
    or if they have all of them. Which word of a call they are is in flags.py.
    """

    permission: str
    flags: int
    unless: bool = False


'''

MIDDLE = """
# What is always asked for, by number: nothing for (), and None is no call: an event, or no number.
ALWAYS: Final[dict[int, tuple[tuple[str, ...] | None, ...]]] = {
"""

END = """
# What is asked for besides, by number.
SOMETIMES: Final[dict[int, dict[int, tuple[Asked, ...]]]] = {
"""


def always(row: Mapping[str, str]) -> tuple[str, ...] | None:
    """What a call needs whatever its flags; None where it can never be made."""
    if row["kind"] != "call":
        return None
    words = row["permissions"].split()
    return tuple(each for each in words if each.count(":") == 1)


def sometimes(row: Mapping[str, str]) -> list[tuple[str, int, bool]]:
    """What it needs besides: with the flags, or with none of them."""
    found = []
    for each in row["permissions"].split():
        if each.count(":") < 2:
            continue
        kind, word, *_, flags = each.split(":")
        value = 0
        for name in flags.removeprefix("!").split("|"):
            value |= VALUES[name]
        found.append((f"{kind}:{word}", value, flags.startswith("!")))
    return found


def quoted(words: tuple[str, ...] | None) -> str:
    if words is None:
        return "None"
    inner = ", ".join(f'"{each}"' for each in words)
    return f"({inner},)" if len(words) == 1 else f"({inner})"


def table(path: Path) -> list[Mapping[str, str]]:
    """The procedures of the programs that a client may call."""
    with path.open(newline="") as text:
        rows = csv.DictReader(text, delimiter="\t")
        return [row for row in rows if row["program"] in PROGRAMS]


def render(rows: Iterable[Mapping[str, str]]) -> str:
    rows = list(rows)
    parts = [HEAD]
    for program in PROGRAMS:
        own = {int(row["number"]): row for row in rows if row["program"] == program}
        # One constant of the module: equal tuples in it are one object.
        parts.append(f"_{program}: Final = (\n    None,\n")
        for number in range(1, max(own) + 1):
            row = own.get(number)
            name = "" if row is None else f"  # {row['name']}"
            words = None if row is None else always(row)
            parts.append(f"    {quoted(words)},{name}\n")
        parts.append(")\n\n")
    parts.append("_AT_TIMES: Final = {\n")
    for row in rows:
        asked = sometimes(row)
        if not asked:
            continue
        if row["program"] != "REMOTE":
            raise ValueError(f"{row['program']} {row['name']} asks for more with some flags")
        parts.append(f"    {row['number']}: (  # {row['name']}\n")
        for permission, flags, unless in asked:
            last = ", unless=True" if unless else ""
            parts.append(f'        Asked("{permission}", {flags}{last}),\n')
        parts.append("    ),\n")
    parts += ["}\n", MIDDLE]
    parts += [f"    Program.{each}: _{each},\n" for each in PROGRAMS]
    parts += ["}\n", END, "    Program.REMOTE: _AT_TIMES,\n}\n"]
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(render(table(Path(sys.argv[1]))))
