"""Findings for people, file by file, and for programs."""

import json
from collections.abc import Iterator
from dataclasses import asdict

from proxyd.config.quoting import one_line
from proxyd.invocation import pasteable

from .inspection import Findings


def as_lines(findings: Findings) -> Iterator[str]:
    """Each file with what is in it, what is wrong and what mends it; then how many problems."""
    roles = " and ".join(f"a {each.value}" for each in findings.roles)
    yield f"{findings.root}: {roles or 'neither a server nor a client'}"
    paths = [each.path for each in findings.known] + [each.path for each in findings.problems]
    for path in dict.fromkeys(paths):
        yield ""
        yield from _of_file(findings, path)
    yield ""
    yield _total(findings)


def as_json(findings: Findings) -> str:
    """The same as one document."""
    document = {
        "fine": findings.fine,
        "root": str(findings.root),
        "roles": [each.value for each in findings.roles],
        "known": [asdict(each) for each in findings.known],
        "problems": [asdict(each) | {"fix": pasteable(each.fix)} for each in findings.problems],
    }
    return json.dumps(document, indent=2)


def _of_file(findings: Findings, path: str) -> Iterator[str]:
    problems = [each for each in findings.problems if each.path == path]
    worst = "PROBLEM" if any(each.fatal for each in problems) else "warning" if problems else "ok"
    yield f"{worst:8} {one_line(path)}"
    for known in findings.known:
        if known.path == path:
            yield f"         {one_line(known.text)}"
    for each in problems:
        yield f"       {'!' if each.fatal else '?'} {one_line(each.text)}"
        yield f"         {one_line(pasteable(each.fix))}"


def _total(findings: Findings) -> str:
    fatal = sum(each.fatal for each in findings.problems)
    warnings = len(findings.problems) - fatal
    return f"{_count(fatal, 'problem')}, {_count(warnings, 'warning')}"


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
