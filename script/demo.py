"""The demo behind script/run: a real libvirtd, proxyd before it, and commands to paste.

All of it lives in .run of the checkout until SIGINT or SIGTERM. The libvirtd stands in for every
modular daemon, because it does not care under which name it is reached.
"""

import os
import re
import select
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from certs.authority import Authority
from certs.places import flat
from proxyd.auth.locking import NotLocked, own_lock
from tests.bed.daemon import SOCKET_PATH_LIMIT, ConfigValue
from tests.bed.libvirtd import Libvirtd, kill_if_there
from tests.bed.proxyd import Proxyd
from tests.bed.virsh import admin_uri, held_virsh, tls_uri, unix_uri, virt_admin
from tests.bed.waiting import wait_until

CHECKOUT: Final = Path(__file__).resolve().parents[1]
RUN: Final = CHECKOUT / ".run"
LOCK: Final = CHECKOUT / ".run.lock"
LONGEST_SOCKET: Final = "backend/run/libvirt/libvirt-admin-sock"
SECONDARY: Final = ("network", "storage", "secret", "nodedev", "interface", "nwfilter")
DAEMONS: Final = tuple(f"virt{driver}d" for driver in ("qemu", *SECONDARY))
READ_LOG_EVERY_S: Final = 0.2


def main() -> int:
    """Run until a signal; 0 after it, 1 when the demo runs already or a daemon fails."""
    signals = signal_pipe()
    with ExitStack() as stack:
        if not stack.enter_context(only_one()):
            say(f"The demo runs already in {CHECKOUT}: stop that one with Ctrl-C first.")
            return 1
        try:
            run = stack.enter_context(run_directory())
            say("Starting libvirtd and proxyd")
            make_certificates(run)
            backend = stack.enter_context(backend_in(run))
            proxyd = stack.enter_context(proxyd_in(run, backend))
            # It stays connected, so that the daemon behind has a client to tell about.
            uri = unix_uri(backend.uri("test"), proxyd.sock)
            held = stack.enter_context(held_virsh(uri, "event", "--all", "--loop"))
            say(*tour(backend, proxyd, run, held.pid), "Ctrl-C stops all of it. proxyd's log:", "")
        except (TimeoutError, ChildProcessError, AssertionError) as failure:
            say(str(failure), *getattr(failure, "__notes__", ()))
            return 1
        follow(proxyd, signals)
        if not asked_to_stop(signals):
            say(f"proxyd ended by itself with status {proxyd.daemon.status}")
            return 1
        say("Stopping")
    return 0


def say(*lines: str) -> None:
    """Print at once, also into a pipe."""
    print(*lines, sep="\n", flush=True)


