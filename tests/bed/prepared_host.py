"""What daemons make of a configuration file on a host that is prepared for libvirt.

The host has certificates in the usual places, a keytab, the groups and the directory for logs that
packages make, and the addresses 192.0.2.10 and 2001:db8::10; all of it in namespaces of its own.
"""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.bed.command import clean_environment, run_to_end
from tests.bed.daemon import serves
from tests.bed.libvirtd import NO_BUS
from tests.bed.pki import Pki
from tests.bed.waiting import wait_until
from tests.sasl.keytabs import entry

SCRIPT: Final = Path(__file__).with_name("prepared_host.sh")
DEADLINE_S: Final = 60.0
# What libvirt's daemons write for an error, and the last of them before the end says why.
_ERROR: Final = re.compile(r"^\S+ \S+: \d+: error : \w+:\d+ : (.*)$", re.MULTILINE)
# virtproxyd's own default; the monolithic daemon, which stands for it, has the other one.
_NO_TLS: Final = "\nlisten_tls = 0\n"
SERVES: Final = "serves"


class PreparedHost:
    """Below directory, which is short and root's. One daemon at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        pki = Pki(directory / "made")
        server = pki.server()
        crl = pki.revoke()
        for path, file in (
            ("CA/cacert.pem", pki.ca_file),
            ("CA/crl.pem", crl),
            ("libvirt/servercert.pem", server.cert_file),
            ("libvirt/private/serverkey.pem", server.key_file),
        ):
            target = directory / "pki" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
            target.chmod(0o600)
        (directory / "log").mkdir()
        (directory / "krb5.tab").write_bytes(b"\x05\x02" + entry(b"libvirt", b"localhost"))

    def of_libvirtd(self, text: str) -> str:
        """SERVES, or the exit status and the last error."""
        with self._running(["libvirtd", "--listen"], text + _NO_TLS, NO_BUS) as process:
            if self._serves(process.pid):
                return SERVES
            status = process.wait(DEADLINE_S)
        errors = _ERROR.findall(self._said())
        return f"exit {status}: {errors[-1] if errors else 'without a word'}"

    def of_proxyd(self, text: str) -> str:
        """SERVES, with what is not served, or the exit status and the reason."""
        with self._running([sys.executable, "-m", "proxyd"], text, {}) as process:
            if self._serves(process.pid):
                broken = self._troubles(process.pid)
                return "; ".join([SERVES, *(f"{way} not: {why}" for way, why in broken)])
            status = process.wait(DEADLINE_S)
        said = [line for line in self._said().splitlines() if line.startswith("proxyd: ")]
        return f"exit {status}: {said[-1].removeprefix('proxyd: ')}"

    def _serves(self, pid: int) -> bool:
        """Whether it runs and deals with clients; False when it has ended."""
        sock = Path(f"/proc/{pid}/root/run/libvirt/libvirt-sock")

        def known() -> list[bool]:
            # One that ends resets those who wait for it, which looks like being dealt with.
            if serves(sock) and serves(sock) and _runs(pid):
                return [True]
            return [] if _runs(pid) else [False]

        return wait_until(known, DEADLINE_S, "it serves or ends")[0]

    def _troubles(self, pid: int) -> list[tuple[str, str]]:
        admin = f"/proc/{pid}/root/run/libvirt/virtproxyd-admin-sock"
        command = [sys.executable, "-m", "proxyd", "status", "--no-probe", "--json", "-s", admin]
        told = json.loads(run_to_end(command, deadline_s=DEADLINE_S).stdout)
        return [(each["way"], each["text"]) for each in told["troubles"]]

    @contextmanager
    def _running(
        self, command: list[str], text: str, environment: Mapping[str, str]
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """A service as systemd starts one: its standard output is a socket."""
        conf = self.directory / "conf"
        conf.write_text(text)
        for each in (self.directory / "log").iterdir():
            each.unlink()
        ours, theirs = socket.socketpair()
        script = ["unshare", "--mount", "--net", "bash", str(SCRIPT), str(self.directory)]
        with ours, theirs, (self.directory / "said").open("wb") as said:
            process = subprocess.Popen(
                [*script, *command, "-f", str(conf), "-p", str(self.directory / "pid")],
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=said,
                env=clean_environment(environment),
                start_new_session=True,
            )
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def _said(self) -> str:
        logs = sorted((self.directory / "log").iterdir())
        texts = [path.read_text(errors="replace") for path in (*logs, self.directory / "said")]
        return "\n".join(texts)


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
