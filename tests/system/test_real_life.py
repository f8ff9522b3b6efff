"""Real-life files by the daemons themselves, on a host that is prepared for libvirt."""

import pytest

from tests.bed import versions
from tests.bed.daemon import short_directory
from tests.bed.prepared_host import PreparedHost
from tests.config.real_life import ROWS

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def host():
    with short_directory() as directory:
        yield PreparedHost(directory)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_proxyd_makes_of_a_file_what_the_table_says(host, row):
    verdict, _, says = host.of_proxyd(row.text).partition(": ")
    if row.ours.startswith("serves without "):
        assert verdict == f"serves; {row.ours.removeprefix('serves without ')} not"
    else:
        assert verdict == row.ours
    assert row.says in says


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_libvirtd_makes_of_a_file_what_the_table_says(host, row):
    said = host.of_libvirtd(row.text).replace(str(host.directory / "conf"), "FILE")
    assert said == (row.libvirtd_9 if versions.libvirt() < (11,) else row.libvirtd_11)
