"""Several processes of one daemon: who stays behind is shown, kicked and left by the last one."""

import os
import signal

import pytest

from proxyd.wire.programs import Remote
from tests.bed.daemon import descriptors
from tests.bed.pki import Pki
from tests.bed.upgrading import lives, upgrading
from tests.bed.waiting import wait_until
from tests.system.rpc import opened
from tests.system.tls_client import opened_over_tls

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def front(make_proxyd, pki):
    settings = {
        "listen_tls": 1,
        "listen_addr": "127.0.0.1",
        "tls_port": "0",
        **pki.settings(pki.server()),
    }
    with upgrading(make_proxyd(settings)) as made:
        yield made


@pytest.fixture(params=[False, True], ids=["in the foreground", "a service"])
def impatient(make_proxyd, pki, request):
    """One whose processes do not wait for long for those who stay."""
    settings = {
        "listen_tls": 1,
        "listen_addr": "127.0.0.1",
        "tls_port": "0",
        "proxyd_retire_timeout": 1,
        "proxyd_drain_timeout": 1,
        **pki.settings(pki.server()),
    }
    with upgrading(make_proxyd(settings, service=request.param)) as made:
        yield made


def shown(front):
    return {each["id"]: each.get("process") for each in front.clients()}


def test_a_process_in_the_middle_of_a_lineage_ends_and_the_first_one_is_handed_on(front, pki):
    address = front.proxyd.tls_address()
    with opened_over_tls(address, pki.client()) as stays, opened(front.proxyd.sock) as moves:
        for _ in range(3):
            done = front.upgrade()
            assert (done["moved"], done["staying"]) == (1, int(len(front.pids) == 2))
            assert stays.call(Remote.CONNECT_GET_LIB_VERSION) is not None
            assert moves.call(Remote.CONNECT_GET_LIB_VERSION) is not None
        first, *between, last = front.pids
        for pid in between:
            front.gone(pid)
        assert lives(first)  # and stands for the daemon, for whoever has started it
        wait_until(lambda: len(front.clients()) == 2, 10, "both are shown")
        (number,) = [number for number, pid in shown(front).items() if pid == first]
        front.command("kick", str(number)).succeeded()
        assert stays.receive() is None
        wait_until(lambda: len(front.clients()) == 1, 10, "it is shown no more")
        assert moves.call(Remote.CONNECT_GET_LIB_VERSION) is not None
        assert front.status()["limits"]["clients"] == 1
    assert front.pid == last


def test_who_leaves_while_others_are_moved_holds_no_place(front, pki):
    """The first process stays for one of them, and tells that the other one is gone."""
    address = front.proxyd.tls_address()
    with opened_over_tls(address, pki.client()), opened_over_tls(address, pki.client()) as leaves:
        front.upgrade()
        wait_until(lambda: len(front.clients()) == 2, 10, "both are shown")
        leaves.close()
        wait_until(lambda: len(front.clients()) == 1, 10, "one is shown no more")
        assert front.status()["limits"]["clients"] == 1
        before = len(descriptors(front.pid))
        front.upgrade()
        assert len(descriptors(front.pid)) <= before + 2


def test_who_stays_for_too_long_is_ended_and_the_daemon_goes_on(impatient, pki):
    front = impatient
    first = front.pid
    with opened_over_tls(front.proxyd.tls_address(), pki.client()) as stays:
        assert front.upgrade()["staying"] == 1
        assert stays.receive() is None
    wait_until(
        lambda: "retired for 1 s (proxyd_retire_timeout)" in front.proxyd.log_text(),
        10,
        "the first process says why",
    )
    with opened(front.proxyd.sock) as another:
        assert another.call(Remote.CONNECT_GET_LIB_VERSION) is not None
        if front.proxyd.service:
            front.gone(first)
        else:
            wait_until(
                lambda: f"process {front.pid} is the daemon" in front.proxyd.log_text(),
                10,
                "the first process stands for the daemon",
            )
            os.kill(first, signal.SIGTERM)  # whoever has started it wants all to end
            assert front.proxyd.daemon.wait() == 0
            front.gone(front.pid)
    assert "Traceback" not in front.proxyd.daemon.output.read_text()
    assert "Traceback" not in front.proxyd.log_text()
