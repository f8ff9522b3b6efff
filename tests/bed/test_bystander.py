"""The measure of what others feel: it sees nothing where nothing is, and everything that is."""

import signal
from pathlib import Path

import pytest

from tests.bed import bystander
from tests.bed.bystander import Bystander, Felt, scene, stop
from tests.bed.daemon import short_directory
from tests.bed.hostile import hostile
from tests.bed.libvirtd import Libvirtd

pytestmark = pytest.mark.system

IDLE = "from hostile_kit import *\nget_ready()\nhear()"


@pytest.fixture(scope="module")
def backend():
    with short_directory() as directory, Libvirtd(directory) as libvirtd:
        yield libvirtd


def test_who_does_nothing_is_not_felt(backend):
    with scene(backend.sock, backend_dir=backend.run_dir) as made, Bystander(made) as measure:
        felt = measure.beside(lambda directory: hostile(IDLE, directory))
        measure.stop_beside(lambda directory: hostile(IDLE, directory), felt)
        assert not made.front.daemon.running
    felt.check()
    assert sum(each.calls for each in felt.beside) > 100
    assert felt.starved_s > 0


def test_a_proxy_that_serves_nobody_fails_every_goal(backend, monkeypatch):
    monkeypatch.setattr(bystander, "PATIENCE_S", 0.3)
    monkeypatch.setattr(bystander, "WATCHDOG_S", 0.2)
    with (
        scene(backend.sock, backend_dir=backend.run_dir) as made,
        Bystander(made) as measure,
    ):
        felt = Felt(quiet=[measure.window()])
        made.front.daemon.send(signal.SIGSTOP)
        felt.beside.append(measure.window())
        measure.look(felt)
        felt.starved_s = made.watchdog.longest_s(0)
        stop(made.front, felt)
    assert felt.is_over
    with pytest.raises(AssertionError) as caught:
        felt.check()
    for part in ("calls of others", "hangs", "new client", "administrator", "watchdog", "SIGTERM"):
        assert part in str(caught.value)


def test_a_proxy_is_told_that_its_kernel_is_old(backend):
    with scene(backend.sock, backend_dir=backend.run_dir, passrights=False) as made:
        assert made.front.daemon.running
        command = Path(f"/proc/{made.front.pid}/cmdline").read_bytes()
        assert b"SO_PASSRIGHTS = 9999" in command
