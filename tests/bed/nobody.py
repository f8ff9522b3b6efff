"""A user who has nothing, with a daemon of his own."""

import os
import signal
import sys
from pathlib import Path

from tests.bed.command import SYSTEM_PATH, held_open
from tests.bed.daemon import FAULT_AFTER_S, conf_text
from tests.bed.libvirtd import NO_BUS, waits_for_node_devices
from tests.bed.waiting import wait_until

NOBODY = 65534
DEADLINE_S = 30
# The old daemon has every driver; the modular one's socket leads to its own. `go` holds it up.
WRAPPER = """#!/bin/sh
cd {directory}
echo $$ >>started
test -p go && read -r _ <go
ln -sf libvirt-sock "$XDG_RUNTIME_DIR/libvirt/virtqemud-sock"
export {bus}
exec /usr/sbin/libvirtd -f conf -p {directory}/pid "$@"
"""
# Ten sessions of one proxyd that all want the daemon, and open it.
SESSIONS = """
import os, trio
from proxyd.config.routes import RoutingTable
from proxyd.negotiation.identity import ClientIdentity
from proxyd.session.backend import open_backend
from proxyd.autostart.starter import Starter

run = os.environ["XDG_RUNTIME_DIR"] + "/libvirt"
table = RoutingTable(privileged=False, system_dir="/nowhere", session_dir=run)
destination = table.resolve("qemu:///session", readonly=False)
starter = Starter(runtime_dir=run, environ=os.environ, euid=os.geteuid(), patience_s=20)

async def session():
    (await open_backend(
        destination, 6, ClientIdentity(), keepalive=True, starter=starter
    )).close()
    print("opened", flush=True)

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(starter.run)
        async with trio.open_nursery() as sessions:
            for _ in range(10):
                sessions.start_soon(session)
        nursery.cancel_scope.cancel()
    print("done", flush=True)

print("asking", flush=True)
trio.run(main)
"""


class Nobody:
    """A user without a running daemon, who has programs, configuration and a run-time directory."""

    def __init__(self, directory):
        self.directory = directory
        self.bin = directory / "bin"
        self.runtime = directory / "run" / "libvirt"
        self.socket = self.runtime / "virtqemud-sock"
        self.lock = self.runtime / "virtqemud.lock"
        self.environment = {
            "PATH": f"{self.bin}:{SYSTEM_PATH}",
            "VIRTD_PATH": str(self.bin),
            "HOME": str(directory / "home"),
            "XDG_CONFIG_HOME": str(directory / "config"),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "XDG_RUNTIME_DIR": str(self.runtime.parent),
            "LIBVIRT_AUTOSTART": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def settle(self):
        for name in ("bin", "home", "config", "cache", "run"):
            (self.directory / name).mkdir(mode=0o700)
        log = f"2:file:{self.directory}/log"
        conf = conf_text({"auth_unix_rw": "none", "log_outputs": log})
        (self.directory / "conf").write_text(conf)
        wrapper = self.bin / "virtqemud"
        bus = " ".join(f"{name}={value}" for name, value in NO_BUS.items())
        wrapper.write_text(WRAPPER.format(directory=self.directory, bus=bus))
        wrapper.chmod(0o755)
        for path in [self.directory, *self.directory.iterdir(), wrapper]:
            os.chown(path, NOBODY, NOBODY)

    def hold_up_daemons(self):
        """The next one does not listen before `go`."""
        os.mkfifo(self.directory / "go")
        os.chown(self.directory / "go", NOBODY, NOBODY)

    def go(self):
        (self.directory / "go").write_text("\n")

    def sessions(self):
        """A proxyd's sessions, as a process that says `asking`, ten times `opened`, and `done`."""
        command = [sys.executable, "-c", SESSIONS]
        return held_open(command, user=NOBODY, environment=self.environment)

    def privileged_sessions(self):
        """The same with a capability that outlives exec, as systemd gives one to a user's unit."""
        user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        more = ["--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"]
        command = ["setpriv", *user, *more, sys.executable, "-c", SESSIONS]
        return held_open(command, environment=self.environment)

    def virsh(self):
        """libvirt's own client, which starts the modular daemon as well."""
        command = ["virsh", "-q", "-c", "qemu:///session?mode=direct", "uri"]
        return held_open(command, user=NOBODY, environment=self.environment)

    def started(self):
        told = self.directory / "started"
        return [int(line) for line in told.read_text().split()] if told.exists() else []

    def stop_daemons(self):
        for pid in self.started():
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGTERM)
                end(pid)


def end(pid):
    """Waits for a daemon that was told to end; one that hangs by a known fault is killed."""
    try:
        wait_until(lambda: not runs(pid), FAULT_AFTER_S, f"daemon {pid} has ended")
    except TimeoutError:
        if waits_for_node_devices(pid):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not runs(pid), DEADLINE_S, f"daemon {pid} has ended")


def runs(pid):
    """Whether a process that is not our child has not ended yet."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
