"""The real virsh and virt-admin, pointed at a UNIX socket."""

import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import quote, urlencode

from tests.bed.command import Finished, held_open, run_to_end


def unix_uri(name: str, sock: Path, **query: str) -> str:
    """A client's URI for a driver's name (`qemu:///system`) over one UNIX socket.

    The transport is named, because without it virsh would open test:///default inside itself.
    """
    driver, rest = name.split(":", 1)
    more = f"&{urlencode(query, quote_via=quote)}" if query else ""
    return f"{driver}+unix:{rest}?socket={quote(str(sock))}{more}"


def tls_uri(name: str, address: str, pkipath: Path, **query: str) -> str:
    """A client's URI for a driver's name over TLS to HOST:PORT, with the files in `pkipath`."""
    driver, rest = name.split(":///", 1)
    more = urlencode({"pkipath": str(pkipath), **query}, quote_via=quote)
    return f"{driver}+tls://{address}/{rest}?{more}"


def admin_uri(sock: Path, driver: str = "libvirtd") -> str:
    """virt-admin's URI for one admin socket; the driver is the kind of daemon, say virtproxyd."""
    return f"{driver}:///system?socket={quote(str(sock))}"


def virsh(
    uri: str,
    *arguments: str,
    readonly: bool = False,
    user: int | None = None,
    environment: Mapping[str, str] | None = None,
    deadline_s: float = 30,
) -> Finished:
    """Run one virsh command to its end."""
    flags = ["--readonly"] if readonly else []
    command = ["virsh", *flags, "-c", uri, *arguments]
    return run_to_end(command, deadline_s=deadline_s, user=user, environment=environment)


def held_virsh(
    uri: str,
    *arguments: str,
    user: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> AbstractContextManager[subprocess.Popen[str]]:
    """A virsh that stays connected while the block lasts and takes commands on its stdin.

    Between the answers its stdout has the prompt and the commands. With arguments it runs that
    command instead, say `event --all --loop`.
    """
    return held_open(
        ["virsh", "--quiet", "-c", uri, *arguments], user=user, environment=environment
    )


def virt_admin(
    sock: Path,
    *arguments: str,
    driver: str = "libvirtd",
    user: int | None = None,
    deadline_s: float = 30,
) -> Finished:
    """Run one virt-admin command to its end."""
    command = ["virt-admin", "-c", admin_uri(sock, driver), *arguments]
    return run_to_end(command, deadline_s=deadline_s, user=user)
