"""proxyd upgrade: another process takes over, and no client notices.

The daemon behind is libvirtd, the clients are virsh and frames by hand.
"""

import pytest

from proxyd.wire.programs import Remote
from proxyd.wire.remote import OpenArguments
from tests.bed.upgrading import upgrading
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient

URI = "test:///default"
CALLS = 50


def opened(where):
    client = RpcClient(where)
    client.call(Remote.AUTH_LIST)
    client.call(Remote.CONNECT_OPEN, OpenArguments(URI, 0).pack())
    return client


@pytest.fixture
def front(make_proxyd):
    """One that is upgraded."""
    with upgrading(make_proxyd({"log_level": 1})) as made:
        yield made


def test_another_process_takes_over(front):
    before = front.pid
    done = front.upgrade()
    assert done["before"] == before
    assert (done["moved"], done["staying"]) == (0, 0)
    assert front.status()["pid"] == done["pid"] != before
    front.gone(before)
    assert front.proxyd.daemon.status == 0
    virsh(unix_uri(URI, front.proxyd.sock), "list --all").succeeded()


def test_a_session_goes_on_in_the_next_process(front):
    client = opened(front.proxyd.sock)
    number = front.clients()[0]["id"]
    for turn in range(3):
        for _ in range(CALLS):
            client.call(Remote.CONNECT_GET_LIB_VERSION)
        done = front.upgrade()
        assert (done["moved"], done["staying"]) == (1, 0)
        (told,) = front.clients()
        assert told["id"] == number
        assert told["calls"] == (turn + 1) * CALLS
        assert "process" not in told
    client.call(Remote.CONNECT_GET_LIB_VERSION)
    client.close()
    wait_until(lambda: not front.clients(), 10, "the session has ended")
    for pid in front.pids[:-1]:
        front.gone(pid)
