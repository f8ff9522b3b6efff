"""What is measured: a real libvirtd, a proxyd before it with all its listeners, tickets, volumes.

Each part is started when it is first asked for, and ends with the stage.
"""

import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final

from certs.authority import Authority
from certs.places import flat
from tests.bed.command import held_open, run_to_end
from tests.bed.daemon import ConfigValue, accepts, short_directory
from tests.bed.kdc import Kdc
from tests.bed.libvirtd import SHARED, Libvirtd
from tests.bed.proxyd import Proxyd
from tests.bed.sasl import HOST, SERVICE, with_tickets
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until

KEY: Final = "rsa:2048"
DEADLINE_S: Final = 30.0
MEMORY: Final = Path("/dev/shm")  # so that no disk is measured
IDLE_URI: Final = "lxc:///system"
VOLUME_SIZE: Final = 1 << 30
VOLUMES: Final = 4


class Stage:
    """Made in a `with` block of `stage`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def _directory(self) -> Path:
        return self._stack.enter_context(short_directory())

    @cached_property
    def backend(self) -> Libvirtd:
        """It answers test:///default, and qemu:///system with a pool."""
        return self._libvirtd()

    @cached_property
    def other_backend(self) -> Libvirtd:
        """Another one, which serves transfers alone while the first one answers calls."""
        return self._libvirtd()

    def _libvirtd(self) -> Libvirtd:
        return self._stack.enter_context(Libvirtd(self._directory()))

    @cached_property
    def prompt(self) -> Path:
        """The socket of a daemon that thousands of idle sessions do not slow down."""
        path = self._directory() / "prompt"
        command = [sys.executable, "-m", "tests.fakes.prompt_daemon", str(path)]
        self._stack.enter_context(held_open(command))
        wait_until(lambda: path.exists() and accepts(path), DEADLINE_S, "the daemon listens")
        return path

    @cached_property
    def proxyd(self) -> Proxyd:
        """By UNIX for everybody, by TLS with a certificate, by TCP with a ticket.

        qemu:///system goes to the first daemon, of transfers with tickets as well.
        """
        return self._stack.enter_context(self.fresh_proxyd(self._everything(self.backend)))

    @cached_property
    def transfers_proxyd(self) -> Proxyd:
        """As `proxyd`, but qemu:///system is at the other daemon."""
        return self._stack.enter_context(self.fresh_proxyd(self._everything(self.other_backend)))

    def _everything(self, storage: Libvirtd) -> dict[str, ConfigValue]:
        return {
            "proxyd_routes": [f"test={self.backend.sock}", f"qemu={storage.sock}"],
            **self.tls_settings,
            "listen_tcp": 1,
            "tcp_port": "0",
            "proxyd_keytab": str(self.kdc.keytab(SERVICE)),
        }

    def fresh_proxyd(
        self, config: Mapping[str, ConfigValue], *, notify: Path | None = None
    ) -> Proxyd:
        """Not started yet. `notify` is where systemd would hear that it is ready."""
        environment = {} if notify is None else {"NOTIFY_SOCKET": str(notify)}
        if "proxyd_keytab" in config:
            environment |= self.kdc.environment
        directory = self._directory()
        # What it logs unless told otherwise: a line for each session costs time and memory.
        usual = {"log_level": 3, **config}
        return Proxyd(directory, backend_dir=directory, config=usual, environment=environment)

    @cached_property
    def tls_settings(self) -> dict[str, ConfigValue]:
        """Of a conf file: TLS on, with RSA-2048 on both sides."""
        return {
            "listen_tls": 1,
            "listen_addr": "127.0.0.1",
            "tls_port": "0",
            "auth_tls": "none",
            "ca_file": str(self.pki / "CA/cacert.pem"),
            "cert_file": str(self.pki / "libvirt/servercert.pem"),
            "key_file": str(self.pki / "libvirt/private/serverkey.pem"),
            "crl_file": "",
        }

    @cached_property
    def pki(self) -> Path:
        """A CA's directory, with a server's certificate, and a client's in `client`."""
        directory = self._directory()
        authority = Authority.create(directory, name="figures", key=KEY)
        authority.server(HOST, names=["127.0.0.1"], key=KEY)
        authority.client("joe", key=KEY, to=flat(directory / "client"))
        return directory

    @cached_property
    def kdc(self) -> Kdc:
        kdc = self._stack.enter_context(Kdc(self._directory()))
        kdc.add("joe", SERVICE)
        return kdc

    @cached_property
    def ticket(self) -> Path:
        return self.kdc.tickets("joe")

    @property
    def environment(self) -> dict[str, str]:
        """Of a client with a ticket."""
        return dict(with_tickets(self.kdc, self.ticket))

    def volumes(self, daemon: Libvirtd) -> Sequence[str]:
        """Volumes of VOLUME_SIZE without content in a running pool of that daemon."""
        made = self._volumes.get(daemon.pid)
        if made is None:
            where = MEMORY if MEMORY.is_dir() else None
            directory = Path(tempfile.mkdtemp(prefix="pxd", dir=where))
            self._stack.callback(shutil.rmtree, directory)
            made = [str(directory / f"volume{number}") for number in range(VOLUMES)]
            self._volumes[daemon.pid] = made
            for each in made:
                with open(each, "wb") as file:
                    file.truncate(VOLUME_SIZE)
            uri = unix_uri("qemu:///system", daemon.sock)
            # The first question about QEMU takes seconds.
            begin = f"capabilities; pool-define-as figures dir --target {directory}"
            virsh(uri, f"{begin}; pool-start figures", deadline_s=DEADLINE_S).succeeded()
        return made

    @cached_property
    def _volumes(self) -> dict[int, list[str]]:
        return {}

    def unix(self, proxyd: Proxyd) -> str:
        """KIND:ADDRESS for the load tool, with whose processes are measured; and the next two."""
        return f"unix:{proxyd.sock},pid={proxyd.pid}"

    def tls(self, proxyd: Proxyd) -> str:
        return f"tls:{address(proxyd, 'tls')},pid={proxyd.pid}"

    def gssapi(self, proxyd: Proxyd) -> str:
        port = address(proxyd, "tcp").rpartition(":")[2]
        return f"gssapi:{HOST}:{port},pid={proxyd.pid}"

    def direct(self) -> str:
        return f"unix:{self.backend.sock},pid={self.backend.pid}"

    @property
    def tls_words(self) -> Sequence[str]:
        """For the load tool: with which files it goes there."""
        client = self.pki / "client"
        files = {"--cacert": "cacert.pem", "--cert": "clientcert.pem", "--key": "clientkey.pem"}
        return [word for flag, name in files.items() for word in (flag, str(client / name))]


