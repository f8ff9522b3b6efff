"""Transfers against fakes, and whole bulk runs."""

import dataclasses
from contextlib import closing

import pytest

from loadtest.client import open_session
from loadtest.failures import TargetFailure
from loadtest.figures import transfer_against
from loadtest.scenarios.bulk import Plan, run
from loadtest.targets import parse_targets
from loadtest.transfer import download, find_volume, upload
from tests.loadtest.fake_volume import PACKET_SIZE, Volume

SIZE = 3 * PACKET_SIZE + 5


def moved(target, opening, *, move=download, size=SIZE):
    with closing(open_session(target, opening)) as session:
        move(session, find_volume(session, "/pool/volume", size), size)


def failure(target, opening, **how):
    with pytest.raises(TargetFailure) as failed:
        moved(target, opening, **how)
    return str(failed.value)


@pytest.mark.parametrize("size", [1, PACKET_SIZE, SIZE])
def test_a_download_takes_what_was_asked_for_and_ends_well(fake_target, opening, size):
    script, target = fake_target()
    moved(target, opening, size=size)
    assert script.volume.asked == [(0, size)]
    assert (script.volume.finished, script.closed) == (1, 1)


def test_over_tls_as_well(tls_target, tls_opening):
    script, target = tls_target()
    moved(target, tls_opening)
    moved(target, tls_opening, move=upload)
    assert script.volume.finished == 2
    assert script.volume.uploaded == SIZE


def test_pings_and_events_between_the_packets_do_not_count(fake_target, opening):
    script, target = fake_target(volume=Volume(ping_inside=True, packet_size=100_000))
    moved(target, opening)
    assert script.pongs == -(-SIZE // 100_000)


@pytest.mark.parametrize("size", [1, PACKET_SIZE, SIZE])
def test_an_upload_brings_every_byte(fake_target, opening, size):
    script, target = fake_target()
    moved(target, opening, move=upload, size=size)
    assert script.volume.asked == [(0, size)]
    assert (script.volume.uploaded, script.volume.finished) == (size, 1)


@pytest.mark.parametrize(
    ("move", "fault", "complaint"),
    [
        (download, {"missing": 5}, f"STORAGE_VOL_DOWNLOAD: the stream ended after {SIZE - 5} of"),
        (download, {"broken": True}, "STORAGE_VOL_DOWNLOAD: internal error: disk on fire"),
        (download, {"unconfirmed": True}, "STORAGE_VOL_DOWNLOAD: internal error: disk full"),
        (upload, {"unconfirmed": True}, "STORAGE_VOL_UPLOAD: internal error: disk full"),
        (download, {"capacity": SIZE - 1}, f"holds {SIZE - 1} bytes and not the {SIZE} of --bulk"),
        (upload, {"capacity": 0}, "ask for less, or make it larger with virsh vol-resize"),
        (download, {"path": "/other"}, "STORAGE_VOL_LOOKUP_BY_PATH: internal error: no storage"),
    ],
)
def test_a_transfer_that_goes_wrong_is_told(fake_target, opening, move, fault, complaint):
    _, target = fake_target(volume=Volume(**fault))
    assert complaint in failure(target, opening, move=move)


@pytest.mark.parametrize("move", [download, upload])
def test_a_server_that_says_nothing_any_more_is_given_up(fake_target, opening, move):
    script, target = fake_target()
    script.ignored |= {208, 209}
    told = failure(target, dataclasses.replace(opening, wait_s=0.1), move=move)
    assert told.endswith("nothing happened for 0.1 s")


@pytest.fixture
def measure(opening):
    def measure(*texts, size=SIZE, **changes):
        plan = Plan(
            targets=parse_targets(list(texts)),
            opening=opening,
            volume="/pool/volume",
            size=size,
            **changes,
        )
        steps = []
        figures = run(plan, lambda: steps.append(1))
        assert len(steps) == plan.steps
        return figures

    return measure


def test_every_target_has_one_transfer_per_round(start_fake, measure):
    (one, first), (two, second) = start_fake(), start_fake()
    figures = measure(f"a={first}", f"b={second}", rounds=4, warmup=2)
    assert one.volume.finished == two.volume.finished == 6
    assert [len(target.rounds) for target in figures] == [4, 4]
    assert all(0 < seconds < 10 for target in figures for seconds in target.seconds)
    assert transfer_against(figures[1], figures[0]).seconds_ratio.value > 0


def test_an_upload_is_an_upload(start_fake, measure):
    script, address = start_fake()
    measure(f"a={address}", upload=True, rounds=1)
    assert script.volume.uploaded == 2 * SIZE


def test_cpu_is_that_of_the_process_that_works(start_fake_process, measure):
    # As much as takes a while: what a process did before a short time may be counted in it.
    size = 256 << 20
    busy, idle = (start_fake_process("--capacity", str(size)) for _ in range(2))
    target = f"a={busy.address},pid={busy.pid},beside={idle.pid}"
    (only,) = measure(target, size=size, rounds=2, warmup=0)
    work = only.combined().work
    assert 0 < work.cpu_ns["pid"] < work.elapsed_ns * 1.1
    assert work.cpu_ns["beside"] < work.cpu_ns["pid"] / 2
    assert [standing.label for standing in only.standings] == ["pid", "beside"]


def test_a_wrong_process_id_is_told_before_any_transfer(start_fake, measure):
    script, address = start_fake()
    with pytest.raises(TargetFailure, match="target a: there is no process 4194305"):
        measure(f"a={address},pid=4194305")
    assert script.volume.looked_up == 0
