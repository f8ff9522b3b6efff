"""What `proxyd doctor`, `switch --undo` and `uninstall` promise, held against a real systemd.

The dangerous ones of the hosts that tests/doctor/test_remedies.py makes up; and that the model of
systemd which judges there (tests/bed/systemd_model.py) does as a real one.
"""

import json

import pytest

from tests.bed.daemon import short_directory
from tests.bed.installed import LEGACY, LOCAL, UNITS, install_proxyd, reset, shell
from tests.bed.libvirt_host import HELPER_SOCKETS, LIBVIRTD, NETWORK, VIRTQEMUD, put_libvirt
from tests.bed.machine import Machine
from tests.bed.service import CONF
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

EVERY = (*UNITS, *LIBVIRTD, *NETWORK, *VIRTQEMUD, *HELPER_SOCKETS)
ENABLED = "systemctl enable --quiet --now"
MODULAR = f"{ENABLED} virtqemud{{,-ro,-admin}}.socket virtqemud.service {LOCAL}"
MONOLITHIC = f"{ENABLED} libvirtd{{,-ro,-admin}}.socket libvirtd.service"
RECORD = "/var/lib/proxyd/switch.json"
LINKS = (
    "find /etc/systemd/system /run/systemd/system -type l -name '*virt*' -printf '%p %l\\n' | sort"
)


@pytest.fixture(scope="module")
def machine():
    with short_directory() as directory, Machine(directory) as booted:
        install_proxyd(booted)
        put_libvirt(booted)
        yield booted


@pytest.fixture
def host(machine):
    """Installed is all of it; enabled are the helpers' sockets."""
    yield machine
    shell(machine, "rm -f " + RECORD)
    machine.systemctl("unmask", "--quiet", *EVERY)
    reset(machine, *UNITS, *LIBVIRTD, *NETWORK, *VIRTQEMUD)
    machine.systemctl("enable", "--quiet", "--now", *HELPER_SOCKETS)


def found_by_doctor(machine):
    told = json.loads(machine.run("proxyd", "doctor", "--json").stdout)
    return {each["code"]: each for each in told["findings"] if each["severity"] != "ok"}


def paste(machine, lines):
    """Each has to succeed; a switch is answered with yes."""
    for line in lines:
        answered = f"{line} --yes" if line.startswith("proxyd switch") else line
        shell(machine, answered)


def says_uri(machine):
    return machine.run("virsh", "--quiet", "-c", LEGACY, "uri").succeeded().startswith("qemu")


def active(machine):
    return {unit for unit in EVERY if machine.show(unit, "ActiveState") == "active"}


def sockets(machine):
    return {unit for unit in active(machine) if unit.endswith(".socket")}


def test_a_failed_libvirtd_on_a_modular_host_is_not_started(host):
    shell(host, MODULAR)
    host.write(
        "/etc/systemd/system/libvirtd.service.d/x.conf",
        "[Unit]\nConflicts=\n[Service]\nExecStartPre=/bin/false\nRestart=no\n",
    )
    host.systemctl("daemon-reload")
    host.run("systemctl", "start", "libvirtd.service")
    shell(host, MODULAR)  # what that has stopped
    shell(host, "systemctl enable --quiet libvirtd.service; systemctl disable --quiet virtlockd")
    shell(host, "systemctl disable --quiet libvirtd.service libvirtd{,-ro}.socket")
    wait_until(lambda: host.show("libvirtd.service", "ActiveState") == "failed", 30, "it failed")
    before = sockets(host)
    for finding in found_by_doctor(host).values():
        paste(host, [line for line in finding["fix"] if not line.startswith("#")])
    assert host.show("libvirtd.service", "ActiveState") != "active"
    assert sockets(host) >= before
    assert says_uri(host)


def test_a_socket_file_that_was_removed_or_replaced_is_seen_and_made_anew(host):
    shell(host, MODULAR)
    assert says_uri(host)
    for damage in (
        "rm /run/libvirt/libvirt-sock",
        "cd /run/libvirt; rm libvirt-sock; touch libvirt-sock",
    ):
        shell(host, damage)
        found = found_by_doctor(host)
        assert list(found) == ["socket-lost"], found
        paste(host, found["socket-lost"]["fix"])
        assert found_by_doctor(host) == {}
        assert says_uri(host)


def test_a_daemon_behind_whose_socket_file_is_gone(host):
    shell(host, MODULAR)
    assert says_uri(host)
    shell(host, "rm /run/libvirt/virtqemud-sock")
    found = found_by_doctor(host)
    assert "socket-lost" in found
    paste(host, found["socket-lost"]["fix"])
    assert found_by_doctor(host) == {}
    assert says_uri(host)


def test_masked_units_come_back_while_the_service_runs(host):
    shell(host, MODULAR)
    shell(host, "systemctl stop virtproxyd-ro.socket; systemctl mask --quiet virtproxyd-ro.socket")
    assert says_uri(host)
    found = found_by_doctor(host)
    assert list(found) == ["masked"]
    paste(host, found["masked"]["fix"])
    assert found_by_doctor(host) == {}
    assert "virtproxyd-ro.socket" in sockets(host)


