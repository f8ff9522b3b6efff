"""The doctor's words: for people, at most 80 columns wide, and for programs, as JSON.

What JSON has is documented in `JSON_SHAPE`; keys may be added to it, none changes its meaning.
"""

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

from proxyd.doctor.findings import Finding, Severity, exit_status, worst
from proxyd.doctor.state import Address, Answer, Backend, HostState
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.unitnames import DAEMONS, suffixes_of, units_of

JSON_SHAPE: Final = """\
with --json:
  version       1; keys may be added without a new one
  exit_status   0, 1 or 2, as the command returns
  mode          {now, at_boot}: monolithic, modular, both or none
  as_root       whether root looked; otherwise something may be missing
  systemd       {answers, reason}
  guests        how many QEMU processes there are
  units         [{name, installed, enabled, active, masked, failed}], all that libvirt has
  addresses     [{name, there, listening, owners: [{pid, program, command}]}]; name is a path
                or "port N", listening counts sockets
  backends      [{daemon, schemes, path, answer, methods, detail, took_ms}]; answer is answers,
                absent, refused, denied, silent or broken
  findings      [{severity, code, what, why, fix}], the worst first; severity is ok, note,
                warning or error; fix is a list of lines for root's bash
"""

_WIDTH: Final = 80
_NAME: Final = 18  # columns of the table of units
_CELL: Final = 10
_COLUMNS: Final = ("service", "socket", "-ro", "-admin", "-tcp", "-tls")
_LABELS: Final = {
    Severity.ERROR: "ERROR",
    Severity.WARNING: "WARN",
    Severity.NOTE: "NOTE",
    Severity.OK: "ok",
}
_COLOURS: Final = {
    Severity.ERROR: "31;1",
    Severity.WARNING: "33",
    Severity.NOTE: "36",
    Severity.OK: "32",
}
_INDENT: Final = " " * 8


