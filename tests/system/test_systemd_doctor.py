"""`proxyd doctor` and `proxyd switch` on a host with Debian's libvirtd and modular units.

What they print is typed as it stands, in bash and with a terminal, by somebody who says yes.
"""

import json

import pytest

from tests.bed.daemon import short_directory
from tests.bed.installed import LEGACY, LOCAL, UNITS, install_proxyd, reset, shell
from tests.bed.libvirt_host import (
    HELPER_SOCKETS,
    LIBVIRTD,
    NETWORK,
    VIRTQEMUD,
    put_libvirt,
)
from tests.bed.machine import PYTHON, Machine
from tests.bed.pki import Pki
from tests.bed.service import CONF, SERVICE, configure, install_certificates
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

BY_TLS = "qemu+tls://localhost/system?pkipath=/root/client"
ENABLED = "systemctl enable --quiet --now"

AT_A_TERMINAL = """
import os, pty, sys
pid, terminal = pty.fork()
if not pid:
    os.execvp("bash", ["bash", "-c", sys.argv[1]])
os.write(terminal, b"y\\n")
try:
    while said := os.read(terminal, 4096):
        os.write(1, said)
except OSError:  # it has ended
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    with short_directory() as directory, Machine(directory) as booted:
        install_proxyd(booted)
        put_libvirt(booted)
        install_certificates(booted, Pki(tmp_path_factory.mktemp("pki") / "pki"))
        yield booted


@pytest.fixture
def host(machine):
    """Installed is all of it; enabled are the helpers' sockets."""
    yield machine
    reset(machine, *UNITS, *LIBVIRTD, *NETWORK, *VIRTQEMUD)
    machine.systemctl("enable", "--quiet", "--now", *HELPER_SOCKETS)


def doctor(machine):
    """The exit status, and the findings by what they are about, those in order left out."""
    said = machine.run("proxyd", "doctor", "--json")
    told = json.loads(said.stdout)
    assert said.stderr == ""
    found = {each["code"]: each for each in told["findings"] if each["severity"] != "ok"}
    return said.status, found


def type_in(machine, lines):
    """Lines for root's bash, each of which has to succeed; whoever is asked says yes."""
    for line in lines:
        machine.run(str(PYTHON), "-c", AT_A_TERMINAL, line).succeeded()


def says_uri(machine, uri=LEGACY):
    said = machine.run("virsh", "--quiet", "-c", uri, "uri").succeeded()
    return said.startswith("qemu")


def runs(machine, *units):
    return [machine.show(unit, "ActiveState") == "active" for unit in units]


def test_a_host_where_nothing_is_enabled(host):
    status, found = doctor(host)
    assert (status, list(found)) == (1, ["nothing-enabled"])
    told = host.run("proxyd", "doctor")
    assert (told.status, told.stdout.splitlines()[-1]) == (1, "1 warning.")
    type_in(host, found["nothing-enabled"]["fix"])
    assert doctor(host) == (0, {})
    assert says_uri(host)


def test_a_host_that_was_set_up_as_documented(host):
    shell(host, f"{ENABLED} virtqemud{{,-ro,-admin}}.socket virtqemud.service")
    shell(host, f"systemctl start virtproxyd-tls.socket; {ENABLED} {LOCAL}")
    for uri in (LEGACY, BY_TLS):
        assert says_uri(host, uri)
    assert doctor(host) == (0, {})
    assert host.run("proxyd", "doctor").succeeded().endswith("\nAll is in order.\n")


@pytest.mark.long  # a third of a second of a processor, which a busy machine makes a second of
def test_the_first_client_after_idleness_waits_no_longer_than_directly(host, side_by_side):
    """Both daemons have ended, and systemd starts them again: the proxy, and the one behind."""
    shell(host, f"{ENABLED} virtqemud{{,-ro,-admin}}.socket {LOCAL}")
    direct = "qemu:///system?socket=/run/libvirt/virtqemud-sock"

    side_by_side.of(
        "the first client",
        lambda: says_uri(host, direct),
        lambda: says_uri(host),
        before=lambda: host.systemctl("stop", SERVICE, "virtqemud.service"),
    )


def test_a_host_with_libvirtd_alone(host):
    shell(host, f"{ENABLED} libvirtd{{,-ro,-admin}}.socket libvirtd.service")
    assert says_uri(host)
    assert doctor(host) == (0, {})


