"""Imports point down the floors; the pure floors import only what is listed here."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "proxyd"
FLOORS = {
    "wire": 0,
    "invocation": 1,
    "later": 1,
    "negotiation": 1,
    "config": 1,
    "rules": 2,
    "endpoint": 2,
    "peer": 2,
    "log": 2,
    "deploy": 2,
    "pki": 3,
    "tls": 4,
    "sasl": 3,
    "relay": 3,
    "autostart": 3,
    "admission": 4,
    "audit": 4,
    "polkit": 5,
    "session": 6,
    "admin": 7,
    "process": 7,
    "doctor": 8,
    "listen": 8,
    "metrics": 9,
    "upgrade": 9,
    "switch": 9,
    "daemon": 10,
    "cli": 11,
}
PURE = {"dataclasses", "enum", "typing", "collections", "functools", "struct", "itertools"}
ALLOWED = {
    "wire": PURE,
    "negotiation": PURE,
    "config": PURE | {"re", "difflib", "pathlib", "json", "errno"},
    "rules": PURE | {"re", "difflib", "ipaddress", "datetime", "bisect", "heapq"},
}
BANNED = {
    "endpoint": {"trio", "select"},
    "pki": {"trio", "select"},
    "tls": {"trio", "select"},
    "sasl": {"trio", "select"},
    "relay": {"trio"},
}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.ImportFrom():
                yield "." * node.level + (node.module or "")


def complaints(path):
    floor = path.parent.name if path.parent != PACKAGE else "cli"
    for name in imported_modules(path):
        parts = name.split(".")
        where = f"{path.relative_to(PACKAGE.parent)} imports {name}"
        if name.startswith("."):
            yield f"{where}: imports are absolute"
        elif parts[0] == "proxyd" and len(parts) > 1:
            target = parts[1]
            if target != floor and FLOORS[target] >= FLOORS[floor]:
                yield f"{where}: {floor} stands on floor {FLOORS[floor]}, {target} is not below it"
        elif parts[0] in {"tests", "loadtest", "certs"}:
            yield f"{where}: the daemon does not know its tools"
        elif floor in ALLOWED and parts[0] != "proxyd" and parts[0] not in ALLOWED[floor]:
            yield f"{where}: {floor} is pure and may import only {sorted(ALLOWED[floor])}"
        elif parts[0] in BANNED.get(floor, ()):
            yield f"{where}: {floor} knows no {parts[0]}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_imports_point_down(path):
    assert list(complaints(path)) == []


def test_every_folder_has_a_floor():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders <= set(FLOORS)


def test_the_load_tool_imports_only_the_codec():
    root = PACKAGE.parent / "loadtest"
    reached = {n for p in root.rglob("*.py") for n in imported_modules(p) if n.startswith("proxyd")}
    # Below proxyd is where it lies itself once it is installed.
    assert {n.split(".")[1] for n in reached} - {"loadtest"} <= {"wire"}