def report_json(state: HostState, findings: Sequence[Finding]) -> str:
    """The whole of it for programs."""
    whole = {
        "version": 1,
        "exit_status": exit_status(findings),
        "mode": {"now": state.mode(), "at_boot": state.mode_at_boot()},
        "as_root": state.as_root,
        "systemd": {"answers": not state.no_systemd, "reason": state.no_systemd},
        "guests": state.guests,
        "units": [_json_unit(state.unit(name)) for daemon in DAEMONS for name in units_of(daemon)],
        "addresses": [_json_address(each) for each in state.addresses],
        "backends": [_json_backend(each) for each in state.backends],
        "findings": [_json_finding(each) for each in findings],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def report(state: HostState, findings: Sequence[Finding], *, colour: bool) -> str:
    """The same for people."""
    lines = [_mode_line(state), ""]
    if not state.no_systemd:
        lines += [*_table(state), ""]
    lines += ["Who listens", *map(_address_line, state.addresses), ""]
    lines += ["Daemons behind", *_backend_lines(state), ""]
    lines += ["Findings"]
    for finding in findings:
        lines += _finding_lines(finding, colour=colour)
    return "\n".join([*lines, "", _verdict(findings), ""])


def _mode_line(state: HostState) -> str:
    guests = f"{state.guests} QEMU guest{'' if state.guests == 1 else 's'} running"
    if state.no_systemd:
        return f"Mode: {state.mode()}; no systemd; {guests}"
    return f"Mode: {state.mode()} now, {state.mode_at_boot()} at boot; {guests}"


def _table(state: HostState) -> Iterator[str]:
    heads = "".join(f"{column:{_CELL}}" for column in _COLUMNS)
    yield f"{'Units (boot/now)':{_NAME}}{heads}".rstrip()
    for daemon in DAEMONS:
        if not state.units_of(daemon):
            continue
        cells = {"service": _cell(state.unit(f"{daemon}.service"))}
        for suffix in suffixes_of(daemon):
            cells[suffix or "socket"] = _cell(state.unit(f"{daemon}{suffix}.socket"))
        row = "".join(f"{cells.get(column, ''):{_CELL}}" for column in _COLUMNS)
        yield f"  {daemon:{_NAME - 2}}{row}".rstrip()


def _cell(unit: Unit) -> str:
    if not unit.installed:
        return "-"
    if unit.masked:
        return "masked/up" if unit.active else "masked"
    boot = "on" if unit.enabled else "off"
    return f"{boot}/fail" if unit.failed else f"{boot}/{'up' if unit.active else 'down'}"


def _address_line(address: Address) -> str:
    if address.owners:
        who = ", ".join(map(str, address.owners))
    elif address.hidden:
        who = "somebody who cannot be seen"
    else:
        who = "nobody, though it is there" if address.there else "nobody"
    return _pair(address.name, who)


def _pair(name: str, text: str) -> str:
    line = f"  {name:35} {text}"
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


def _backend_lines(state: HostState) -> Iterator[str]:
    shown = [each for each in state.backends if _is_of_interest(state, each)]
    for backend in shown:
        reply = backend.reply
        text = str(reply.answer)
        if reply.answer is Answer.ANSWERS:
            text += f" in {reply.took_ms} ms, authentication {', '.join(reply.methods) or '?'}"
        elif reply.detail:
            text += f": {reply.detail}"
        schemes = ", ".join(backend.schemes)
        yield _pair(f"{backend.daemon} ({schemes})", text)
    if not shown:
        yield "  none"


def _is_of_interest(state: HostState, backend: Backend) -> bool:
    """A host has few of all the daemons that there are."""
    return (
        backend.routed
        or backend.reply.answer is not Answer.ABSENT
        or state.installed(backend.daemon)
    )


def _finding_lines(finding: Finding, *, colour: bool) -> Iterator[str]:
    label = f"{_LABELS[finding.severity]:5}"
    if colour:
        label = f"\x1b[{_COLOURS[finding.severity]}m{label}\x1b[0m"
    first, *rest = _wrapped(finding.what)
    yield f"  {label} {first.removeprefix(_INDENT)}"
    yield from rest
    if finding.why:
        yield from _wrapped(finding.why)
    for line in finding.fix:
        yield from _fix_lines(line)


def _wrapped(text: str, indent: str = _INDENT) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [indent]


def _fix_lines(line: str) -> Iterator[str]:
    indent = f"{_INDENT}    "
    if line.startswith("# "):
        yield from _wrapped(line.removeprefix("# "), f"{indent}# ")
    else:
        yield indent + line  # one that is too long stays whole: it is there to be copied


def _verdict(findings: Sequence[Finding]) -> str:
    names = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
    counted = [
        f"{count} {name}{'' if count == 1 else 's'}"
        for severity, name in names.items()
        if (count := sum(each.severity is severity for each in findings))
    ]
    if worst(findings) is Severity.OK:
        return "All is in order."
    return ", ".join(counted) + "."


def _json_unit(unit: Unit) -> dict[str, Any]:
    return {
        "name": unit.name,
        "installed": unit.installed,
        "enabled": unit.enabled,
        "active": unit.active,
        "masked": unit.masked,
        "failed": unit.failed,
    }


def _json_address(address: Address) -> dict[str, Any]:
    return {
        "name": address.name,
        "there": address.there,
        "listening": address.listening,
        "owners": [
            {"pid": owner.pid, "program": owner.program, "command": owner.command}
            for owner in address.owners
        ],
    }


def _json_backend(backend: Backend) -> dict[str, Any]:
    return {
        "daemon": backend.daemon,
        "schemes": list(backend.schemes),
        "path": backend.path,
        "answer": backend.reply.answer,
        "methods": list(backend.reply.methods),
        "detail": backend.reply.detail,
        "took_ms": backend.reply.took_ms,
    }


def _json_finding(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity.name.lower(),
        "code": finding.code,
        "what": finding.what,
        "why": finding.why,
        "fix": list(finding.fix),
    }
