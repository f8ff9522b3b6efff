"""A service that is drained, and one whose program was replaced, under a real systemd."""

import json
import time
from pathlib import Path

import pytest

from proxyd import __version__
from tests.bed.daemon import short_directory
from tests.bed.installed import HOME, LEGACY, LOCAL, UNITS, install_proxyd, reset, shell
from tests.bed.libvirt_host import VIRTQEMUD, put_libvirt
from tests.bed.machine import CHECKOUT, Machine
from tests.bed.service import SERVICE
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

DEADLINE_S = 30
IDLE_S = 1
TOLD = "this host is being taken out of service"


@pytest.fixture(scope="module")
def machine():
    with short_directory() as directory, Machine(directory) as booted:
        install_proxyd(booted)
        put_libvirt(booted)
        yield booted


@pytest.fixture
def host(machine):
    shell(machine, f"systemctl enable --quiet --now virtqemud{{,-ro,-admin}}.socket {LOCAL}")
    yield machine
    machine.run("rm", "--force", "/etc/default/virtproxyd").succeeded()
    reset(machine, *UNITS, *VIRTQEMUD)


def virsh(host):
    return host.run("virsh", "--quiet", "-c", LEGACY, "uri")


def status(host):
    said = host.run("proxyd", "status", "--json")
    return said.status, json.loads(said.stdout)


def wait_for_status_line(host, words, *, there=True):
    wait_until(
        lambda: (words in host.show(SERVICE, "StatusText")) == there, DEADLINE_S, "it says so"
    )


def test_a_drained_service_does_not_end_by_itself_and_the_next_client_is_turned_away(host):
    host.write("/etc/default/virtproxyd", f'VIRTPROXYD_ARGS="--timeout {IDLE_S}"\n')
    assert virsh(host).status == 0
    shell(host, "proxyd drain")
    pid = host.show(SERVICE, "MainPID")
    wait_for_status_line(host, "draining, nobody new is let in")
    until = time.monotonic() + 4 * IDLE_S
    while time.monotonic() < until:
        refused = virsh(host)
        assert (refused.status != 0, TOLD in refused.stderr) == (True, True), refused
    assert host.show(SERVICE, "MainPID") == pid

    shell(host, "proxyd drain --undo")

    wait_for_status_line(host, "draining", there=False)
    assert virsh(host).status == 0
    wait_until(
        lambda: host.show(SERVICE, "ActiveState") == "inactive", DEADLINE_S, "it ends when idle"
    )


def test_a_reload_keeps_it_drained_and_a_restart_does_not(host):
    shell(host, "proxyd drain; systemctl reload virtproxyd")
    assert TOLD in virsh(host).stderr
    shell(host, "systemctl restart virtproxyd")
    assert virsh(host).status == 0


def outdated(host):
    code, found = status(host)
    assert (code == 1) == bool(found["program"]["outdated"])
    return found["program"]


def doctors_findings(host):
    said = host.run("proxyd", "doctor", "--json")
    return {each["code"]: each["fix"] for each in json.loads(said.stdout)["findings"]}


def test_an_update_is_told_until_the_command_that_is_told_was_run(host):
    packages = shell(host, f"echo {HOME}/lib/python3*/site-packages").strip()
    shell(host, f"cp --archive {CHECKOUT}/proxyd {packages}/; systemctl start {SERVICE}")
    try:
        assert outdated(host)["outdated"] == []
        shell(
            host,
            f"cd {packages}/proxyd; sed 's/{__version__}/99.1/' __init__.py > .new; mv .new"
            " __init__.py",
        )
        program = outdated(host)
        assert program["outdated"] == [f"{__version__} runs, 99.1 is installed"]
        assert program["remedy"] == "proxyd upgrade"
        assert doctors_findings(host)["old-program"] == [program["remedy"]]

        shell(host, program["remedy"])

        assert outdated(host)["outdated"] == []
        assert status(host)[1]["version"] == "99.1"
        assert "old-program" not in doctors_findings(host)
    finally:
        shell(host, f"rm --recursive {packages}/proxyd")


def test_an_update_of_a_library_is_told_until_the_service_was_restarted(host):
    shell(host, f"systemctl start {SERVICE}")
    pid = host.show(SERVICE, "MainPID")
    library = shell(
        host, f"grep --only-matching '/.*/libexpat[.]so.*' /proc/{pid}/maps | head --lines=1"
    ).strip()
    assert outdated(host)["outdated"] == []

    shell(host, f"cp --archive {library} {library}.dpkg-new; mv {library}.dpkg-new {library}")

    program = outdated(host)
    assert program["outdated"] == [f"{Path(library).name} was replaced, and the old one is in use"]
    shell(host, program["remedy"])
    assert outdated(host)["outdated"] == []