@contextmanager
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        # What one libvirtd has found out about QEMU the others read.
        os.environ.setdefault(SHARED, str(stack.enter_context(short_directory())))
        yield Stage(stack)


@contextmanager
def told_ready(path: Path) -> Iterator[list[float]]:
    """Listens where systemd would; gives what will hold the moment of READY, once there is one."""
    moments: list[float] = []

    def listen() -> None:
        while words := listener.recv(4096).split(b"\n"):
            if b"READY=1" in words:
                moments.append(time.monotonic())
            if words == [b""]:
                return

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield moments
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", str(path))
            thread.join()
            os.unlink(path)


def address(proxyd: Proxyd, transport: str) -> str:
    """HOST:PORT of its listener; its log, at the usual level, does not say it."""
    command = [sys.executable, "-m", "proxyd", "status", "--json", "-f", str(proxyd.conf)]
    told = json.loads(run_to_end(command, deadline_s=DEADLINE_S).stdout)
    (found,) = (each for each in told["listeners"] if each["transport"] == transport)
    return str(found["address"])


def settled_kib(proxyd: Proxyd) -> int:
    """Its resident memory, once it has stayed the same for half a second."""
    seen: list[int] = []

    def is_settled() -> bool:
        seen.append(proxyd.rss_kib())
        return len(seen) > 25 and len(set(seen[-25:])) == 1

    wait_until(is_settled, DEADLINE_S, "proxyd's memory stays as it is")
    return seen[-1]
