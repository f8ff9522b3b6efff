"""A host of a release, booted, on which packages are installed as an administrator installs them.

Its files are those of script/tree's `host`: Debian with systemd, and neither libvirt nor Python.
Nothing that is written is left. It has no network: what apt finds is a directory of packages that
script/package has fetched, and the packages that are tried out.
"""

import os
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bed.command import clean_environment
from tests.bed.machine import Machine, escaped

ARCHIVE: Final = "/opt/archive"  # and what follows, on the host
TRIED: Final = "/opt/packages"
DEADLINE_S: Final = 600.0
UNATTENDED: Final = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
APT: Final = "apt-get --quiet --yes --no-install-recommends"
CONF: Final = "/etc/libvirt/virtproxyd.conf"
IN_A_NAMESPACE: Final = """
mount --bind "$1" "$2"
mount -t tmpfs tmpfs /run
shift 2
while [ "$1" != -- ]; do
    echo $$ >"$1/cgroup.procs"
    shift
done
shift
exec systemd-nspawn "$@"
"""

# What is on a host: of each file its kind, mode, owner and, in /etc and /usr, what it holds.
FILES: Final = r"""
find / -xdev -regextype posix-extended -regex \
    '/(proc|sys|dev|run|tmp|opt|root|var/(tmp|log|cache|lib/(apt|dpkg|systemd)))' -prune -o \
    -printf '%y %m %u:%g %l %p\n'
find /etc /usr -xdev -type f -print0 | xargs -0 md5sum
"""
ACCOUNTS: Final = "getent passwd; getent group"
UNITS: Final = """
list="--plain --no-legend"
systemctl list-unit-files $list | awk '{ print $1, $2 }'
systemctl list-units $list --state=active --type=service,socket | awk '{ print $1, $4 }'
"""


@dataclass(frozen=True, slots=True)
class State:
    """Lines of each."""

    files: frozenset[str]
    accounts: frozenset[str]
    units: frozenset[str]

    def paths_that_differ(self, other: "State") -> set[str]:
        return {line.split()[-1] for line in self.files ^ other.files}


class Host(Machine):
    """`system` is its root directory, `archive` what apt finds, `tried` the packages at hand."""

    name = "host"

    def __init__(self, directory: Path, system: Path, archive: Path, tried: Path) -> None:
        super().__init__(directory)
        self.system = system
        self.archive = archive
        self.tried = tried

    def _launch(self) -> "subprocess.Popen[bytes]":
        root = str(self.directory / "root")
        command = [
            *("unshare", "--mount", "sh", "-ec", IN_A_NAMESPACE, "host"),
            *(str(self.system), root, *map(str, self._groups), "--"),
            *("--quiet", "--register=no", "--keep-unit", "--machine=host"),
            *("-D", root, "--volatile=overlay", "--private-network", "--capability=all"),
            *("--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=read-only"),
            "--notify-ready=yes",
            f"--bind-ro={escaped(self.archive)}:{ARCHIVE}",
            f"--bind-ro={escaped(self.tried)}:{TRIED}",
            f"--bind-ro={escaped(self.directory / 'machine-id')}:/etc/machine-id",
            *("--boot", "fstab=no", "systemd.mask=systemd-machine-id-commit.service"),
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

    def start(self) -> None:
        super().start()
        # The tree's own, which starts nothing, and asks the network.
        self.shell("rm -f /usr/sbin/policy-rc.d /etc/dpkg/dpkg.cfg.d/bed /etc/apt/sources.list.d/*")
        self.write("/etc/apt/sources.list", f"deb [trusted=yes] file:{ARCHIVE} ./\n")
        self.shell("apt-get --quiet update")

    def shell(self, line: str) -> str:
        """Type a line into root's bash, with nobody there who could answer."""
        typed = ["bash", "-c", line]
        done = self.run(*typed, environment=UNATTENDED, deadline_s=DEADLINE_S)
        return done.succeeded()

    def apt(self, words: str) -> str:
        """Returns what it said, on both of its outputs."""
        return self.shell(f"{APT} {words} </dev/null 2>&1")

    def install(self, package: Path, options: str = "") -> float:
        """One of those that are tried, as `apt install ./FILE`. Returns how long it took."""
        path = shlex.quote(f"{TRIED}/{package.relative_to(self.tried)}")
        began = time.monotonic()
        self.apt(f"{options} install {path}")
        return time.monotonic() - began

    def state(self) -> State:
        return State(
            *(frozenset(self.shell(line).splitlines()) for line in (FILES, ACCOUNTS, UNITS))
        )


def system_of(release: str) -> Path:
    """Where script/tree has it."""
    bed = Path(os.environ.get("PROXYD_BED", Path(__file__).parents[2] / ".bed"))
    return bed / f"{release}-host" / "root"
