"""A machine of its own: a real systemd, booted in a container over the host's files.

It sees what is installed on the host, and nothing that it writes is left: all of it goes to a file
system in memory. Nobody has enabled a unit on it yet, so that it boots in half a second and no
service of the host runs there. It has its own processes, control groups and journal, and no
network but its loopback interface. The checkout and its interpreter's environment are in /opt,
read-only: where they are on the host, a unit with ProtectHome= or PrivateTmp= may not see them.

The host's names of control groups and of mounts stay as they were: the machine lives below a group
of its own and in a mount namespace of its own.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from tests.bed.command import Finished, clean_environment, end_process, held_open, run_to_end
from tests.bed.daemon import START_DEADLINE_S, STARTED, ConfigValue, accepts, conf_text
from tests.bed.libvirtd import CAPABILITIES, NAMESPACE_SCRIPT, NO_BUS, shared
from tests.bed.waiting import wait_until

HOST_CHECKOUT: Final = Path(__file__).resolve().parents[2]
CHECKOUT: Final = Path("/opt/checkout")  # and what follows, in the machine
ENVIRONMENT: Final = Path("/opt/python")
PYTHON: Final = ENVIRONMENT / "bin" / "python"
KNOWN: Final = "/opt/qemu"  # what other daemons of the run have found out
LIBVIRTD: Final = "/opt/behind"
BOOT_DEADLINE_S: Final = 60.0
STOP_DEADLINE_S: Final = 30.0
MACHINE_ID: Final = "0123456789abcdef0123456789abcdef\n"

# What systemd-nspawn writes into /run is seen by nobody; $1 is where the host's files are mounted,
# and up to -- the control groups to live in.
IN_A_NAMESPACE: Final = """
mount --bind / "$1"
mount -t tmpfs tmpfs /run
shift
while [ "$1" != -- ]; do
    echo $$ >"$1/cgroup.procs"
    shift
