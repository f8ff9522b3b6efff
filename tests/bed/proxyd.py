"""proxyd as a process, on sockets of its own directory."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from tests.bed.daemon import ConfigValue, Daemon, conf_text, descriptors, status_field
from tests.bed.waiting import wait_until

WRAPPER: tuple[str, ...] = ()  # a command that runs the daemon, say prlimit
AS_USUAL: Final = ("-m", "proxyd")
# Linux before 6.16 does not know SO_PASSRIGHTS: an option of this number is known to none.
ON_AN_OLD_KERNEL: Final = (
    "-c",
    """
import sys
from proxyd.cli.main import main
from proxyd.endpoint import ancillary
ancillary.SO_PASSRIGHTS = 9999
sys.exit(main())
""",
)


class Proxyd:
    """A proxyd below directory, started by start() or a with block.

    config is the text of a whole conf file, or settings that add to or replace these (None leaves
    one out): unix_sock_dir is the directory, the daemons are looked for in backend_dir, both UNIX
    sockets want no authentication, the log goes to DIR/log at info. Run by another user it is that
    user's session daemon, which has no read-only socket; the directory is given to that user.
    Of a `service` systemd listens to the process that is the daemon, here with deaf ears; else the
    process that was started stays until the daemon ends, whichever process that is by then.
    Without `passrights`, or with PROXYD_TEST_NO_PASSRIGHTS=1 in the tests' environment, it finds a
    kernel that knows no SO_PASSRIGHTS, as those before Linux 6.16. `program` is what Python is to
    run, where that is not proxyd as usual.
    """

    def __init__(
        self,
        directory: Path,
        *,
        backend_dir: Path,
        config: Mapping[str, ConfigValue | None] | str | None = None,
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
        passrights: bool = True,
        service: bool = False,
        words: Sequence[str] = (),
        program: Sequence[str] | None = None,
    ) -> None:
        self.directory = directory
        self.user = user
        self.daemon = Daemon("proxyd", directory)
        self.log = self.daemon.log
        self.conf = self.daemon.conf
        self.sock = directory / "libvirt-sock"
        session = (os.geteuid() if user is None else user) != 0
        self.sock_ro = None if session else directory / "libvirt-sock-ro"
        self.admin_sock = directory / "libvirt-admin-sock"
        self.backend_dir = backend_dir
        self._environment = dict(environment or {})
        self.service = service
        if service:
            self._environment["NOTIFY_SOCKET"] = str(directory / "nobody")
        self.passrights = passrights and os.environ.get("PROXYD_TEST_NO_PASSRIGHTS") != "1"
        self._words = tuple(words)
        self._program = program or (AS_USUAL if self.passrights else ON_AN_OLD_KERNEL)
        self.configure(config)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def configure(self, config: Mapping[str, ConfigValue | None] | str | None) -> None:
        """Write the conf file anew; a running proxyd reads it at its next reload."""
        fixed: dict[str, ConfigValue] = {
            "unix_sock_dir": str(self.directory),
            "proxyd_backend_dir": str(self.backend_dir),
            "auth_unix_rw": "none",
            "auth_unix_ro": "none",
            "log_level": 2,
            "log_outputs": f"2:file:{self.log}",
        }
        text = config if isinstance(config, str) else conf_text({**fixed, **(config or {})})
        self.conf.write_text(text)
        if self.user is not None:
            for path in (self.directory, self.conf):
                os.chown(path, self.user, self.user)

    def start(self) -> None:
        """Start it and wait until its read-write socket accepts."""
        self.daemon.start(
            [
                *WRAPPER,
                *(sys.executable, *self._program),
                *("-f", str(self.conf)),
                *("-p", str(self.daemon.pid_file)),
                *self._words,
            ],
            sock=self.sock,
            environment=self._environment,
            user=self.user,
        )

    def stop(self) -> int | None:
        """SIGTERM, wait, and return the exit status; one that does not end is an error."""
        return self.daemon.stop()

    @property
    def pid(self) -> int:
        return self.daemon.pid

    def log_text(self) -> str:
        """What it logged so far."""
        return self.daemon.log_text()

    def tls_address(self, host: str = "127.0.0.1") -> str:
        """HOST:PORT of its TLS listener on that address, as it stands in a URI."""
        return self._address("tls", host)

    def tcp_address(self, host: str = "127.0.0.1") -> str:
        """HOST:PORT of its TCP listener, likewise."""
        return self._address("tcp", host)

    def _address(self, transport: str, host: str) -> str:
        spelled = f"[{host}]" if ":" in host else host
        pattern = re.compile(rf"serves .*{transport} ({re.escape(spelled)}:[0-9]+)")
        return wait_until(
            lambda: pattern.search(self.log_text()), 10, f"proxyd says that it serves {host}"
        )[1]

    def descriptors(self) -> dict[int, str]:
        """Its open descriptors and what each leads to."""
        return descriptors(self.pid)

    def rss_kib(self) -> int:
        """Its resident memory."""
        return status_field(self.pid, "VmRSS")

    def threads(self) -> int:
        """How many threads it has."""
        return status_field(self.pid, "Threads")
