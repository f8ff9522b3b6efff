"""What an administrator does to the live daemon, and what strangers cannot do to it."""

import json
import os
import select
import socket
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from proxyd.wire import adminrpc, remote
from proxyd.wire.failure import ErrorCode, Failure
from proxyd.wire.frame import Status
from proxyd.wire.programs import Admin, Remote
from proxyd.wire.xdr import Writer
from tests.bed.client_list import client_numbers
from tests.bed.command import run_to_end
from tests.bed.daemon import short_directory
from tests.bed.pki import Pki
from tests.bed.virsh import unix_uri, virsh, virt_admin
from tests.bed.volumes import POOL_LOOKUP_BY_NAME, VOL_DOWNLOAD, VOL_LOOKUP_BY_NAME
from tests.bed.waiting import wait_until
from tests.system.rpc import RpcClient, opened, rpc_client
from tests.system.tls_client import tls_connected

pytestmark = pytest.mark.system

NOBODY = 65534
NOBODY = 65534
URI = "test:///default"
BIG = 64 << 20


class AdminClient(RpcClient):
    """Speaks the admin protocol."""

    def frame(self, procedure, payload=b""):
        self.serial += 1
        return adminrpc.call(procedure, self.serial, payload).pack()

    def exchange(self, wire):
        """What comes back; None is the end."""
        self.send(wire)
        return self.receive()


@contextmanager
def admin_client(path):
    client = AdminClient(path)
    try:
        yield client
    finally:
        client.sock.close()


def admin(front, *arguments):
    return virt_admin(front.admin_sock, *arguments).succeeded()


def proxyd_command(*arguments):
    return run_to_end([sys.executable, "-m", "proxyd", *arguments], deadline_s=30)


def logged(front, part):
    return wait_until(
        lambda: [line for line in front.log_text().splitlines() if part in line],
        10,
        f"the log says {part!r}",
    )[-1]


@pytest.fixture
def volume(make_libvirtd, tmp_path):
    """A daemon with a big volume."""
    backend = make_libvirtd()
    with (tmp_path / "big.img").open("wb") as file:
        file.truncate(BIG)
    uri = unix_uri("qemu:///system", backend.sock)
    virsh(uri, f"pool-define-as big dir --target {tmp_path}; pool-start big").succeeded()
    backend.serve_as(backend.directory, "virtqemud", "virtstoraged")
    return backend


@pytest.mark.parametrize("by", ["virt-admin", "proxyd kick"])
def test_a_client_is_cut_off_in_the_middle_of_a_transfer_on_both_sides(make_proxyd, volume, by):
    front = make_proxyd(backend_dir=volume.directory)
    with opened(front.sock, "qemu:///system") as client:
        pool = client.call(POOL_LOOKUP_BY_NAME, Writer().string("big").take())
        found = client.call(VOL_LOOKUP_BY_NAME, pool.payload + Writer().string("big.img").take())
        client.call(VOL_DOWNLOAD, found.payload + Writer().u64(0).u64(0).u32(0).take())
        client.receive()  # the stream runs, and the rest waits for us
        behind = client_numbers(volume.admin_sock, "libvirtd")

        (number,) = client_numbers(front.admin_sock)
        if by == "virt-admin":
            admin(front, "client-disconnect", "virtproxyd", number)
        else:
            done = proxyd_command("kick", number, "-s", str(front.directory))
            assert done.succeeded() == f"client {number}: its session is ended\n"

        while client.receive() is not None:
            pass  # what was in the socket already
        wait_until(
            lambda: len(client_numbers(volume.admin_sock, "libvirtd")) < len(behind),
            10,
            "the daemon has lost its client",
        )
        assert client_numbers(front.admin_sock) == []
    assert "closed by an administrator" in logged(front, f"session {number} ended")
    by = {"virt-admin": "CLIENT_CLOSE", "proxyd kick": "CLOSE_CLIENT"}[by]
    whom = f"{by} of client {number}: libvirt-sock, uid 0 (root) pid {os.getpid()}"
    assert "admin client" in logged(front, whom)
    virsh(unix_uri("qemu:///system", front.sock), "version").succeeded()


