"""Make a virtual environment for this checkout: what pyproject.toml names, and the checkout itself.

    python3 script/environment.py [--check] DIRECTORY [EXTRA …]

--check makes nothing: the status says whether all of it is there. The checkout is in it by its path
and is not installed: pip would leave files in it, and by root in a user's.
"""

import os
import re
import runpy
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any, Final

CHECKOUT: Final = Path(__file__).resolve().parents[1]
PIP: Final = ("-m", "pip", "install", "--disable-pip-version-check", "--no-compile")
# For the shell a quoted word and a command; for Python a string. A #! line could have no blanks.
COMMAND: Final = """\
#!/bin/sh
'''exec' "$(dirname -- "$(readlink -f -- "$0")")/python" "$0" "$@"
' '''
import sys
from {module} import {function}
sys.exit({function}())
"""


def main(arguments: list[str]) -> int:
    """0, 1 if something is missing, or the status of what failed."""
    check = arguments[0] == "--check"
    directory, *extras = arguments[1:] if check else arguments
    environment = Path(directory)
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wanted = requirements(project, extras)
    # A virtual environment that was moved or copied still points to where it was made.
    same = [sys.version.replace("\n", " "), os.fspath(environment), repr(project["scripts"])]
    stamp = environment / "made"
    before = stamp.read_text().splitlines() if stamp.is_file() else []
    is_ours = before[: len(same)] == same
    if is_ours and {*wanted} <= {*before[len(same) :]}:
        return 0
    if check:
        return 1
    python = environment / "bin" / "python"
    commands = [[os.fspath(python), *PIP, "--root-user-action=ignore", *wanted]]
    if not is_ours:
        commands.insert(0, [sys.executable, "-m", "venv", "--clear", os.fspath(environment)])
    # Compiles what has no wheel in a third of the time; none of it is on a path that is measured.
    given = {"CFLAGS": "-O0 -g0", **os.environ}
    for command in commands:
        if status := subprocess.call(command, env=given):
            return status
    put_checkout(environment, project["scripts"])
    stamp.write_text("\n".join([*same, *before[len(same) :] * is_ours, *wanted, ""]))
    return 0


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """What the project needs, and what these extras add, some of them by others."""
    found = list(project["dependencies"])
    for extra in extras:
        for each in project["optional-dependencies"][extra]:
            own = re.fullmatch(re.escape(project["name"]) + r"\[(.*)\]", each)
            if own is None:
                found.append(each)
            else:
                found += requirements({**project, "dependencies": []}, own[1].split(","))
    return list(dict.fromkeys(found))


def put_checkout(environment: Path, scripts: dict[str, str]) -> None:
    """The checkout's packages, and its commands."""
    base = {"base": os.fspath(environment), "platbase": os.fspath(environment)}
    packages = Path(sysconfig.get_path("purelib", scheme="venv", vars=base))
    # In ASCII: with LC_ALL=C this is all that Python can read of such a file.
    path = f"import os, sys; sys.path.append(os.fsdecode({os.fsencode(CHECKOUT)!r}))\n"
    (packages / "checkout.pth").write_text(path)
    version = runpy.run_path(os.fspath(CHECKOUT / "proxyd" / "__init__.py"))["__version__"]
    info = packages / f"proxyd-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: proxyd\nVersion: {version}\n")
    for name, entry in scripts.items():
        module, function = entry.split(":")
        # What is below proxyd in a wheel may lie beside it in the checkout.
        if (CHECKOUT / module.split(".")[1]).is_dir():
            module = module.removeprefix("proxyd.")
        file = environment / "bin" / name
        file.write_text(COMMAND.format(module=module, function=function))
        file.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))  # noqa: TID251 (the one place that ends the process)
