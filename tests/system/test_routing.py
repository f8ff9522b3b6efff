"""Each URI arrives at its daemon, in the client's name."""

import os
from urllib.parse import quote

import pytest

from tests.bed.virsh import held_virsh, unix_uri, virsh
from tests.system.daemon_clients import clients_of, info_of, new_clients, only_new_client
from tests.system.rpc import opened

pytestmark = pytest.mark.system


@pytest.mark.parametrize("name", ["qemu", "storage", "secret", "nodedev", "interface", "nwfilter"])
def test_a_uri_arrives_at_its_own_daemon(name, proxyd, qemu_backend, network_backend):
    here, there = clients_of(qemu_backend), clients_of(network_backend)

    with opened(proxyd.sock, f"{name}:///system"):
        arrived = only_new_client(qemu_backend, here)

        assert arrived not in here
        assert new_clients(network_backend, there) == []


def test_a_network_uri_arrives_at_the_network_daemon(proxyd, qemu_backend, network_backend):
    here, there = clients_of(qemu_backend), clients_of(network_backend)

    with opened(proxyd.sock, "network:///system"):
        only_new_client(network_backend, there)

        assert new_clients(qemu_backend, here) == []


def test_an_empty_uri_finds_the_hypervisor(proxyd, qemu_backend):
    before = clients_of(qemu_backend)

    with opened(proxyd.sock, ""):
        only_new_client(qemu_backend, before)


def test_virsh_without_a_driver_in_its_uri_is_probed(proxyd):
    uri = unix_uri("remote:///", proxyd.sock)

    assert "QEMU" in virsh(uri, "version").succeeded()


def test_the_daemon_sees_the_clients_uid_and_pid(proxyd, qemu_backend):
    before = clients_of(qemu_backend)
    with held_virsh(unix_uri("qemu:///system", proxyd.sock)) as client:
        info = info_of(qemu_backend, only_new_client(qemu_backend, before))

        assert info["unix_process_id"] == str(client.pid)
        assert info["unix_user_id"] == "0"
        assert info["unix_user_name"] == "root"
        assert info["unix_group_name"] == "root"
        assert info["readonly"] == "no"


def test_the_daemon_sees_an_ordinary_users_uid_and_pid(make_proxyd, qemu_backend):
    open_to_all = make_proxyd({"unix_sock_rw_perms": "0777"}, mode=0o755)
    before = clients_of(qemu_backend)
    with held_virsh(unix_uri("qemu:///system", open_to_all.sock), user=65534) as client:
        info = info_of(qemu_backend, only_new_client(qemu_backend, before))

        assert info["unix_process_id"] == str(client.pid)
        assert info["unix_user_id"] == "65534"
        assert info["unix_user_name"] == "nobody"
        assert info["unix_group_id"] == "65534"


def test_a_read_only_client_is_read_only_at_the_daemon(proxyd, qemu_backend):
    before = clients_of(qemu_backend)
    with opened(proxyd.sock_ro, "qemu:///system"):
        info = info_of(qemu_backend, only_new_client(qemu_backend, before))

        assert info["readonly"] == "yes"
        assert info["unix_process_id"] == str(os.getpid())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "lxc:///system",
            "virtlxcd-sock': No such file or directory (to start it: systemctl start",
        ),
        ("qemu+ssh://elsewhere/system", "not through this proxy"),
        ("qemu://elsewhere/system", "not through this proxy"),
        ("qemu://system", "did you mean qemu:///system?"),
        ("qemu:///embed?root=/tmp", "would load the driver into a daemon"),
        ("qemu:///system?socket=/run/other", "parameter 'socket'"),
        ("qemu+ext:///system?command=/bin/true", "not through this proxy"),
        ("esx:///system", "proxyd_routes"),
    ],
)
def test_a_name_that_leads_astray_is_refused_with_a_reason(name, says, proxyd):
    # A real client hides such a name in ?name=, which its library sends on verbatim.
    uri = f"{unix_uri('qemu:///system', proxyd.sock)}&name={quote(name)}"

    refused = virsh(uri, "uri")

    assert refused.status == 1
    assert says in refused.stderr


def test_a_monolithic_libvirtd_is_reached_by_a_route(make_libvirtd, make_proxyd):
    backend = make_libvirtd()
    front = make_proxyd({"proxyd_routes": ["qemu=libvirtd"]}, backend_dir=backend.run_dir)

    assert "QEMU" in virsh(unix_uri("qemu:///system", front.sock), "version").succeeded()


def test_a_daemon_that_demands_a_password_of_the_proxy_is_a_clear_refusal(
    make_libvirtd, make_proxyd
):
    backend = make_libvirtd(config={"auth_unix_rw": "sasl"})
    front = make_proxyd({"proxyd_routes": [f"qemu={backend.sock}"]}, backend_dir=backend.run_dir)

    refused = virsh(unix_uri("qemu:///system", front.sock), "uri")

    assert "asks the proxy itself to authenticate (SASL)" in refused.stderr
