"""`soak` against a real libvirtd and a real proxyd before it."""

import pytest

from loadtest.cli import main
from loadtest.results import load
from loadtest.statuses import OK
from tests.loadtest.conftest import PASSWORD

pytestmark = pytest.mark.system

SIZE = 2 << 20
PIPES = "32"  # proxyd keeps eight per relay thread for the next long frame


@pytest.fixture
def soak(capsys, tmp_path, monkeypatch):
    """Runs it for a second; gives the result, and what it printed."""
    monkeypatch.setattr("loadtest.soaking.run._QUIET_TICKS", 4)

    def soak(*words):
        out = tmp_path / "soak.json"
        status = main(["soak", *words, "-d", "1s", "-c", "8", "--out", str(out)])
        told = capsys.readouterr().out
        assert status == OK, told
        return load(out), told

    return soak


def ledger(made, name):
    found = made.plan["ledger"][name]
    assert not any(found["faults"].values())
    assert found["answered"] > 100
    assert found["sessions"] > 10
    return found


def test_nothing_is_lost_with_a_proxyd_and_without(soak, libvirtd, front, make_volume):
    made, told = soak(
        *("--target", f"direct=unix:{libvirtd.sock},pid={libvirtd.pid}"),
        *("--target", f"proxyd=unix:{front.sock},pid={front.pid},backend={libvirtd.pid}"),
        *("--volume", str(make_volume(SIZE)), "--bulk", "2MiB", "--kept", PIPES),
        *("--gentle", "direct"),
        # Not qemu's, which looks for its emulators for seconds when it is first asked.
        *("--uri", "storage:///system"),
    )
    assert "CLEAN" in told
    for name in ("direct", "proxyd"):
        assert ledger(made, name)["stream_bytes"] > 0
    proxyd = made.targets[1].processes[0]
    assert proxyd.descriptors > 0
    assert proxyd.cpu_s > 0


def test_nothing_is_lost_inside_tls_with_a_password(soak, front, by_password):
    address, options = by_password
    made, told = soak("--target", f"proxyd={address},pid={front.pid}", *options)
    ledger(made, "proxyd")
    assert made.targets[0].cipher.startswith("TLSv1.3")
    assert PASSWORD not in told
