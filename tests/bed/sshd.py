"""A real sshd on a free port of the loopback, as the host that SSH clients of libvirt come to.

It lives in a mount namespace of its own: /run holds nothing but what its clients are to find of
libvirt, and every account has a shell and no home. Clients read no file of the caller's either:
ssh gets its configuration from `ssh`, a command for the URI's command=; libssh and libssh2 have
parameters for all of it.
"""

import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote, urlencode

from tests.bed.command import clean_environment, end_process, held_open, run_to_end
from tests.bed.waiting import wait_until

SSHD: Final = "/usr/sbin/sshd"  # it starts itself anew for each client, by an absolute path
ADDRESS: Final = "127.0.0.1"
DEADLINE_S: Final = 15.0
ATTEMPTS: Final = 5  # a port found free may be taken before sshd has it

SSHD_CONF: Final = """
Port {port}
ListenAddress {address}
HostKey {directory}/host
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PermitUserRC no
LogLevel VERBOSE
"""
# With the key exchange that ssh prefers, a login takes twice as long (0.33 s instead of 0.15 s).
SSH_CONF: Final = """
KexAlgorithms curve25519-sha256
UserKnownHostsFile {directory}/known_hosts
GlobalKnownHostsFile none
StrictHostKeyChecking yes
IdentitiesOnly yes
ControlPath {directory}/shared
"""

# Debian keeps sshd's own directory in /run, where only its service makes it.
SCRIPT: Final = """
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd /run/libvirt
mount --bind "$2" /run/libvirt
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/shadow" /etc/shadow
exec "$0" -D -e -f "$1/conf"
"""
IN_A_NAMESPACE: Final = ("unshare", "--mount", "bash", "-ec", SCRIPT, SSHD)


class Sshd:
    """An sshd below directory, started and stopped by a with block.

    `run_dir` is what its clients find as /run/libvirt. Both directories can be searched by the
    accounts that log in. All of them have the key `key`.
    """

    def __init__(self, directory: Path, run_dir: Path) -> None:
        self.directory = directory
        self.run_dir = run_dir
        self.log = directory / "log"
        self.ssh = directory / "ssh"
        self.key = directory / "key"
        self._conf = directory / "ssh_config"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self._write_accounts()
        new_key(self.directory / "host")
        self.add_key("key")
        self._conf.write_text(SSH_CONF.format(directory=self.directory))
        self.ssh.write_text(f'#!/bin/sh\nexec ssh -F {shlex.quote(str(self._conf))} "$@"\n')
        self.ssh.chmod(0o755)
        for _ in range(ATTEMPTS):
            self._configure()
            if self._started():
                return self
        raise ChildProcessError(f"sshd does not start\n{self.log.read_text()}")

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        end_process(self._process)

    @property
    def pid(self) -> int:
        """Of the one that listens, in its mount namespace."""
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        return self._port

    def add_key(self, name: str, options: str = "") -> Path:
        """Make another key that lets anybody in, with the options of its line (command= …)."""
        made = self.directory / name
        line = f"{options} {new_key(made)}".lstrip()
        with (self.directory / "authorized_keys").open("a") as authorized:
            authorized.write(line)
        return made

    def uri(
        self,
        name: str,
        *,
        user: str = "root",
        transport: str = "ssh",
        key: Path | None = None,
        **query: str,
    ) -> str:
        """A client's URI for a driver's name (`qemu:///system`) on this host."""
        driver, rest = name.split(":///", 1)
        ours = {"keyfile": str(key or self.key), "no_tty": "1"}
        if transport == "ssh":
            ours |= {"command": str(self.ssh)}
        else:
            ours |= {"known_hosts": str(self.directory / "known_hosts"), "sshauth": "privkey"}
        more = urlencode({**ours, **query}, quote_via=quote)
        return f"{driver}+{transport}://{user}@{ADDRESS}:{self._port}/{rest}?{more}"

    @contextmanager
    def shared_connection(self) -> Iterator[None]:
        """Clients of the transport ssh run their commands in one connection, as root, meanwhile."""
        login = ["-i", str(self.key), "-p", str(self._port), f"root@{ADDRESS}"]
        with held_open([str(self.ssh), "-M", "-N", *login]) as master:
            check = [str(self.ssh), "-O", "check", *login]
            wait_until(
                lambda: (
                    master.poll() is not None
                    or run_to_end(check, deadline_s=DEADLINE_S).status == 0
                ),
                DEADLINE_S,
                "the connection to share stands",
            )
            assert master.poll() is None, f"no connection to share\n{self.log.read_text()}"
            yield

    def _write_accounts(self) -> None:
        """The host's own, with a shell, no home with files for it, no password and no lock."""
        accounts = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
        with (self.directory / "passwd").open("w") as passwd:
            passwd.writelines(":".join([*each[:5], "/", "/bin/sh"]) + "\n" for each in accounts)
        with (self.directory / "shadow").open("w") as shadow:
            shadow.writelines(f"{each[0]}:*:::::::\n" for each in accounts)

    def _configure(self) -> None:
        self._port = free_port()
        text = SSHD_CONF.format(port=self._port, address=ADDRESS, directory=self.directory)
        (self.directory / "conf").write_text(text)
        host = (self.directory / "host.pub").read_text()
        (self.directory / "known_hosts").write_text(f"[{ADDRESS}]:{self._port} {host}")

    def _started(self) -> bool:
        """Whether it listens; false when it ended, because of its port for instance."""
        with self.log.open("wb") as log:
            self._process = process = subprocess.Popen(
                [*IN_A_NAMESPACE, str(self.directory), str(self.run_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
                start_new_session=True,
            )
        listens = f"Server listening on {ADDRESS} port {self._port}"
        try:
            wait_until(
                lambda: listens in self.log.read_text() or process.poll() is not None,
                DEADLINE_S,
                "sshd listens",
            )
        except BaseException:
            end_process(process)
            raise
        return process.poll() is None


def new_key(path: Path) -> str:
    """Make a key pair there, without a passphrase, and return the public one's line."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)]
    run_to_end(command, deadline_s=DEADLINE_S).succeeded()
    return path.with_suffix(".pub").read_text()


def free_port() -> int:
    """One of ADDRESS, which somebody else may take before it is used."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])