def signal_pipe() -> int:
    """A descriptor that becomes readable with the first signal to stop.

    The handlers are set by hand: a shell that starts us in the background has SIGINT ignored.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return reading


def asked_to_stop(signals: int, within_s: float = 0) -> bool:
    """Whether such a signal has come, or comes within a while."""
    return bool(select.select([signals], [], [], within_s)[0])


@contextmanager
def only_one() -> Iterator[bool]:
    """Whether we are the only demo of this checkout."""
    with ExitStack() as stack:
        try:
            stack.enter_context(own_lock(LOCK, patience_s=0))
        except NotLocked as error:
            say(str(error))
            yield False
        else:
            yield True


@contextmanager
def run_directory() -> Iterator[Path]:
    """.run, or what it links to where sockets would have too long an address or logs a space."""
    remove_left_over()
    # log_outputs is split at spaces and knows no quotes.
    plain = re.fullmatch(r"[\w./+-]+", str(RUN)) is not None
    if plain and len(os.fsencode(RUN / LONGEST_SOCKET)) <= SOCKET_PATH_LIMIT:
        RUN.mkdir(mode=0o700)
    else:
        RUN.symlink_to(tempfile.mkdtemp(prefix="pxd", dir="/tmp"))
    try:
        yield RUN.resolve()
    finally:
        remove_run()


def remove_left_over() -> None:
    """Remove what a demo that was killed has left; we hold the lock, so nobody uses it."""
    if not os.path.lexists(RUN):
        return
    run = RUN.resolve()
    for pid_file in (run / "pid", run / "backend" / "pid"):
        with suppress(OSError, ValueError):
            pid = int(pid_file.read_text())
            # By now the number may be another program's.
            if os.fsencode(pid_file) in Path(f"/proc/{pid}/cmdline").read_bytes():
                kill_if_there(pid)
    remove_run()


def remove_run() -> None:
    if RUN.is_symlink():
        shutil.rmtree(RUN.resolve(), ignore_errors=True)
        RUN.unlink()
    else:
        shutil.rmtree(RUN)


def backend_in(run: Path) -> Libvirtd:
    """The libvirtd, reached as every modular daemon in .run/daemons."""
    (run / "backend").mkdir()
    (run / "daemons").mkdir()
    backend = Libvirtd(run / "backend")
    backend.serve_as(run / "daemons", *DAEMONS)
    return backend


def make_certificates(run: Path) -> None:
    """A CA of the demo's own, its server's certificate, and one for a client."""
    authority = Authority.create(run / "pki", name="proxyd demo CA")
    authority.server("localhost", names=["127.0.0.1"])
    authority.client("demo", to=flat(run / "client"))


def proxyd_in(run: Path, backend: Libvirtd) -> Proxyd:
    """The proxyd, which finds the daemons there and is told where the test hypervisor is."""
    pki = run / "pki"
    config: dict[str, ConfigValue] = {
        "proxyd_routes": [f"test={backend.sock}"],
        "listen_tls": 1,
        "listen_addr": "127.0.0.1",
        "tls_port": "0",  # any that is free
        "ca_file": str(pki / "CA/cacert.pem"),
        "cert_file": str(pki / "libvirt/servercert.pem"),
        "key_file": str(pki / "libvirt/private/serverkey.pem"),
    }
    return Proxyd(run, backend_dir=run / "daemons", config=config)


def tour(backend: Libvirtd, proxyd: Proxyd, run: Path, held_pid: int) -> list[str]:
    """The commands to paste, each below a line that says what it shows."""
    stops = [
        ("libvirt's test hypervisor", virsh_line(backend.uri("test"), proxyd.sock, "list --all")),
        ("QEMU", virsh_line(backend.uri(), proxyd.sock, "list --all")),
        (
            "the same, read-only",
            virsh_line(backend.uri(), proxyd.sock_ro or proxyd.sock, "--readonly list --all"),
        ),
        (
            "over TLS, with a certificate made by python -m certs",
            f"virsh -c {shlex.quote(over_tls(backend, proxyd, run / 'client'))} list --all",
        ),
        ("networks", virsh_line(backend.uri("network"), proxyd.sock, "net-list --all")),
        ("proxyd's clients", admin_line(proxyd, "client-list virtproxyd")),
        (
            "how it is, and more of its clients than virt-admin has words for",
            f"{shlex.quote(sys.executable)} -m proxyd status -s {shlex.quote(str(run))}",
        ),
        ("the clients of the daemon behind proxyd", admin_line(backend, "client-list libvirtd")),
        (
            f"one of them, a virsh that this demo holds open: not proxyd, but process {held_pid}",
            admin_line(backend, f"client-info libvirtd {first_client(backend)}"),
        ),
    ]
    return [line for what, command in stops for line in (f"# {what}", f"  {command}", "")]


def virsh_line(name: str, sock: Path, command: str) -> str:
    return f"virsh -c {shlex.quote(unix_uri(name, sock))} {command}"


def over_tls(backend: Libvirtd, proxyd: Proxyd, client: Path) -> str:
    return tls_uri(backend.uri(), proxyd.tls_address(), client)


def admin_line(daemon: Libvirtd | Proxyd, command: str) -> str:
    return f"virt-admin -c {shlex.quote(admin_uri(daemon.admin_sock))} {command}"


def first_client(backend: Libvirtd) -> str:
    """The number that the backend gave to the client held open, once that has arrived."""

    def found() -> re.Match[str] | None:
        listing = virt_admin(backend.admin_sock, "client-list", "libvirtd").succeeded()
        return re.search(r"^ +(\d+) +unix ", listing, re.MULTILINE)

    return wait_until(found, 15, "a client arrives at libvirtd through proxyd")[1]


def follow(proxyd: Proxyd, signals: int) -> None:
    """Show proxyd's log as it grows, until a signal or until proxyd ends."""
    with proxyd.log.open() as log:
        while proxyd.daemon.running and not asked_to_stop(signals, READ_LOG_EVERY_S):
            print(log.read(), end="", flush=True)
        print(log.read(), end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())  # noqa: TID251 (the one place that ends the process)
