"""What a client is told last reaches it: it dies of no SIGPIPE while it still writes."""

import signal
import socket
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from proxyd.session.leaving import PATIENCE_S
from proxyd.wire import adminrpc
from proxyd.wire.frame import Status
from proxyd.wire.programs import Admin
from tests.bed import versions
from tests.bed.pki import Pki
from tests.bed.sasl import SERVICE, tcp_uri, with_tickets
from tests.bed.virsh import tls_uri, unix_uri, virsh, virt_admin
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient

pytestmark = pytest.mark.system

FIRST_THAT_STOPS_DAEMONS = (11, 2)
AT_ONCE = 12
TRIES = 60
BY_NETWORK = {"listen_addr": "127.0.0.1"}


def many(run, tries=TRIES):
    """What became of so many, side by side on a machine that they keep busy."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda _: run(), range(tries)))


def assert_all_told(finished, why):
    statuses = Counter(each.status for each in finished)
    assert -signal.SIGPIPE not in statuses, statuses
    assert {each.status for each in finished} == {1}, statuses
    assert not [each.stderr for each in finished if why not in each.stderr]


def test_an_administrator_who_stops_the_daemon_hears_that_it_does(make_proxyd):
    if versions.libvirt() < FIRST_THAT_STOPS_DAEMONS:
        done = virt_admin(make_proxyd().admin_sock, "daemon-shutdown")
        assert "unknown command" in done.stderr
        return
    for _ in range(8):
        front = make_proxyd()
        done = virt_admin(front.admin_sock, "daemon-shutdown")
        assert (done.status, done.stderr) == (0, ""), done
        assert front.daemon.wait() == 0


def test_who_has_stopped_the_daemon_is_served_until_his_own_end(make_proxyd):
    front = make_proxyd()
    client = RpcClient(front.admin_sock)
    try:
        client.send(adminrpc.call(Admin.CONNECT_DAEMON_SHUTDOWN, 1, adminrpc.Flags().pack()).pack())
        assert client.receive().header.status == Status.OK
        client.send(adminrpc.call(Admin.CONNECT_CLOSE, 2).pack())
        assert client.receive().header.status == Status.OK
    finally:
        client.close()
    assert front.daemon.wait() == 0


def test_an_administrator_who_closes_his_own_connection_is_not_killed(make_proxyd):
    front = make_proxyd()
    for number in range(1, 9):
        done = virt_admin(front.admin_sock, "client-disconnect", "admin", str(number))
        assert done.status >= 0, done


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_whose_certificate_is_revoked_is_told_so(make_proxyd, tmp_path, version):
    pki = Pki(tmp_path / "pki")
    revoked = pki.client(("CN", "mallory"))
    config = {**pki.settings(pki.server()), "crl_file": str(pki.revoke(revoked))}
    front = make_proxyd({**BY_NETWORK, "listen_tls": 1, "tls_port": "0", **config})
    others = {"1.3": "1.2", "1.2": "1.3"}[version]
    uri = tls_uri(
        "test:///default",
        front.tls_address(),
        revoked,
        tls_priority=f"NORMAL:-VERS-TLS{others}",
    )
    assert_all_told(many(lambda: virsh(uri, "list")), "authentication failed")


def test_who_is_refused_by_sasl_is_told_so(make_proxyd, kdc):
    joe = with_tickets(kdc, kdc.tickets("joe"))
    front = make_proxyd(
        {
            **BY_NETWORK,
            "listen_tcp": 1,
            "tcp_port": "0",
            "proxyd_keytab": str(kdc.keytab(SERVICE)),
            "sasl_allowed_username_list": ["nobody"],
        },
        environment=kdc.environment,
    )
    uri = tcp_uri("test:///default", front.tcp_address())
    assert_all_told(many(lambda: virsh(uri, "list", environment=joe)), "authentication failed")


def test_who_says_what_is_no_call_can_go_on_writing_and_keeps_nothing(make_proxyd):
    """Neither a descriptor for longer than a second, nor somebody else's way in."""
    front = make_proxyd({"max_clients": 200})
    before = len(front.descriptors())
    with ExitStack() as stack:
        stuck = []
        for _ in range(60):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(front.sock))
            sock.sendall(struct.pack(">I", 0xFFFFFFFF))
            stuck.append(sock)
        began = time.monotonic()
        virsh(unix_uri("test:///default", front.sock), "list").succeeded()
        for sock in stuck:
            sock.settimeout(10)
            assert sock.recv(1) == b""
        wait_until(lambda: len(front.descriptors()) <= before, 10, "all of them are closed")
        assert time.monotonic() - began < 5 * PATIENCE_S
