"""Against a real libvirtd over its UNIX socket."""

import json

import pytest

from loadtest.cli import main
from loadtest.statuses import FAILED, OK

pytestmark = pytest.mark.system

SIZE = 16 << 20
TOLD = "16MiB"


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


@pytest.mark.parametrize("sparse", [False, True])
def test_a_volume_comes_down(compare, make_volume, sparse):
    volume = str(make_volume(SIZE, sparse=sparse))
    told = compare("--bulk", TOLD, "--volume", volume, "--json", "--rounds", "2")
    direct, again = json.loads(told)["targets"]
    assert again["combined"]["transfers"] == 2
    assert again["combined"]["bytes_per_s"] > SIZE / 10
    assert direct["combined"]["cpu_per_transfer_ns"]["pid"] > 0
    assert 0.1 < again["against_first"]["seconds_ratio"]["value"] < 10


def test_a_volume_goes_up(compare, make_volume):
    target = make_volume(SIZE)
    before = target.read_bytes()
    told = compare("--bulk", TOLD, "--volume", str(target), "--upload", "--rounds", "1")
    assert told.startswith("compare upload of 16 MiB: 1 round of 1 transfer per target")
    assert target.stat().st_size == SIZE
    assert target.read_bytes() != before


def test_only_the_part_that_was_asked_for_is_moved(compare, make_volume):
    volume = make_volume(SIZE)
    compare("--bulk", "5KiB", "--volume", str(volume), "--rounds", "1")
    compare("--bulk", "5KiB", "--volume", str(volume), "--rounds", "1", "--upload")
    assert volume.stat().st_size == SIZE


def test_more_than_the_volume_holds_is_refused(compare, make_volume):
    volume = str(make_volume(SIZE))
    told = compare("--bulk", "1GiB", "--volume", volume, status=FAILED)
    assert f"{volume} holds {SIZE} bytes and not the {1 << 30} of --bulk" in told


def test_a_volume_that_is_not_there_is_told(compare, pool):
    told = compare("--bulk", TOLD, "--volume", f"{pool[0]}/none.img", status=FAILED)
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
