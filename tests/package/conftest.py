"""The packages that script/package has built, and hosts to install them on."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bed.daemon import short_directory
from tests.package.host import Host, system_of
from tests.package.other_packages import c_daemon, older

# As older as a version can be.
BEFORE = "0.0.9"


@dataclass(frozen=True, slots=True)
class Packages:
    """All in one directory, `tried`; `archive` is what they depend on."""

    release: str
    archive: Path
    tried: Path
    daemon: Path
    loadtest: Path
    before: Path
    libvirts: Path


@pytest.fixture(scope="session")
def packages(request):
    given = request.config.getoption("--packages")
    archive = Path(given) / "archive"
    release = (archive / "release").read_text().strip()
    (daemon,) = Path(given).glob("proxyd_*.deb")
    (loadtest,) = Path(given).glob("proxyd-loadtest_*.deb")
    with short_directory() as tried:
        for each in (daemon, loadtest):
            (tried / each.name).write_bytes(each.read_bytes())
        yield Packages(
            release,
            archive,
            tried,
            tried / daemon.name,
            tried / loadtest.name,
            older(tried / daemon.name, BEFORE, tried),
            c_daemon(
                tried, "lib/systemd/system" if release == "bookworm" else "usr/lib/systemd/system"
            ),
        )


@pytest.fixture
def host(packages):
    system = system_of(packages.release)
    with (
        short_directory() as directory,
        Host(directory, system, packages.archive, packages.tried) as booted,
    ):
        yield booted
