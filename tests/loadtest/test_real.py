"""Against a real libvirtd over its UNIX socket."""

import json
import os

import pytest

from loadtest.cli import OK, TARGET_FAILED, main
from tests.bed.daemon import short_directory
from tests.bed.libvirtd import Libvirtd
from tests.bed.virsh import unix_uri, virsh

pytestmark = pytest.mark.system

SIZE = 16 << 20
TOLD = "16MiB"


@pytest.fixture(scope="module")
def libvirtd():
    with short_directory() as directory, Libvirtd(directory) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def pool(libvirtd, tmp_path_factory):
    """A directory pool with a volume of random bytes and a sparse one."""
    directory = tmp_path_factory.mktemp("pool")
    (directory / "random.img").write_bytes(os.urandom(SIZE))
    with (directory / "sparse.img").open("wb") as sparse:
        sparse.truncate(SIZE)
    uri = unix_uri("qemu:///system", libvirtd.sock)
    virsh(uri, f"pool-define-as load dir --target {directory}; pool-start load").succeeded()
    yield directory
    virsh(uri, "pool-destroy load; pool-undefine load").succeeded()


@pytest.fixture
def compare(libvirtd, capsys):
    """Runs it with the same libvirtd under two names; gives what it prints."""

    def compare(*words, status=OK):
        address = f"unix:{libvirtd.sock},pid={libvirtd.pid}"
        both = ["--target", f"direct={address}", "--target", f"again={address}"]
        assert main(["compare", *both, *words]) == status
        printed = capsys.readouterr()
        return printed.out or printed.err

    return compare


@pytest.mark.parametrize("volume", ["random.img", "sparse.img"])
def test_a_volume_comes_down(compare, pool, volume):
    told = compare("--bulk", TOLD, "--volume", f"{pool}/{volume}", "--json", "--rounds", "2")
    direct, again = json.loads(told)["targets"]
    assert again["combined"]["transfers"] == 2
    assert again["combined"]["bytes_per_s"] > SIZE / 10
    assert direct["combined"]["cpu_per_transfer_ns"]["pid"] > 0
    assert 0.1 < again["against_first"]["seconds_ratio"]["value"] < 10


def test_a_volume_goes_up(compare, pool):
    target = pool / "random.img"
    before = target.read_bytes()
    told = compare("--bulk", TOLD, "--volume", str(target), "--upload", "--rounds", "1")
    assert told.startswith("compare upload of 16 MiB: 1 round of 1 transfer per target")
    assert target.stat().st_size == SIZE
    assert target.read_bytes() != before


def test_only_the_part_that_was_asked_for_is_moved(compare, pool):
    compare("--bulk", "5KiB", "--volume", f"{pool}/random.img", "--rounds", "1")
    compare("--bulk", "5KiB", "--volume", f"{pool}/random.img", "--rounds", "1", "--upload")
    assert (pool / "random.img").stat().st_size == SIZE


def test_more_than_the_volume_holds_is_refused(compare, pool):
    volume = f"{pool}/random.img"
    told = compare("--bulk", "1GiB", "--volume", volume, status=TARGET_FAILED)
    assert f"{volume} holds {SIZE} bytes and not the {1 << 30} of --bulk" in told


def test_a_volume_that_is_not_there_is_told(compare, pool):
    told = compare("--bulk", TOLD, "--volume", f"{pool}/none.img", status=TARGET_FAILED)
    assert "target direct: STORAGE_VOL_LOOKUP_BY_PATH: Storage volume not found" in told


@pytest.mark.parametrize("at_a_time", ["1", "8"])
def test_new_sessions_are_counted(compare, at_a_time):
    told = compare(
        *("--sessions", "-c", at_a_time, "--rounds", "1", "--slices", "2", "--slice", "0.1"),
        "--json",
    )
    direct, again = json.loads(told)["targets"]
    for target in (direct, again):
        assert target["combined"]["sessions"] >= int(at_a_time)
        assert target["combined"]["cpu_per_session_ns"]["pid"] > 0
    assert 0.2 < again["against_first"]["rate_ratio"]["value"] < 5
