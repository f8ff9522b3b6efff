"""The demo behind script/run: a real libvirtd, proxyd before it, and commands to paste.

All of it lives in .run of the checkout until SIGINT or SIGTERM. The libvirtd stands in for every
modular daemon, because it does not care under which name it is reached.

It may run in a private tree, whose programs the user's shell does not find: then PROXYD_DEMO_ENTER
has the words, quoted for bash, before which a command runs in there, and the commands that are
printed call small scripts in .run. PROXYD_DEMO_BY has what else is to stand before a command: sudo,
where the user has started the demo by that.
"""

import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from certs.authority import Authority
from certs.places import flat
from proxyd.sasl.lock import NotLocked, own_lock
from tests.bed.command import clean_environment, end_process
from tests.bed.daemon import SOCKET_PATH_LIMIT, ConfigValue
from tests.bed.libvirtd import Libvirtd, kill_if_there
from tests.bed.proxyd import Proxyd
from tests.bed.virsh import admin_uri, tls_uri, unix_uri, virt_admin
from tests.bed.waiting import wait_until

CHECKOUT: Final = Path(__file__).resolve().parents[1]
RUN: Final = CHECKOUT / ".run"
LOCK: Final = CHECKOUT / ".run.lock"
LONGEST_SOCKET: Final = "backend/run/libvirt/libvirt-admin-sock"
SECONDARY: Final = ("network", "storage", "secret", "nodedev", "interface", "nwfilter")
DAEMONS: Final = tuple(f"virt{driver}d" for driver in ("qemu", *SECONDARY))
LOOK_EVERY_S: Final = 0.2
COMMANDS: Final = ("virsh", "virt-admin", "proxyd", "proxyd-loadtest")


def main(arguments: list[str]) -> int:
    """Run until a signal; 0 after it, 1 when the demo runs already or a daemon fails."""
    verbose = arguments == ["--verbose"]
    signals = signal_pipe()
    with ExitStack() as stack:
        if not stack.enter_context(only_one()):
            say(f"The demo runs already in {CHECKOUT}: stop that one with Ctrl-C first.")
            return 1
        try:
            run = stack.enter_context(run_directory())
            print("Starting libvirtd and proxyd", file=sys.stderr, flush=True)
            make_certificates(run)
            backend = stack.enter_context(backend_in(run))
            proxyd = stack.enter_context(proxyd_in(run, backend))
            held = stack.enter_context(held_client(backend, proxyd))
            tour = Tour(backend, proxyd, run, held.pid)
            say("", *tour.lines(verbose=verbose))
        except (TimeoutError, ChildProcessError, AssertionError) as failure:
            say(str(failure), *getattr(failure, "__notes__", ()))
            return 1
        look_on(proxyd, held, signals, verbose=verbose)
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


