"""A real libvirtd on a private directory; it serves as a modular daemon under any name.

Root's (system mode) lives in mount and network namespaces of its own, so that several run side by
side and nothing of them is left; it answers qemu:///system, network:///system, storage, secret,
nodedev, interface and nwfilter, and test:///default. An ordinary user's, or one that root starts
as another user, runs in session mode with private XDG directories instead: it answers
qemu:///session, the same secondary drivers but nwfilter as …:///session, and test:///default,
and has no read-only socket.
"""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from tests.bed import versions
from tests.bed.daemon import ConfigValue, Daemon, conf_text
from tests.bed.waiting import wait_until

NAMESPACE_SCRIPT: Final = Path(__file__).with_name("libvirtd.sh")
# The first of which it is known that it may wait at its end for ever (waits_for_node_devices). By
# 9.0.0 it was never seen.
FIRST_TO_WAIT: Final = (11, 3)
# Names a directory, where the system-wide ones of a run keep what they have found out about QEMU:
# to ask it takes each of them seconds of a processor, before the first answer.
SHARED: Final = "PROXYD_TESTS_QEMU"
CAPABILITIES: Final = "/var/cache/libvirt/qemu/capabilities"  # where libvirt keeps it
# libvirtd would ask the host's machined, polkit and firewalld over these.
NO_BUS: Final = {
    "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent",
}