done
shift
exec systemd-nspawn "$@"
"""


class Machine:
    """A machine below directory, started by start() or a with block; stop() leaves no trace."""

    name = "machine"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "output"
        self.pid = 0  # of its systemd
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[Path] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def root(self) -> Path:
        """Its root directory as the host sees it: for files, and for addresses of its sockets."""
        return Path(f"/proc/{self.pid}/root")

    def start(self) -> None:
        """Boot it, and wait until it has reached basic.target."""
        (self.directory / "root").mkdir()
        (self.directory / "machine-id").write_text(MACHINE_ID)
        self._groups = list(make_control_groups(self.directory.name))
        STARTED.append(self)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(self.directory / "notify"))
            notified.setblocking(False)
            try:
                self._process = self._launch()
                wait_until(lambda: self._is_up(notified), BOOT_DEADLINE_S, "the machine has booted")
            except BaseException as cause:
                cause.add_note(self.story())
                self.stop()
                raise

    def _launch(self) -> subprocess.Popen[bytes]:
        root = str(self.directory / "root")
        command = [
            *("unshare", "--mount", "sh", "-ec", IN_A_NAMESPACE, "machine"),
            *(root, *map(str, self._groups), "--"),
            *("--quiet", "--register=no", "--keep-unit", "--machine=machine"),
            *("-D", root, "--volatile=overlay", "--private-network"),
            *("--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=read-only"),
            # Says when it has booted, and which process its systemd is.
            "--notify-ready=yes",
            f"--bind-ro={escaped(HOST_CHECKOUT)}:{CHECKOUT}",
            f"--bind-ro={escaped(Path(sys.prefix))}:{ENVIRONMENT}",
            *(
                f"--bind={known}:{at}"
                for known in shared().values()
                for at in (KNOWN, CAPABILITIES)
            ),
            # With one, no boot is the first, at which all that is installed would be enabled.
            f"--bind-ro={escaped(self.directory / 'machine-id')}:/etc/machine-id",
            # What the host's administrator has enabled.
            "--tmpfs=/etc/systemd/system",
            # Neither multi-user.target, with what packages bring for it, nor the host's disks.
            *("--boot", "systemd.unit=basic.target", "fstab=no"),
            "systemd.mask=systemd-machine-id-commit.service",  # it is not to be written to a disk
        ]
        with self.output.open("wb") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment({"NOTIFY_SOCKET": str(self.directory / "notify")}),
                start_new_session=True,
            )

    def _is_up(self, notified: socket.socket) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise ChildProcessError(f"systemd-nspawn ended with {self._process.returncode}")
        try:
            lines = notified.recv(4096).decode().splitlines()
        except BlockingIOError:
            return False
        for line in lines:
            name, _, value = line.partition("=")
            if name == "X_NSPAWN_LEADER_PID":
                self.pid = int(value)
        return "READY=1" in lines

    def run(
        self,
        *command: str,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        deadline_s: float = 60,
    ) -> Finished:
        """Run a command in it to its end, as root."""
        return run_to_end(
            self._inside(command), stdin=stdin, environment=environment, deadline_s=deadline_s
        )

    @contextmanager
    def held(
        self, *command: str, environment: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a command in it with pipes to its stdin and from its stdout; ends with the block.

        The process is nsenter's, which ends as the command does.
        """
        with held_open(self._inside(command), environment=environment) as entered:
            try:
                yield entered
            finally:
                # nsenter would pass no signal on to it.
                children = Path(f"/proc/{entered.pid}/task/{entered.pid}/children")
                with suppress(FileNotFoundError):
                    for pid in children.read_text().split():
                        with suppress(ProcessLookupError):
                            os.kill(int(pid), signal.SIGTERM)
                        entered.wait(STOP_DEADLINE_S)

    def _inside(self, command: tuple[str, ...]) -> list[str]:
        return ["nsenter", "--all", f"--target={self.pid}", "--", *command]

    def systemctl(self, *arguments: str, deadline_s: float = 60) -> str:
        """Run it in there and return what it said; a failure is an error with its words."""
        return self.run("systemctl", *arguments, deadline_s=deadline_s).succeeded()

    def show(self, unit: str, key: str) -> str:
        """One property of a unit: ActiveState, MainPID, NRestarts …"""
        return self.systemctl("show", "--value", f"--property={key}", unit).strip()

    def journal(self, unit: str) -> list[str]:
        """The messages of a unit so far, its own and systemd's."""
        self.run("journalctl", "--sync").succeeded()
        command = ["journalctl", "--quiet", "--output=cat", f"--unit={unit}"]
        return self.run(*command).succeeded().splitlines()

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Make or replace a file in it, with the directories that it needs."""
        file = self.root / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def stop(self) -> None:
        """Switch it off."""
        process, self._process = self._process, None
        try:
            if process is not None:
                self._switch_off(process)
        finally:
            self.pid = 0
            for group in self._groups:
                remove_control_group(group)
            self._groups = []

    def _switch_off(self, process: subprocess.Popen[bytes]) -> None:
        if self.pid and process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                # Its services are killed: a test that wants to see them stop does that itself.
                self.run("systemctl", "poweroff", "--force", deadline_s=STOP_DEADLINE_S)
                process.wait(STOP_DEADLINE_S)
        if process.poll() is None:
            end_process(process)

    def story(self, lines: int = 200) -> str:
        """The end of its journal, or of what its console shows where that cannot be had."""
        if self._process is not None and self._process.poll() is None and self.pid:
            command = ["journalctl", "--no-pager", f"--lines={lines}", "--output=short-monotonic"]
            with suppress(subprocess.TimeoutExpired):
                return self.run(*command, deadline_s=15).stdout
        return self.output.read_text(errors="replace") if self.output.exists() else ""


def start_libvirtd(machine: Machine, *daemons: str) -> None:
    """A real libvirtd in the machine that serves in /run/libvirt as these modular daemons."""
    settings: dict[str, ConfigValue] = {
        "unix_sock_dir": f"{LIBVIRTD}/x",
        "auth_unix_rw": "none",
        "auth_unix_ro": "none",
        "log_outputs": "2:stderr",
    }
    machine.write(f"{LIBVIRTD}/conf", conf_text(settings))
    for directory in (f"{LIBVIRTD}/x", "/run/libvirt"):
        machine.run("mkdir", "--parents", directory).succeeded()
    environment = {**NO_BUS, **dict.fromkeys(shared(), KNOWN)}
    given = [f"--setenv={name}={value}" for name, value in environment.items()]
    script = str(CHECKOUT / NAMESPACE_SCRIPT.resolve().relative_to(HOST_CHECKOUT))
    command = ["unshare", "--mount", "--net", "bash", script, LIBVIRTD]
    machine.run("systemd-run", "--unit=behind.service", *given, "--", *command).succeeded()
    served = f"{LIBVIRTD}/x/libvirt-sock"
    try:
        wait_until(
            lambda: accepts(machine.root / served.removeprefix("/")),
            START_DEADLINE_S,
            "libvirtd accepts in the machine",
        )
    except TimeoutError as late:
        late.add_note("\n".join(machine.journal("behind.service")))
        raise
    for daemon in daemons:
        for suffix in ("", "-ro"):
            link = f"/run/libvirt/{daemon}-sock{suffix}"
            machine.run("ln", "--symbolic", served + suffix, link).succeeded()


def escaped(path: Path) -> str:
    """For systemd-nspawn, to which a colon separates paths."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:")


def in_unit(*words: str | Path) -> str:
    """A command line for a unit file, where blanks, quotes, % and $ mean something."""
    return " ".join(
        shlex.quote(str(each).replace("\\", "\\\\").replace("%", "%%").replace("$", "$$"))
        for each in words
    )


def make_control_groups(name: str) -> Iterator[Path]:
    """A group of this name below ours, wherever systemd keeps track of processes by groups."""
    ours = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kind, path = line.split(":", 2)
        ours[kind] = path
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        shown, mounted_at = before.split()[3:5]
        file_system, _, options = after.split()
        unified = file_system == "cgroup2"
        if unified or (file_system == "cgroup" and "name=systemd" in options.split(",")):
            path = ours["" if unified else "name=systemd"]
            group = Path(mounted_at, os.path.relpath(path, shown), name)
            group.mkdir()
            yield group


def remove_control_group(group: Path) -> None:
    """Also what systemd made below; whoever was in there is about to be gone."""

    def is_gone() -> bool:
        for directory, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):  # the kernel has not buried the last process yet
                os.rmdir(directory)
        return not group.exists()

    wait_until(is_gone, STOP_DEADLINE_S, f"nobody is in {group} any more")
