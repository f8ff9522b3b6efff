"""Two hosts and a cable between them: network namespaces of the test's own."""

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

SERVER: Final = "10.77.0.1"
CLIENT: Final = "10.79.0.1"
_CABLE: Final = "cable"
_CLONE_NEWNET: Final = 0x40000000


@dataclass(frozen=True)
class Host:
    """One of them. `command` makes a command run there."""

    name: str

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.name

    @property
    def command(self) -> tuple[str, ...]:
        return ("nsenter", f"--net={self.path}")

    def run(self, function: Callable[[], T]) -> T:
        """What it returns in a thread whose sockets are there."""
        result: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                _enter(self.path)
                result.append(function())
            except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
                errors.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return result[0]


@contextmanager
def two_hosts(addresses: Sequence[str]) -> Iterator[tuple[Host, Host]]:
    """A server, at SERVER, and who reaches it from CLIENT and these."""
    server, others = (Host(f"proxyd-{os.getpid()}-{each}") for each in ("server", "others"))
    with ExitStack() as undo:
        for host in (server, others):
            _ip("netns", "add", host.name)
            undo.callback(_ip, "netns", "del", host.name)
        _ip(
            *("-n", server.name, "link", "add", _CABLE, "type", "veth"),
            *("peer", "name", _CABLE, "netns", others.name),
        )
        for host, its_addresses in ((server, [SERVER]), (others, [CLIENT, *addresses])):
            _ip("-n", host.name, "link", "set", "lo", "up")
            _ip("-n", host.name, "link", "set", _CABLE, "up")
            for each in its_addresses:
                _ip("-n", host.name, "address", "add", f"{each}/8", "dev", _CABLE)
        yield server, others


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _enter(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open() as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")