def configure_without_kerberos(machine):
    """proxyd's and libvirtd's: a TCP port that asks nobody, in a machine without a network."""
    for path in (CONF, "/etc/libvirt/libvirtd.conf"):
        machine.write(path, 'auth_tcp = "none"\n')


def test_a_port_survives_a_switch_that_failed_half_way_and_undo_is_the_identity(host):
    configure_without_kerberos(host)
    shell(host, f"{MONOLITHIC}; systemctl stop libvirtd.service; {ENABLED} libvirtd-tcp.socket")
    shell(host, "systemctl mask --quiet virtqemud-admin.socket")
    links, up = shell(host, LINKS), active(host)
    host.write(
        "/etc/systemd/system/virtqemud.socket.d/x.conf", "[Socket]\nExecStartPre=/bin/false\n"
    )
    host.systemctl("daemon-reload")
    assert host.run("proxyd", "switch", "--to", "modular", "--yes").status == 1
    # The proxy came first, and has the port.
    assert {"virtproxyd.socket", "virtproxyd-tcp.socket"} <= sockets(host)
    assert shell(host, f"stat --format=%a {RECORD}") == "600\n"
    assert "half-switched" in found_by_doctor(host)
    shell(host, "rm -r /etc/systemd/system/virtqemud.socket.d; systemctl daemon-reload")
    shell(host, "proxyd switch --to modular --yes")
    assert {"virtproxyd-tcp.socket", "virtqemud.socket"} <= sockets(host)
    assert "half-switched" not in found_by_doctor(host)
    assert says_uri(host)
    shell(host, "proxyd switch --undo --yes")
    assert (shell(host, LINKS), active(host)) == (links, up)
    assert says_uri(host)


def test_there_and_back_by_name_is_the_identity(host):
    shell(host, MODULAR)
    shell(host, "systemctl stop virtproxyd-admin.socket")
    shell(host, "systemctl start virtproxyd-admin.socket")
    before = shell(host, LINKS), sockets(host)
    for to in ("monolithic", "modular"):
        shell(host, f"proxyd switch --to {to} --yes")
        assert says_uri(host)
    assert (shell(host, LINKS), sockets(host)) == before


# ---- Coming and going

PACKAGES = "/usr/lib/systemd/system"
OTHERS_SERVICE = """[Unit]
BindsTo=virtproxyd.socket
After=virtproxyd.socket
[Service]
ExecStart=/usr/bin/sleep infinity
[Install]
WantedBy=multi-user.target
Also=virtproxyd.socket virtproxyd-ro.socket
"""
OTHERS_SOCKET = """[Socket]
ListenStream=/run/libvirt/{name}
Service=virtproxyd.service
RemoveOnStop=yes
[Install]
WantedBy=sockets.target
"""


def test_an_uninstallation_gives_another_virtproxyd_its_names_back(host):
    shell(host, "proxyd uninstall")
    host.write(f"{PACKAGES}/virtproxyd.service", OTHERS_SERVICE)
    host.write(f"{PACKAGES}/virtproxyd.socket", OTHERS_SOCKET.format(name="libvirt-sock"))
    host.write(f"{PACKAGES}/virtproxyd-ro.socket", OTHERS_SOCKET.format(name="libvirt-sock-ro"))
    shell(host, "systemctl daemon-reload; systemctl enable --quiet --now virtproxyd.socket")
    before = shell(host, LINKS), sockets(host)
    try:
        shell(host, "proxyd install")
        shell(host, f"systemctl stop virtproxyd.service {LOCAL}; {ENABLED} {LOCAL}")
        assert "virtproxyd-admin.socket" in sockets(host)
        shell(host, "proxyd uninstall")
        assert (shell(host, LINKS), sockets(host)) == before
        assert "sleep" in host.show("virtproxyd.service", "ExecStart")
    finally:
        shell(host, f"systemctl disable --quiet --now virtproxyd.socket; rm {PACKAGES}/virtproxyd*")
        shell(host, "proxyd install")


# ---- The model


def test_systemd_refuses_what_the_model_says_that_it_refuses(host):
    shell(host, MODULAR)
    assert says_uri(host)
    refused = host.run("systemctl", "restart", "virtproxyd-ro.socket")
    assert refused.status != 0
    assert host.show("virtproxyd-ro.socket", "ActiveState") != "active"
    host.systemctl("stop", "virtproxyd.service")
    host.systemctl("start", "virtproxyd-ro.socket")
    host.systemctl("mask", "--quiet", "virtlogd.socket")
    host.systemctl("stop", "virtlogd.socket", "virtqemud.service")
    assert host.run("systemctl", "start", "virtqemud.service").status != 0  # for what it requires
    host.systemctl("unmask", "--quiet", "virtlogd.socket")
    host.systemctl("stop", "virtproxyd.socket")
    left = {unit for unit in sockets(host) if unit.startswith("virtproxyd")}
    assert left == set()  # all are bound to it
