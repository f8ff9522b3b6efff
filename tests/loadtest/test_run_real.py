"""`run` against a real libvirtd."""

import json
import threading

import pytest

from loadtest.cli import main
from loadtest.results import load
from loadtest.statuses import OK
from tests.bed.virsh import unix_uri, virsh

pytestmark = pytest.mark.system

SIZE = 4 << 20


@pytest.fixture
def run(libvirtd, capsys):
    def run(*words):
        target = f"libvirtd=unix:{libvirtd.sock},pid={libvirtd.pid}"
        assert main(["run", "--target", target, *words, "--json"]) == OK
        return json.loads(capsys.readouterr().out)["targets"][0]

    return run


def test_the_whole_mix_of_calls_by_the_test_driver(run, libvirtd, tmp_path):
    out = tmp_path / "run.json"
    target = run(
        *("--mix", "small=6,xml=2,list=1,DOMAIN_GET_XML_DESC=1,NODE_GET_INFO=2,events=2,idle=3"),
        *("-R", "480", "-c", "4", "-d", "1s", "--warmup", "200ms", "--out", str(out)),
        *("--threshold", "errors<1", "p50<200ms"),
    )
    assert target["calls"]["count"] == 480
    assert target["errors"] == {}
    counts = {name: one["count"] for name, one in target["procedures"].items()}
    assert counts["CONNECT_GET_LIB_VERSION"] == pytest.approx(240, abs=40)
    assert counts["DOMAIN_GET_XML_DESC"] == pytest.approx(40, abs=25)
    assert len(counts) == 5
    assert target["bytes_down"] > counts["DOMAIN_GET_XML_DESC"] * 500
    assert target["processes"][0]["cpu_s"] > 0
    assert load(out).targets[0].calls.count == 480


def test_events_that_others_cause_are_counted(run, libvirtd, run_beside):
    # Of libvirt's test driver everybody has the same domain as long as somebody is connected.
    uri = unix_uri("test:///default", libvirtd.sock)
    found, over = {}, threading.Event()

    def measure():
        try:
            words = ("--mix", "small,events=3", "-R", "50", "-d", "1500ms", "--workers", "1")
            found.update(run(*words))
        finally:
            over.set()

    with run_beside(measure):
        while not over.is_set():
            virsh(uri, "suspend test; resume test").succeeded()
    assert found["events"] >= 3
    assert found["errors"] == {}


def test_volumes_go_up_and_down_beside_small_calls(run, make_volume):
    volume = make_volume(SIZE)
    before = volume.read_bytes()
    target = run(
        *("--mix", "small=6,download:4MiB=2,upload:1MiB=1", "--volume", str(volume)),
        *("-R", "90", "-c", "4", "-d", "1s"),
    )
    counts = {name: one["count"] for name, one in target["procedures"].items()}
    assert target["errors"] == {}
    assert sum(counts.values()) == 90
    assert target["bytes_down"] > counts["STORAGE_VOL_DOWNLOAD 4 MiB"] * SIZE
    assert target["bytes_up"] > counts["STORAGE_VOL_UPLOAD 1 MiB"] << 20
    after = volume.read_bytes()
    assert (len(after), after[1 << 20 :]) == (SIZE, before[1 << 20 :])
    assert after[: 1 << 20] != before[: 1 << 20]


def test_uploads_at_once_go_to_volumes_of_their_own(run, make_volume):
    """libvirt lets one client at a time write to a volume, and refuses the others."""
    volumes = [make_volume(SIZE, sparse=True) for _ in range(3)]
    words = [word for each in volumes for word in ("--volume", str(each))]
    target = run(
        "--closed", "-c", "3", "--workers", "3", "-d", "1s", "--mix", "upload:4MiB", *words
    )
    assert target["errors"] == {}
    assert target["calls"]["count"] >= 3
    assert target["bytes_up"] == target["calls"]["count"] * SIZE
    assert all(any(each.read_bytes()) for each in volumes)


def test_sessions_of_one_call_come_and_go(run):
    target = run("-C", "-R", "100", "-c", "8", "-d", "1s")
    assert target["calls"]["count"] == target["connects"]["count"] == 100
    assert target["errors"] == {}
    assert target["connects"]["p50_ns"] > target["calls"]["p50_ns"]