class Libvirtd:
    """A libvirtd below directory, started by start() or a with block; stop() leaves no trace.

    directory exists, belongs to the caller and is short (see short_directory); for a session daemon
    of another user it is given to that user, who must be able to reach it. config adds to or
    replaces the settings of the conf file (None leaves one out), environment likewise. One that
    `listens` (root's only) also does so by TCP and TLS, as far as config says so, in its namespace.
    """

    def __init__(
        self,
        directory: Path,
        *,
        user: int | None = None,
        config: Mapping[str, ConfigValue | None] | None = None,
        environment: Mapping[str, str] | None = None,
        listens: bool = False,
    ) -> None:
        self.directory = directory
        self.user = os.geteuid() if user is None else user
        self.session = self.user != 0
        self.daemon = Daemon("libvirtd", directory)
        self.log = self.daemon.log
        self.run_dir = directory / "run" / "libvirt" if self.session else directory / "x"
        self.sock = self.run_dir / "libvirt-sock"
        self.sock_ro = None if self.session else self.run_dir / "libvirt-sock-ro"
        self.admin_sock = self.run_dir / "libvirt-admin-sock"
        self._config = config or {}
        self._environment = environment or {}
        self._arguments = ["--listen"] if listens else []
        # Held open: the number of a namespace that is gone may be given to another daemon's.
        self._namespace_fd: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.daemon.pid

    def uri(self, name: str = "qemu") -> str:
        """The URI that this daemon serves for a driver: test:///default, qemu:///session …"""
        mode = "session" if self.session else "system"
        return "test:///default" if name == "test" else f"{name}:///{mode}"

    def start(self) -> None:
        """Start it, also again after kill() or stop(), and wait until it accepts clients."""
        self.stop()
        if self.session:
            self._start_session()
        else:
            self._start_system()

    def _start_system(self) -> None:
        self.run_dir.mkdir(exist_ok=True)
        # unix_sock_rw_perms: whoever may write here is root, so the directory alone is not trusted.
        self._write_conf({"unix_sock_dir": str(self.run_dir), "unix_sock_rw_perms": "0700"})
        command = ["unshare", "--mount", "--net", "bash", str(NAMESPACE_SCRIPT)]
        self.daemon.start(
            [*command, str(self.directory), *self._arguments],
            sock=self.sock,
            environment={**NO_BUS, **shared(), **self._environment},
        )
        try:
            self._namespace_fd = os.open(mount_namespace(self.pid), os.O_RDONLY)
        except FileNotFoundError:
            raise ChildProcessError("libvirtd ended right after its start") from None
        # Otherwise stop() would take every process of the host for a child.
        assert not self._is_ours(os.getpid())

    def _start_session(self) -> None:
        # No unix_sock_dir: with it a session daemon opens no admin socket.
        self._write_conf({})
        names = ["home", "config", "cache", "run"]
        for directory in [self.directory, *(self.directory / name for name in names)]:
            directory.mkdir(mode=0o700, exist_ok=True)
            os.chown(directory, self.user, -1 if self.user == os.geteuid() else self.user)
        self.daemon.start(
            ["libvirtd", "-f", str(self.daemon.conf), "-p", str(self.daemon.pid_file)],
            sock=self.sock,
            environment={
                "HOME": str(self.directory / "home"),
                "XDG_CONFIG_HOME": str(self.directory / "config"),
                "XDG_CACHE_HOME": str(self.directory / "cache"),
                "XDG_RUNTIME_DIR": str(self.directory / "run"),
                **NO_BUS,
                **self._environment,
            },
            user=self.user,
        )

    def _write_conf(self, settings: Mapping[str, ConfigValue]) -> None:
        fixed: dict[str, ConfigValue] = {
            "auth_unix_rw": "none",
            "auth_unix_ro": "none",
            "log_outputs": f"2:file:{self.log}",
        }
        self.daemon.conf.write_text(conf_text({**fixed, **settings, **self._config}))
        self.daemon.conf.chmod(0o644)

    def serve_as(self, directory: Path, *daemons: str) -> None:
        """Make DIR/virtqemud-sock and DIR/virtqemud-sock-ro, and so on, lead to this daemon."""
        for daemon in daemons:
            (directory / f"{daemon}-sock").symlink_to(self.sock)
            if self.sock_ro is not None:
                (directory / f"{daemon}-sock-ro").symlink_to(self.sock_ro)

    def kill(self) -> None:
        """SIGKILL the daemon; its QEMU processes live on until stop() or a new start()."""
        self.daemon.kill()

    def stop(self) -> None:
        """Stop it and every QEMU that it started."""
        try:
            self.daemon.stop(known_fault=waits_for_node_devices)
        finally:
            for pid in self.children():
                kill_if_there(pid)
            wait_until(lambda: not self.children(), 15, "the QEMU processes of libvirtd are gone")
            if self._namespace_fd is not None:
                os.close(self._namespace_fd)
                self._namespace_fd = None

    def children(self) -> list[int]:
        """Processes that libvirtd started; they outlive it by design."""
        return [pid for pid in every_pid() if pid != self._living_pid() and self._is_ours(pid)]

    def _living_pid(self) -> int | None:
        return self.pid if self.daemon.running else None

    def _is_ours(self, pid: int) -> bool:
        try:
            if self.session:
                # libvirt gives a QEMU little environment, but HOME is in it.
                home = f"HOME={self.directory / 'home'}".encode()
                return home in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            return self._namespace_fd is not None and os.path.samestat(
                os.fstat(self._namespace_fd), os.stat(mount_namespace(pid))
            )
        except OSError:
            return False  # gone, or somebody else's


def shared() -> dict[str, str]:
    """For the environment of the script; empty but in a run of the tests."""
    return {name: os.environ[name] for name in (SHARED,) if name in os.environ}


def waits_for_node_devices(pid: int) -> bool:
    """Whether this libvirtd hangs at its end by a fault of its own, seen with 11.3.0.

    Once in some fifteen times, where it is told to end soon after its start: the thread that ends
    it joins that of the node devices' driver, which has missed that it is to end and sleeps.
    """
    if versions.libvirt() < FIRST_TO_WAIT:
        return False
    threads = Path(f"/proc/{pid}/task").iterdir()
    names = {(each / "comm").read_text().rstrip("\n") for each in threads}
    return {"daemon-shutdown", "udev-event"} <= names


def mount_namespace(pid: int) -> str:
    """Where the mount namespace of a process stands."""
    return f"/proc/{pid}/ns/mnt"


def every_pid() -> Iterator[int]:
    """The processes of this machine."""
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def kill_if_there(pid: int) -> None:
    """SIGKILL, unless it has ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
