"""The command line of script/figures."""

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Final

from proxyd.tls.tickets import load_openssl

load_openssl()  # before anybody else does: it has to be done in a certain way

from cryptography.hazmat.backends.openssl import backend as openssl  # noqa: E402

from loadtest.failures import TargetFailure  # noqa: E402
from loadtest.machine import this_machine  # noqa: E402
from tests.bed import versions  # noqa: E402
from tests.figures.measurements import (  # noqa: E402
    BY_NAME,
    CHECKOUT,
    QUICK,
    Amounts,
    NotMeasured,
    Tool,
)
from tests.figures.record import (  # noqa: E402
    NotKept,
    Record,
    Taken,
    as_json,
    as_markdown,
    load,
    update,
)
from tests.figures.rows import MEASUREMENTS, ROWS, cells  # noqa: E402
from tests.figures.stage import Stage, stage  # noqa: E402

# Of the load tool, of daemons that do not start, of what is waited for.
FAILURES: Final = (NotMeasured, TargetFailure, ChildProcessError, TimeoutError, TimeoutExpired)
DOCUMENT: Final = CHECKOUT / "docs/performance.md"


def main(arguments: list[str]) -> int:
    """0, or 1 after a line about each that could not be measured or kept."""
    asked = command_line().parse_args(arguments)
    if asked.quick and asked.update:
        command_line().error("--quick makes no figures for a document")
    if asked.update and asked.only is not None and asked.into is None:
        command_line().error("--update with --only takes the others' figures from --into FILE")
    try:
        record = load(asked.into) if asked.into else {}
        failed = measure(asked, record)
        if asked.update and not failed:
            update(DOCUMENT, record)
        print(as_markdown(record), end="")
    except (NotKept, OSError) as error:
        say(f"script/figures: {error}")
        return 1
    return 1 if failed else 0


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="script/figures",
        description="Measures the figures of docs/performance.md and prints their table. Give the"
        " machine to it alone. All of it takes some six minutes; with --only and --into it can be"
        " done in parts. FILE is a path from the top of the checkout, and lies below that.",
    )
    add = parser.add_argument
    add(
        "--only",
        nargs="*",
        choices=MEASUREMENTS,
        metavar="NAME",
        help=f"measure these, or, with no NAME, nothing: {', '.join(MEASUREMENTS)}",
    )
    add("--rounds", type=int, metavar="N", help="of each (default 3)")
    add("--quick", action="store_true", help="few calls: whether all of it works, no figures")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--json", type=Path, metavar="FILE", help="keep what was measured")
    kept.add_argument(
        "--into", type=Path, metavar="FILE", help="likewise, and what is there already stays"
    )
    add("--update", action="store_true", help="write the table into docs/performance.md")
    return parser


def measure(asked: argparse.Namespace, record: Record) -> list[str]:
    """Adds what was asked for, in the order of the table, and keeps it; returns what failed."""
    amounts = QUICK if asked.quick else Amounts()
    if asked.rounds:
        amounts = replace(amounts, rounds=asked.rounds)
    names = [name for name in MEASUREMENTS if asked.only is None or name in asked.only]
    failed = []
    with room(), stage() as made:
        for name in names:
            try:
                record[name] = take(name, made, amounts, quick=asked.quick)
            except FAILURES as error:
                say(f"script/figures: {name}: {error}", *getattr(error, "__notes__", ()))
                failed.append(name)
            if path := asked.into or asked.json:
                path.write_text(as_json(record), encoding="utf-8")
    return failed


@contextmanager
def room() -> Iterator[None]:
    """Descriptors for a thousand sessions, here and in the daemons that are started."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def take(name: str, made: Stage, amounts: Amounts, *, quick: bool) -> Taken:
    """One measurement, told on stderr."""
    machine, tool = this_machine([]), Tool()
    began, when = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    say(f"{name} …")
    values = BY_NAME[name](made, amounts, tool)
    say(f"{name}: {time.monotonic() - began:.0f} s")
    for row in ROWS:
        if row.name in values:
            say(f"  {row.title}: {cells(row, values[row.name])[0]}")
    for note in tool.notes:
        say(f"  NOTE {note}")
    return Taken(
        machine=f"{machine.cores} × {machine.cpu_model}, {machine.kernel}",
        versions=_versions(machine.commit),
        when=when,
        quick=quick,
        commands=tool.commands,
        notes=tool.notes,
        values=values,
    )


def _versions(commit: str | None) -> dict[str, str]:
    return {
        "proxyd": (commit or "of no commit").removesuffix("-dirty")[:12]
        + ("-dirty" if commit and commit.endswith("-dirty") else ""),
        "Python": sys.version.split()[0],
        "OpenSSL": openssl.openssl_version_text().split()[1],
        "trio": metadata.version("trio"),
        "libvirtd": ".".join(map(str, versions.libvirt())),
    }


def say(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))  # noqa: TID251 (the one place that ends the process)
