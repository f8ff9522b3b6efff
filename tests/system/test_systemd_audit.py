"""The audit in the journal of a real systemd, by the service as it is installed."""

import json
import shlex

import pytest

from tests.bed.daemon import conf_text, short_directory
from tests.bed.installed import LOCAL, install_proxyd, shell
from tests.bed.machine import Machine, start_libvirtd
from tests.bed.service import CONF
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

TEST = "test+unix:///default?socket=/run/libvirt/libvirt-sock"


@pytest.fixture(scope="module")
def machine():
    with short_directory() as directory, Machine(directory) as booted:
        start_libvirtd(booted, "virtqemud")
        install_proxyd(booted)
        settings = {
            "proxyd_audit": ["sessions", "changes"],
            "proxyd_routes": ["test=/run/libvirt/virtqemud-sock"],
        }
        booted.write(CONF, conf_text(settings))
        shell(booted, f"systemctl enable --now {LOCAL}")
        yield booted


def audit(machine, *words):
    """What proxyd audit says, an object for each record."""
    shown = shell(machine, shlex.join(["proxyd", "audit", "--json", *words]))
    return [json.loads(line) for line in shown.splitlines()]


def test_the_journal_has_a_field_for_each_value_and_proxyd_audit_shows_them(machine):
    machine.run("virsh", "-c", TEST, "suspend test; dominfo test").succeeded()
    ended = wait_until(
        lambda: audit(machine, "--event", "session_ended"), 30, "the journal has the session"
    )
    assert ended[0]["user"] == "root"
    (call,) = audit(machine, "--object", "test", "--since", "1h", "--user", "root")
    assert (call["procedure"], call["object"], call["outcome"]) == (
        "DOMAIN_SUSPEND",
        "domain",
        "ok",
    )
    assert (call["uid"], call["daemon"], call["readonly"]) == (0, "virtqemud", False)
    assert audit(machine, "--object", "nobody") == []
    found = shell(
        machine,
        "journalctl --output=json PROXYD_NAME=test PROXYD_PROCEDURE=DOMAIN_SUSPEND _UID=0",
    )
    entry = json.loads(found)
    assert entry["PROXYD_UUID"] == call["uuid"]
    assert entry["SYSLOG_FACILITY"] == "10"
    assert entry["_SYSTEMD_UNIT"] == "virtproxyd.service"
    assert entry["MESSAGE"].startswith("call DOMAIN_SUSPEND test ok by root")


def test_a_journal_that_is_not_there_is_an_alarm_until_it_is(machine):
    stop = "systemctl stop systemd-journald.socket systemd-journald-dev-log.socket"
    shell(machine, f"{stop} systemd-journald.service; rm -f /run/systemd/journal/socket")
    try:
        machine.run("virsh", "-c", TEST, "shutdown test").succeeded()
        told = wait_until(
            lambda: (said := machine.run("proxyd", "status", "--no-probe")).status == 2 and said,
            30,
            "status tells of it",
        )
        assert "audit records cannot be written to journald" in told.stdout
    finally:
        shell(machine, "systemctl start systemd-journald.socket systemd-journald.service")
    found = wait_until(
        lambda: audit(machine, "--event", "DOMAIN_SHUTDOWN*"), 30, "the record was kept for it"
    )
    assert found[0]["name"] == "test"
    assert "audit" not in machine.run("proxyd", "status", "--no-probe").stdout