def test_a_client_that_still_negotiates_is_cut_off(make_proxyd):
    front = make_proxyd()
    with rpc_client(front.sock) as client:
        client.call(Remote.AUTH_LIST)
        (number,) = client_numbers(front.admin_sock)
        admin(front, "client-disconnect", "virtproxyd", number)
        assert client.ended()
    assert "closed by an administrator" in logged(front, f"client {number} ended")


def test_limits_below_the_present_use_let_everybody_stay_and_nobody_in(make_proxyd):
    front = make_proxyd(mode=0o711)
    with opened(front.sock, URI) as one, opened(front.sock, URI) as two, ExitStack() as stack:
        admin(
            front,
            *("server-clients-set", "virtproxyd"),
            *("--max-clients", "1", "--max-unauth-clients", "1"),
        )
        # Root has places of its own, and who has none yet a spare one.
        stack.enter_context(opened(front.sock_ro, URI, user=NOBODY))
        third = RpcClient(front.sock_ro, user=NOBODY)
        stack.callback(third.close)
        third.send(third.frame(Remote.AUTH_LIST))
        assert not select.select([third.sock], [], [], 0.2)[0]
        for client in (one, two):
            assert client.call(Remote.CONNECT_GET_LIB_VERSION).header.status == Status.OK

        admin(front, "server-clients-set", "virtproxyd", "--max-clients", "4")

        assert third.receive().header.status == Status.OK


def test_more_clients_than_there_are_descriptors_for_are_refused(make_proxyd):
    front = make_proxyd()
    done = virt_admin(
        front.admin_sock, "server-clients-set", "virtproxyd", "--max-clients", "2000000000"
    )
    assert done.status == 1
    assert "raise" in done.stderr or "LimitNOFILE" in done.stderr


def test_log_filters_and_outputs_take_effect_at_once(make_proxyd, tmp_path):
    front = make_proxyd()
    elsewhere = tmp_path / "elsewhere"
    admin(front, "daemon-log-outputs", f"1:file:{elsewhere}")
    assert f"1:file:{elsewhere}" in admin(front, "daemon-log-outputs")
    admin(front, "server-list")
    before = elsewhere.read_text()
    assert " debug : " not in before

    admin(front, "daemon-log-filters", "1:daemon.admin")
    admin(front, "server-list")
    wait_until(lambda: "CONNECT_LIST_SERVERS" in elsewhere.read_text(), 10, "debug lines come")
    assert "1:*daemon.admin*" in admin(front, "daemon-log-filters")

    admin(front, "daemon-log-filters", "")
    size = elsewhere.stat().st_size
    admin(front, "server-list")
    admin(front, "server-threadpool-info", "admin")
    assert "THREADPOOL" not in elsewhere.read_text()[size:]


def test_it_shuts_down_when_told_to_and_the_reply_comes_first(make_proxyd):
    front = make_proxyd()
    with admin_client(front.admin_sock) as client, opened(front.sock, URI) as other:
        reply = client.call(Admin.CONNECT_DAEMON_SHUTDOWN, adminrpc.Flags(1).pack())
        assert reply.header.status == Status.OK
        assert client.ended()
        assert other.ended()
    assert front.daemon.wait() == 0
    assert "asked to by an administrator: stopping" in front.log_text()


def test_a_timeout_counts_from_the_last_client_administrators_included(make_proxyd):
    front = make_proxyd()
    with opened(front.sock, URI):
        admin(front, "daemon-timeout", "--timeout", "1")
        began = time.monotonic()
        # An administrator who stays, too, keeps it alive.
        with admin_client(front.admin_sock) as client:
            assert client.call(Admin.CONNECT_OPEN, adminrpc.Flags().pack())
            assert not select.select([client.sock], [], [], 1.5)[0]
    assert front.daemon.wait() == 0
    assert time.monotonic() - began > 2
    assert "no client for 1 s: exiting" in front.log_text()


