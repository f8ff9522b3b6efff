"""Real-life files: what stands in them is read as the table says, wherever it is run."""

import pytest

from proxyd.config.agreement import clashes_of
from proxyd.config.sources import examine
from proxyd.config.transports import BY_NETWORK
from tests.config.real_life import FILES, ROWS

# What only a host can tell, and not the file.
OF_THE_HOST = {"group-not-there", "kolla-log-elsewhere", "sock-dir-not-there", "stdout-log"}
OF_ITS_ADDRESSES = {"role-address-not-here"}


def test_there_are_sixty_and_each_has_its_row():
    names = [row.name for row in ROWS]
    assert sorted(names) == sorted(path.stem for path in FILES.glob("*.conf"))
    assert len(set(names)) == len(names) >= 60
    assert len({row.source for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_where_verdicts_differ_there_is_a_reason_and_nowhere_else(row):
    verdicts = {verdict.partition(":")[0] for verdict in (row.libvirtd_9, row.libvirtd_11)}
    assert bool(row.reason) is (verdicts != {row.ours})
    assert bool(row.says) is (row.ours != "serves")


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_stands_in_the_file_is_read_as_the_table_says(row):
    examined = examine(row.text, "FILE", privileged=True)
    stops = row.ours.startswith("exit ") and row.name not in OF_THE_HOST
    assert bool(examined.faults) is stops
    if stops:
        assert row.says in str(examined.faults[0])
        assert str(examined.faults[0]).startswith("FILE:")
        return
    settings = examined.loaded.settings
    broken = {
        way.name: clash.expected
        for way in BY_NETWORK
        if getattr(settings, way.traits.listen)
        for clash in clashes_of(settings, way)
    }
    if row.ours.startswith("serves without ") and row.name not in OF_ITS_ADDRESSES:
        assert row.says in broken.pop(row.ours.removeprefix("serves without "))
    assert broken == {}