@contextmanager
def held_client(backend: Libvirtd, proxyd: Proxyd) -> Iterator["subprocess.Popen[bytes]"]:
    """A virsh that stays connected, so that there is a client to show, and to cut off."""
    uri = unix_uri(backend.uri("test"), proxyd.sock)
    with subprocess.Popen(
        ["virsh", "--quiet", "-c", uri, "event", "--all", "--loop"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            end_process(process)


class Tour:
    """The commands to paste, each below a line that says what it shows."""

    def __init__(self, backend: Libvirtd, proxyd: Proxyd, run: Path, held_pid: int) -> None:
        self.backend = backend
        self.proxyd = proxyd
        self.run = run
        self.held_pid = held_pid
        self.programs = programs_in(run)

    def lines(self, *, verbose: bool) -> list[str]:
        stops = self.short()
        if verbose:
            stops[2:2] = self.more()
        end = "Ctrl-C here stops all of it." + (
            " proxyd's log:" if verbose else " (script/run -v shows more to try, and proxyd's log.)"
        )
        return [
            "proxyd runs before a libvirtd of its own. To paste into another terminal, anywhere:",
            *(line for what, command in stops for line in (f"# {what}", f"  {command}")),
            end,
        ]

    def short(self) -> list[tuple[str, str]]:
        number = first_client(self.proxyd, "virtproxyd")
        over_tls = tls_uri(self.backend.uri(), self.proxyd.tls_address(), self.run / "client")
        return [
            (
                "libvirt's test hypervisor, through proxyd",
                self.virsh(unix_uri(self.backend.uri("test"), self.proxyd.sock), "list --all"),
            ),
            (
                "QEMU, over TLS, with a certificate that proxyd certs has made",
                self.virsh(over_tls, "list --all"),
            ),
            (
                f"how proxyd is, and the end of its client {number}, a virsh that this demo holds",
                f"{self.proxyd_does('status')} && {self.proxyd_does('kick')} {number}",
            ),
            ("what proxyd adds to a call of the daemon behind it", self.load()),
        ]

    def more(self) -> list[tuple[str, str]]:
        number = first_client(self.backend, "libvirtd")
        read_only = self.proxyd.sock_ro or self.proxyd.sock
        return [
            (
                "QEMU, read-only",
                self.virsh(unix_uri(self.backend.uri(), read_only), "--readonly list --all"),
            ),
            (
                "networks, which another daemon has",
                self.virsh(
                    unix_uri(self.backend.uri("network"), self.proxyd.sock), "net-list --all"
                ),
            ),
            ("proxyd's clients, more than virt-admin can say", self.proxyd_does("clients")),
            ("proxyd's clients, by virt-admin", self.admin(self.proxyd, "client-list virtproxyd")),
            ("the clients of the daemon behind", self.admin(self.backend, "client-list libvirtd")),
            (
                f"to which the virsh held by this demo is not proxyd, but process {self.held_pid}",
                self.admin(self.backend, f"client-info libvirtd {number}"),
            ),
        ]

    def virsh(self, uri: str, command: str) -> str:
        return f"{self.programs['virsh']} -c {shlex.quote(uri)} {command}"

    def admin(self, daemon: Libvirtd | Proxyd, command: str) -> str:
        uri = shlex.quote(admin_uri(daemon.admin_sock))
        return f"{self.programs['virt-admin']} -c {uri} {command}"

    def proxyd_does(self, command: str) -> str:
        return f"{self.programs['proxyd']} {command} -s {shlex.quote(str(self.run))}"

    def load(self) -> str:
        targets = {"direct": self.backend.sock, "proxyd": self.proxyd.sock}
        given = [f"--target {name}=unix:{sock}" for name, sock in targets.items()]
        return " ".join([self.programs["proxyd-loadtest"], "compare", "--rounds 1", *given])


def programs_in(run: Path) -> dict[str, str]:
    """How a user's shell, wherever it is, calls these commands: words that are quoted."""
    own = Path(sys.prefix) / "bin"
    ours = {name: shlex.quote(str(own / name)) for name in COMMANDS if name.startswith("proxyd")}
    before = f"{by} " if (by := os.environ.get("PROXYD_DEMO_BY")) else ""
    enter = os.environ.get("PROXYD_DEMO_ENTER", "")
    if not enter:
        return {name: before + ours.get(name, name) for name in COMMANDS}
    for name in COMMANDS:
        script = run / name
        script.write_text(f'#!/bin/bash\nexec {enter} {ours.get(name, name)} "$@"\n')
        script.chmod(0o755)
    if os.statvfs(run).f_flag & os.ST_NOEXEC:
        before += "bash "
    return {name: before + shlex.quote(str(run / name)) for name in COMMANDS}


def first_client(daemon: Libvirtd | Proxyd, server: str) -> str:
    """The number that this daemon gave to the client held open, once that has arrived."""

    def found() -> re.Match[str] | None:
        listing = virt_admin(daemon.admin_sock, "client-list", server).succeeded()
        return re.search(r"^ +(\d+) +unix ", listing, re.MULTILINE)

    return wait_until(found, 15, "a client arrives at libvirtd through proxyd")[1]


def look_on(
    proxyd: Proxyd, held: "subprocess.Popen[bytes]", signals: int, *, verbose: bool
) -> None:
    """Until a signal, or until proxyd ends; what it logs meanwhile is shown if asked for."""
    cut_off = False
    with proxyd.log.open() as log:
        log.seek(0, os.SEEK_END)  # before that it was this demo that had a look
        while proxyd.daemon.running and not asked_to_stop(signals, LOOK_EVERY_S):
            if verbose:
                print(log.read(), end="", flush=True)
            if not cut_off and held.poll() is not None:
                cut_off = True
                say("The virsh held by this demo has been cut off.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))  # noqa: TID251 (the one place that ends the process)