def test_certificates_are_loaded_anew_from_the_paths_of_the_configuration(make_proxyd, tmp_path):
    pki = Pki(tmp_path)
    server = pki.server()
    files = pki.settings(server)
    front = make_proxyd({"listen_tls": 1, "listen_addr": "127.0.0.1", "tls_port": "0", **files})
    client = pki.client(("CN", "joe"))

    def shown():
        with tls_connected(front.tls_address(), client) as sock:
            return sock.getpeercert()["serialNumber"]

    before = shown()
    newer = pki.settings(pki.server())
    for key in ("cert_file", "key_file"):
        Path(files[key]).write_bytes(Path(newer[key]).read_bytes())
    assert shown() == before
    admin(front, "server-update-tls", "virtproxyd")
    after = shown()
    assert after != before

    Path(files["key_file"]).write_text("no key")
    done = virt_admin(front.admin_sock, "server-update-tls", "virtproxyd")
    assert done.status == 1
    assert files["key_file"] in done.stderr
    assert shown() == after
    status = proxyd_command("status", "-s", str(front.directory))
    assert status.status == 1
    assert "the last reload failed" in status.stdout


def test_another_user_is_closed_without_a_byte(make_proxyd):
    front = make_proxyd({"unix_sock_admin_perms": "0777"}, mode=0o755)
    assert virt_admin(front.admin_sock, "server-list", user=NOBODY).turned_away
    assert f"uid {NOBODY} (pid " in logged(front, "is not served here, only uid 0 is")
    admin(front, "server-list")


def test_frames_that_do_not_belong_here_are_refused_or_end_it(make_proxyd):
    front = make_proxyd()
    with admin_client(front.admin_sock) as client:
        # A call of another program is answered, as libvirt does it, and changes nothing.
        reply = client.exchange(remote.call(Remote.CONNECT_OPEN, 1, b"").pack())
        assert reply.header.status == Status.ERROR
        assert Failure.unpack(reply.payload).code == ErrorCode.RPC
        assert client.call(Admin.CONNECT_OPEN, adminrpc.Flags().pack()).header.status == Status.OK
    for garbage in (b"\xff" * 64, b"\0\0\0\x04", b"GET / HTTP/1.1\r\n\r\n"):
        with admin_client(front.admin_sock) as client:
            client.sock.sendall(garbage)
            assert client.ended()
    admin(front, "server-list")
    assert "Traceback" not in front.log_text()


def test_stuck_administrators_are_closed_and_keep_nobody_waiting(make_proxyd):
    front = make_proxyd({"proxyd_handshake_timeout": 2})
    before = front.descriptors()
    with ExitStack() as stack:
        stuck = [stack.enter_context(admin_client(front.admin_sock)) for _ in range(10)]
        for each in stuck[::2]:
            each.sock.sendall(b"\0\0\0\x1c\0")  # part of a frame; the others say nothing
        admin(front, "server-list")
        virsh(unix_uri(URI, front.sock), "version").succeeded()
        assert all(each.ended() for each in stuck)
    wait_until(lambda: len(front.descriptors()) <= len(before), 30, "nothing is left of them")
    wait_until(
        lambda: front.log_text().count("and then nothing for 2 s") == 10, 30, "all are logged"
    )


def test_status_and_clients_tell_machines_the_same(make_proxyd, qemu_backend):
    front = make_proxyd()
    where = ("-s", str(front.directory))
    with opened(front.sock, URI) as client:
        client.call(Remote.CONNECT_GET_LIB_VERSION)
        (row,) = json.loads(proxyd_command("clients", "--json", *where).succeeded())
        assert row["identity"]["pid"] == os.getpid()
        assert (row["uri"], row["state"], row["readonly"]) == (URI, "open", False)
        assert row["calls"] >= 1
        status = json.loads(proxyd_command("status", "--json", *where).succeeded())
    backends = {each["socket"]: each for each in status["backends"]}
    behind = backends[str(qemu_backend.sock)]
    assert behind["answers"]
    assert behind["sessions"] == 1
    assert status["limits"]["clients"] == 1
    assert status["pid"] == front.pid


def test_a_daemon_behind_that_does_not_answer_is_named(make_proxyd):
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "virtqemud-sock"))
        listener.listen()
        front = make_proxyd(backend_dir=directory)
        done = proxyd_command("status", "-s", str(front.directory))
    assert done.status == 2
    assert "virtqemud does not answer: no answer within 2 s" in done.stdout
