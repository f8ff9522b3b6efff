"""`proxyd status` on a host whose sockets systemd has: what it wakes, and what it finds."""

import json
import shlex

import pytest

from tests.bed.daemon import short_directory
from tests.bed.installed import LOCAL, UNITS, install_proxyd, reset, shell
from tests.bed.libvirt_host import (
    HELPER_SOCKETS,
    LIBVIRTD,
    NETWORK,
    VIRTQEMUD,
    put_libvirt,
)
from tests.bed.machine import Machine

pytestmark = pytest.mark.system

ENABLED = "systemctl enable --quiet --now"
QEMU_SOCKETS = "virtqemud{,-ro,-admin}.socket"
SERVICES = ("virtproxyd.service", "virtqemud.service")
# What the units of libvirt's own virtproxyd have.
ONE_NAME = "[Socket]\nListenStream=\nListenStream=/run/libvirt/libvirt-admin-sock\n"


@pytest.fixture(scope="module")
def machine():
    with short_directory() as directory, Machine(directory) as booted:
        install_proxyd(booted)
        put_libvirt(booted)
        yield booted


@pytest.fixture
def host(machine):
    shell(machine, f"{ENABLED} {QEMU_SOCKETS} {LOCAL}")
    yield machine
    reset(machine, *UNITS, *LIBVIRTD, *NETWORK, *VIRTQEMUD)
    machine.systemctl("enable", "--quiet", "--now", *HELPER_SOCKETS)


def running(host):
    return [unit for unit in SERVICES if host.show(unit, "ActiveState") == "active"]


def asked(host, *how):
    said = host.run("proxyd", "status", "--json", *how)
    return said.status, json.loads(said.stdout)


def test_machines_wake_neither_proxyd_nor_a_daemon(host):
    for _ in range(3):
        status, found = asked(host)
        assert (status, found["state"], found["verdict"]["not_asked"]) == (3, "idle", ["proxyd"])
        assert "was not asked" in found["verdict"]["attention"][0]["text"]
    said = host.run("proxyd", "status", "--passive")
    assert (said.status, "was not asked" in said.stdout) == (3, True)
    assert running(host) == []


def test_of_a_proxyd_that_runs_all_is_told_but_of_daemons_that_sleep(host):
    host.systemctl("start", "virtproxyd.service")
    status, found = asked(host)
    assert (status, found["state"], found["verdict"]["not_asked"]) == (0, "serving", ["virtqemud"])
    assert running(host) == ["virtproxyd.service"]


def test_a_person_or_a_machine_that_wants_to_know_wakes_both(host):
    status, found = asked(host, "--probe")
    assert (status, found["verdict"]) == (
        0,
        {"status": 0, "name": "OK", "attention": [], "not_asked": []},
    )
    assert running(host) == list(SERVICES)


def test_a_daemon_whose_socket_is_gone_is_an_alarm(host):
    host.systemctl("start", "virtproxyd.service")
    assert host.run("proxyd", "status").status == 0
    host.systemctl("stop", "virtqemud.service", *(f"virtqemud{s}.socket" for s in ("", "-ro")))
    host.run("rm", "--force", "/run/libvirt/virtqemud-sock").succeeded()
    status, found = asked(host)
    assert (status, found["verdict"]["name"]) == (2, "CRITICAL")
    told = [each["text"] for each in found["verdict"]["attention"]]
    assert any("virtqemud was there and is gone" in text for text in told), told


def test_a_service_that_systemd_could_not_keep_running_is_an_alarm(host):
    host.write(
        "/etc/systemd/system/virtproxyd.service.d/x.conf",
        "[Service]\nExecStart=\nExecStart=/bin/false\nRestart=no\n",
    )
    host.systemctl("daemon-reload")
    host.run("systemctl", "start", "virtproxyd.service")
    host.systemctl("start", "virtproxyd.socket", "virtproxyd-admin.socket")
    status, found = asked(host)
    assert (status, found["verdict"]["name"]) == (2, "CRITICAL")


def test_polkit_that_is_gone_is_an_alarm(host):
    host.systemctl("start", "virtproxyd.service")
    assert host.run("proxyd", "status").status == 0
    host.systemctl("mask", "--quiet", "--runtime", "--now", "polkit.service")
    try:
        said = host.run("proxyd", "status")
        assert (said.status, "! polkit: " in said.stdout) == (2, True), said
    finally:
        host.systemctl("unmask", "--quiet", "--runtime", "polkit.service")
    assert host.run("proxyd", "status").status == 0


def test_sockets_that_were_made_for_the_proxy_before_serve_and_are_made_anew_as_it_says(host):
    host.write("/etc/systemd/system/virtproxyd-admin.socket.d/before.conf", ONE_NAME)
    shell(host, f"systemctl daemon-reload; systemctl stop virtproxyd.service {LOCAL}")
    shell(host, f"systemctl start {LOCAL} virtproxyd-tcp.socket")
    shell(host, "rm -r /etc/systemd/system/virtproxyd-admin.socket.d")
    listed = "systemctl list-units --plain --no-legend 'virtproxyd*.socket' | cut -d' ' -f1"
    active = shell(host, listed)

    said = host.run("proxyd", "status")

    assert said.status == 1, said  # there is no keytab for clients by TCP
    (line,) = said.stderr.splitlines()
    assert "there is no /run/libvirt/virtproxyd-admin-sock" in line
    shell(host, line.partition("ends all sessions: ")[2])
    again = host.run("proxyd", "status")
    assert (again.status, again.stderr) == (1, "")
    assert active == shell(host, listed)


def test_a_broken_configuration_keeps_nobody_from_asking(host):
    host.systemctl("start", "virtproxyd.service")
    host.write("/etc/libvirt/virtproxyd.conf", "max_clients = yes\n")
    try:
        said = host.run("proxyd", "clients")
        assert said.status == 0
        assert "/etc/libvirt/virtproxyd.conf:1:" in said.stderr
    finally:
        host.run("rm", "/etc/libvirt/virtproxyd.conf").succeeded()


def test_a_user_is_told_whom_to_ask_as_whom(host):
    command = shlex.join(["proxyd", "status"])
    said = host.run(
        "setpriv", "--reuid=65534", "--clear-groups", "env", "HOME=/", "bash", "-c", command
    )
    assert said.status == 3, said
    assert "only root may ask: sudo " in said.stderr
