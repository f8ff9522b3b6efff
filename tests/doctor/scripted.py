"""A systemctl that tells what a test says, and does what it is told to units that are made up."""

import json
import sys
from pathlib import Path

# `show` prints the units of a file, other verbs change them as systemd would and are noted down.
PROGRAM = """\
import json, pathlib, sys
state = pathlib.Path({state!r})
units = json.loads(state.read_text())
verb, names = sys.argv[1], [word for word in sys.argv[2:] if not word.startswith("-")]
if verb == "show":
    for name in names:
        unit = units.get(name, {{"LoadState": "not-found", "ActiveState": "inactive"}})
        print("\\n".join(f"{{key}}={{value}}" for key, value in ({{"Id": name}} | unit).items()))
        print()
    sys.exit()
with open({log!r}, "a") as log:
    print(verb, *names, file=log)
if verb == "daemon-reload":
    sys.exit()
if {failing!r} and {failing!r} in " ".join([verb, *names]):
    print("Job failed.", file=sys.stderr)
    sys.exit(1)
changes = {{
    "start": ("ActiveState", "active"),
    "stop": ("ActiveState", "inactive"),
    "enable": ("UnitFileState", "enabled"),
    "disable": ("UnitFileState", "disabled"),
}}
for name in names:
    if verb == "unmask":
        units[name].update(LoadState="loaded", UnitFileState="disabled")
    else:
        key, value = changes[verb]
        units[name][key] = value
        if verb == "disable" and name.endswith(".service"):
            for also in ("virtlogd.socket", "virtlockd.socket"):
                units.get(also, {{}})["UnitFileState"] = "disabled"
state.write_text(json.dumps(units))
"""


class Systemctl:
    """The program, in a directory that goes to the front of PATH."""

    def __init__(self, directory: Path, monkeypatch):
        self._directory = directory
        self._state, self._log = directory / "units.json", directory / "log"
        self.know({})
        self.fail("")
        monkeypatch.setenv("PATH", str(directory), prepend=":")

    def know(self, units):
        """Which units there are, as values of Unit by their names."""
        self._state.write_text(
            json.dumps(
                {
                    each.name: {
                        "LoadState": each.load,
                        "UnitFileState": each.file,
                        "ActiveState": each.activity,
                        "ExecStart": f"{{ path={each.program} ; argv[]={each.command}"
                        " ; ignore_errors=no }"
                        if each.program
                        else "",
                    }
                    for each in units.values()
                    if each.installed
                }
            )
        )

    def fail(self, part):
        """The commands that have this in them fail; "" for none."""
        text = PROGRAM.format(state=str(self._state), log=str(self._log), failing=part)
        program = self._directory / "systemctl.py"
        program.write_text(text)
        # The kernel takes no interpreter with a space in its path, a shell does.
        self.replace(f"#!/bin/sh\nexec '{sys.executable}' -I '{program}' \"$@\"\n")

    def replace(self, script):
        """Another program in its place."""
        program = self._directory / "systemctl"
        program.write_text(script)
        program.chmod(0o755)

    def done(self):
        """The commands that changed something, as lines."""
        return self._log.read_text().splitlines() if self._log.exists() else []