def test_two_units_for_one_socket_and_what_mends_it(host):
    shell(host, f"{ENABLED} virtqemud{{,-ro,-admin}}.socket {LOCAL}")
    shell(host, "systemctl enable --quiet libvirtd.socket")
    status, found = doctor(host)
    assert status == 2
    assert list(found) == ["both-modes", "same-address"]
    assert "libvirtd.socket and virtproxyd.socket" in found["same-address"]["what"]
    type_in(host, found["same-address"]["fix"])
    assert doctor(host) == (0, {})
    assert says_uri(host)
    assert runs(host, "virtproxyd.service", "libvirtd.service") == [True, False]


def test_proxyd_enabled_beside_a_libvirtd_that_runs(host):
    shell(host, f"{ENABLED} libvirtd{{,-ro,-admin}}.socket libvirtd.service")
    shell(host, f"{ENABLED} {LOCAL}")  # systemd stops libvirtd's sockets for it
    status, found = doctor(host)
    assert (status, list(found)) == (2, ["same-address"])
    assert found["same-address"]["fix"] == [
        "proxyd switch --to monolithic",
        "# or the other way: proxyd switch --to modular",
    ]
    type_in(host, found["same-address"]["fix"])
    assert doctor(host) == (0, {})
    assert says_uri(host)
    assert runs(host, "virtproxyd.service", "libvirtd.service") == [False, True]


def test_a_service_that_failed_and_took_its_sockets_with_it(host):
    configure(host, SERVICE, "[Unit]\nStartLimitBurst=1\n")
    shell(host, f"{ENABLED} virtqemud{{,-ro,-admin}}.socket virtqemud.service {LOCAL}")
    configuration = (host.root / CONF[1:]).read_text()
    host.write(CONF, "max_clients = many\n")
    assert host.run("virsh", "-c", LEGACY, "uri").status == 1
    wait_until(
        lambda: host.show("virtproxyd.socket", "ActiveState") == "failed", 30, "systemd gives up"
    )
    status, found = doctor(host)
    assert (status, sorted(found)) == (2, ["configuration", "unit-failed"])
    host.write(CONF, configuration)
    type_in(host, found["unit-failed"]["fix"])
    assert doctor(host) == (0, {})
    assert says_uri(host)


def test_a_port_that_was_enabled_while_the_service_ran(host):
    shell(host, f"{ENABLED} virtqemud{{,-ro,-admin}}.socket virtqemud.service {LOCAL}")
    assert says_uri(host)
    refused = host.run("systemctl", "enable", "--quiet", "--now", "virtproxyd-tls.socket")
    assert refused.status == 1
    status, found = doctor(host)
    assert (status, list(found)) == (1, ["not-started"])
    type_in(host, found["not-started"]["fix"])
    assert doctor(host) == (0, {})
    assert says_uri(host, BY_TLS)


def test_there_and_back_with_clients_by_tls(host):
    shell(host, f"{ENABLED} libvirtd.service libvirtd{{,-ro,-admin}}.socket")
    shell(host, "systemctl stop libvirtd.service")
    shell(host, f"{ENABLED} libvirtd-tls.socket")
    for to, running in ((None, "libvirtd"), ("modular", "virtproxyd"), ("monolithic", "libvirtd")):
        if to:
            host.run("proxyd", "switch", "--to", to, "--yes").succeeded()
        assert [says_uri(host, uri) for uri in (LEGACY, BY_TLS)] == [True, True]
        other = "virtproxyd" if running == "libvirtd" else "libvirtd"
        assert runs(host, f"{running}.service", f"{other}.service") == [True, False]
        assert doctor(host) == (0, {})


def test_a_switch_that_was_printed_does_the_same(host):
    shell(host, f"{ENABLED} libvirtd{{,-ro,-admin}}.socket libvirtd.service")
    recipe = host.run("proxyd", "switch", "--to", "modular", "--dry-run").succeeded()
    assert runs(host, "libvirtd.service") == [True]
    shell(host, f"set -e\n{recipe}")
    assert doctor(host) == (0, {})
    again = host.run("proxyd", "switch", "--to", "modular", "--dry-run").succeeded()
    assert "nothing to do" in again
