"""Limits that are reached, hold and are released; and as many sessions as a host may have."""

import resource
import threading
import time
from contextlib import ExitStack

import pytest

from proxyd.admission.capacity import Capacity
from proxyd.sasl.passwords import PasswordFile
from proxyd.wire import remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import Status
from proxyd.wire.programs import Remote
from tests.bed.descriptor_limit import limited_descriptors
from tests.bed.proxyd_log import log_line
from tests.bed.virsh import unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, opened, rpc_client

pytestmark = pytest.mark.system

URI = remote.OpenArguments("test:///default", 0).pack()
MANY = 5000
CROWD = 100
NOBODY = 65534
# Measured; the goal of a session is 6 KiB.
MOST_KIB_EACH = 16


def is_served(client):
    return client.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK


def test_who_is_over_max_clients_waits_and_is_served_when_somebody_leaves(make_proxyd):
    front = make_proxyd(
        {"max_clients": 3, "max_anonymous_clients": 3, "unix_sock_rw_perms": "0777"}, mode=0o711
    )
    wait_until(lambda: "client 1 ended" in front.log_text(), 10, "the bed's own client is gone")
    with ExitStack() as stack:
        first, *rest = (stack.enter_context(opened(front.sock, user=NOBODY)) for _ in range(3))
        with rpc_client(front.sock, user=NOBODY) as waiting:
            waiting.send(waiting.frame(Remote.AUTH_LIST) + waiting.frame(Remote.CONNECT_OPEN, URI))
            told = log_line(front, "no room for more clients by UNIX: 3 of 3 are connected")
            assert " warning : " in told
            assert all(is_served(each) for each in rest)
            assert "nobody waits" not in front.log_text()

            first.close()

            assert [waiting.receive().header.status for _ in range(2)] == [Status.OK] * 2
            assert is_served(waiting)
    log_line(front, "nobody waits any more by UNIX")
    assert front.log_text().count("no room for more clients") == 1


def test_clients_that_prove_nothing_give_their_places_back_at_the_deadline(make_proxyd, tmp_path):
    path = tmp_path / "passwords"
    PasswordFile(str(path)).set_password("joe", "secret")
    front = make_proxyd(
        {
            "auth_unix_rw": "sasl",
            "proxyd_passwords": str(path),
            "max_anonymous_clients": 5,
            "proxyd_handshake_timeout": 2,
        }
    )
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(rpc_client(front.sock))
        log_line(front, "5 of 5 unauthenticated; others wait")
        began = time.monotonic()
        with rpc_client(front.sock) as late:
            said = late.call(Remote.AUTH_SASL_INIT)
            assert "SCRAM-SHA-256" in remote.unpack_sasl_mechanisms(said.payload)
        assert time.monotonic() - began < 8


def test_one_user_has_a_limit_of_his_own_and_is_told_so(make_proxyd):
    front = make_proxyd({"proxyd_max_clients_per_peer": 2})
    wait_until(lambda: "client 1 ended" in front.log_text(), 10, "the bed's own client is gone")
    uri = unix_uri("test:///default", front.sock)
    with opened(front.sock) as first, opened(front.sock):
        refused = virsh(uri, "list")
        assert refused.status == 1
        assert "Too many active clients: 2 clients of uid 0 are connected" in refused.stderr
        with rpc_client(front.sock) as another:
            said = another.call(Remote.AUTH_LIST)
            assert "proxyd_max_clients_per_peer" in Failure.unpack(said.payload).message
            assert another.ended()
        first.close()
        wait_until(lambda: virsh(uri, "list").status == 0, 10, "a place is free")


def test_with_too_few_descriptors_those_that_fit_work_and_all_are_served_in_the_end(make_proxyd):
    with limited_descriptors(64):
        front = make_proxyd()
    told = log_line(front, "max_clients = 5000, but there are descriptors for")
    room = int(told.partition("descriptors for ")[2].split()[0])
    assert 3 <= room < 32
    # The visitors are root, for whom there are places beyond them.
    places = Capacity.of(room).places
    served, failures = [], []
    leave = threading.Event()

    def visit():
        try:
            with opened(front.sock) as client:
                assert is_served(client)
                served.append(client)
                leave.wait(30)
        except Exception as failure:  # noqa: BLE001 (reported by the test's own thread)
            failures.append(failure)

    visitors = [threading.Thread(target=visit) for _ in range(CROWD)]
    for each in visitors:
        each.start()
    wait_until(lambda: len(served) == places, 20, "those that fit are served")
    log_line(front, f"no room for more clients by UNIX: {places} of {room} are connected")
    assert len(front.descriptors()) <= 64
    leave.set()
    for each in visitors:
        each.join(60)
    assert not failures
    assert len(served) == CROWD
    assert "Too many open files" not in front.log_text()
    assert "Traceback" not in front.log_text()


@pytest.mark.parametrize("many", [500, pytest.param(MANY, marks=pytest.mark.long)])
def test_thousands_of_idle_sessions_are_held_and_answer(make_libvirtd, make_proxyd, capsys, many):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= 2 * many + 100, f"raise the limit of open files: {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    backend = make_libvirtd(
        config={"max_clients": many + 50, "max_anonymous_clients": 20, "max_queued_clients": 1000}
    )
    front = make_proxyd(
        {"proxyd_routes": [f"test={backend.sock}"], "max_clients": many + 10, "log_level": 3}
    )
    clients = []
    try:
        with opened(front.sock) as first:
            assert is_served(first)
        before, descriptors = front.rss_kib(), len(front.descriptors())
        for _ in range(many):
            client = RpcClient(front.sock)
            clients.append(client)
            assert client.open("test:///default").header.status == Status.OK
        memory = (front.rss_kib() - before) / many
        each = (len(front.descriptors()) - descriptors) / many
        with capsys.disabled():
            print(f"\n{many} idle sessions: {memory:.1f} KiB and {each:.2f} descriptors each")
        assert all(is_served(client) for client in clients)
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert each == pytest.approx(2, abs=0.01)
    assert memory < MOST_KIB_EACH
    wait_until(lambda: len(front.descriptors()) <= descriptors, 30, "all of it is given back")
