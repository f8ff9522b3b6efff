"""The service as `proxyd install` puts it on a host, under a real systemd, by documented commands.

All tests but the last ones share a machine: libvirtd's stand-in for virtqemud is behind, the
configuration is the one that came, and before each of them nothing of proxyd's is enabled.
"""

import re
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from proxyd.process.health import Health
from tests.bed.daemon import short_directory
from tests.bed.installed import HOME, LEGACY, LOCAL, UNITS, install_proxyd, reset, shell
from tests.bed.kdc import Kdc
from tests.bed.machine import HOST_CHECKOUT, Machine, start_libvirtd
from tests.bed.pki import Pki
from tests.bed.sasl import SERVICE as PRINCIPAL
from tests.bed.service import CONF, SERVICE, configure, install_certificates
from tests.bed.tls import enter_network
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

DEADLINE_S = 30
SOCK = "/run/libvirt/libvirt-sock"
ENVIRONMENT_FILE = "/etc/default/virtproxyd"
ENABLE = f"systemctl enable --now {LOCAL}"
MEMBER, STRANGER = "games", "nobody"  # accounts that every Debian has
USER, UID = "jane", "4242"

# The old daemon has every driver. It has a run-time directory of its own, because in the user's its
# socket would be proxyd's.
VIRTQEMUD = """#!/bin/sh
mkdir -p "$HOME/own/libvirt"
ln -sf "$HOME/own/libvirt/libvirt-sock" "$XDG_RUNTIME_DIR/libvirt/virtqemud-sock"
XDG_RUNTIME_DIR=$HOME/own exec libvirtd --pid-file "$HOME/own/pid" "$@"
"""


@pytest.fixture(scope="module")
def machine():
    with short_directory() as directory, Machine(directory) as booted:
        start_libvirtd(booted, "virtqemud")
        install_proxyd(booted)
        yield booted


@pytest.fixture
def host(machine):
    """The machine, to which each test may do what an administrator does to the service."""
    shipped = {path: (machine.root / path[1:]).read_text() for path in (CONF, ENVIRONMENT_FILE)}
    yield machine
    for path, text in shipped.items():
        machine.write(path, text)
    reset(machine, *UNITS)


@pytest.fixture
def listening(host):
    shell(host, ENABLE)
    return host


def virsh(machine, *arguments, uri=LEGACY):
    return machine.run("virsh", "--quiet", "-c", uri, *arguments)


def says_uri(finished):
    """Whether virsh has come through to the daemon behind."""
    return finished.succeeded().startswith("qemu")


def as_user(machine, user, *command, environment=None):
    """Run it as somebody who has logged in."""
    uid, gid = shell(machine, f"id --user {user}; id --group {user}").split()
    become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups"]
    return machine.run(*become, *command, environment=environment)


def wait_for_state(machine, state):
    wait_until(
        lambda: machine.show(SERVICE, "ActiveState") == state,
        DEADLINE_S,
        f"the service is {state}",
    )


def wait_for_line(machine, words):
    return wait_until(
        lambda: next((line for line in machine.journal(SERVICE) if words in line), None),
        DEADLINE_S,
        f"the journal says: {words}",
    )


# ---- Sockets and who comes through them


def test_the_first_virsh_starts_the_service(listening):
    assert listening.show(SERVICE, "ActiveState") == "inactive"
    assert says_uri(virsh(listening, "uri"))
    assert listening.show(SERVICE, "ActiveState") == "active"
    command = listening.show(SERVICE, "ExecStart")
    assert f"{HOME}/bin/python -I -m proxyd --pid-file= $VIRTPROXYD_ARGS" in command


@pytest.mark.parametrize("uri", [[], ["-c", "libvirtd:///system"], ["-c", "virtproxyd:///system"]])
def test_virt_admin_finds_it_by_itself(listening, uri):
    said = listening.run("virt-admin", "--quiet", *uri, "srv-list").succeeded()
    assert re.findall(r"\d+ +(\w+)", said) == ["virtproxyd", "admin"]


def test_a_client_comes_by_tls(listening, tmp_path):
    pki = Pki(tmp_path / "pki")
    install_certificates(listening, pki)
    listening.systemctl("stop", SERVICE)
    listening.systemctl("start", "virtproxyd-tls.socket")
    uri = "qemu+tls://localhost/system?pkipath=/root/client"
    assert says_uri(virsh(listening, "uri", uri=uri))


@pytest.fixture
def kdc(machine):
    """A KDC on the machine's loopback, which its /etc/krb5.conf names."""
    with short_directory() as directory, ExitStack() as stack:
        kdc = Kdc(directory)

        def start():
            enter_network(machine.pid)
            stack.enter_context(kdc)

        with ThreadPoolExecutor(1) as other_thread:  # this one stays in our network
            other_thread.submit(start).result()
        # Not the tests' own places, but Kerberos' usual ones.
        usual = kdc.variant(default_rcache_name="dfl:", default_ccache_name="FILE:/root/tickets")
        machine.write("/etc/krb5.conf", usual.read_text())
        yield kdc


def test_a_client_comes_by_kerberos(listening, kdc):
    kdc.add("joe", PRINCIPAL)
    for path, principal in (("/etc/libvirt/krb5.tab", PRINCIPAL), ("/root/joe.tab", "joe")):
        (listening.root / path[1:]).write_bytes(kdc.keytab(principal).read_bytes())
    shell(listening, "kinit -k -t /root/joe.tab joe")
    listening.systemctl("stop", SERVICE)
    listening.systemctl("start", "virtproxyd-tcp.socket")
    for _ in range(2):  # of the second one it looks whether its ticket was seen already
        assert says_uri(virsh(listening, "uri", uri="qemu+tcp://localhost/system"))


def test_anybody_may_look_and_the_groups_members_may_act(listening):
    shell(listening, f"usermod --append --groups libvirt {MEMBER}")
    looks = ["virsh", "--readonly", "-c", LEGACY, "uri"]
    acts = ["virsh", "-c", LEGACY, "uri"]
    assert says_uri(as_user(listening, STRANGER, *looks))
    assert says_uri(as_user(listening, MEMBER, *acts))
    refused = as_user(listening, STRANGER, *acts)
    assert refused.status == 1
    assert "authentication" in refused.stderr


# ---- The service's life


def test_fifty_clients_across_idle_exits_all_succeed(host):
    host.write(ENVIRONMENT_FILE, 'VIRTPROXYD_ARGS="--timeout 1"\n')
    configure(host, SERVICE, "[Unit]\nStartLimitIntervalSec=0\n")
    shell(host, ENABLE)
    exits = 0
    for number in range(50):
        assert says_uri(virsh(host, "uri"))
        if number % 9 == 8:
            wait_for_state(host, "inactive")
            exits += 1
    assert exits == 5


def test_a_reload_is_in_force_and_the_same_process_goes_on(listening):
    virsh(listening, "uri").succeeded()
    first = listening.show(SERVICE, "MainPID")
    listening.write(CONF, "max_clients = 77\n")
    listening.systemctl("reload", SERVICE)
    wait_until(
        lambda: "nclients_max : 77" in clients_info(listening), DEADLINE_S, "the new limit holds"
    )
    wait_for_state(listening, "active")
    assert listening.show(SERVICE, "MainPID") == first


def clients_info(machine):
    said = machine.run("virt-admin", "--quiet", "srv-clients-info", "virtproxyd").succeeded()
    return re.sub(" +", " ", said)


def test_a_reload_of_what_is_wrong_changes_nothing_and_is_told(listening):
    virsh(listening, "uri").succeeded()
    listening.write(CONF, "max_clients = many\n")
    failed = listening.run("systemctl", "reload", SERVICE)
    assert failed.status == 1
    assert f"{CONF}:1" in wait_for_line(listening, "reload failed, everything stays as it was")
    # The command's own words are in the journal as well, with the service's name.
    assert f"{CONF}:1" in wait_for_line(listening, "reload failed, nothing was changed")
    assert says_uri(virsh(listening, "uri"))
    told = lambda: listening.show(SERVICE, "StatusText")  # noqa: E731
    wait_until(lambda: "the last reload failed" in told(), DEADLINE_S, "the status says so")
    assert listening.show(SERVICE, "ActiveState") == "active"
    listening.write(CONF, "max_clients = 70\n")
    listening.systemctl("reload", SERVICE)
    wait_until(lambda: "reload" not in told(), DEADLINE_S, "the status is as usual")


def test_a_broken_way_in_of_systemds_leaves_the_others_and_is_mended_by_a_reload(host, tmp_path):
    """The socket is systemd's, so clients do come by TLS."""
    shell(host, "rm -rf /etc/pki/CA /etc/pki/libvirt")
    shell(host, f"{ENABLE} virtproxyd-tls.socket")
    assert says_uri(virsh(host, "uri"))
    assert host.show(SERVICE, "ActiveState") == "active"
    assert "clients by TLS are not served, all others are" in wait_for_line(host, "cacert.pem")
    wait_until(
        lambda: "TLS is not served" in host.show(SERVICE, "StatusText"), DEADLINE_S, "it says so"
    )
    status = host.run("proxyd", "status", "--no-probe")
    assert status.status == Health.WARNING
    assert "! clients by TLS are not served: cannot listen for TLS clients" in status.stdout
    shell(host, "! timeout 20 bash -c 'read -r <>/dev/tcp/localhost/16514'")  # which is closed
    assert "/etc/pki/CA/cacert.pem" in wait_for_line(host, "turned away")

    install_certificates(host, Pki(tmp_path / "pki"))
    assert "configuration reloaded" in host.run("proxyd", "reload").succeeded()

    assert says_uri(virsh(host, "uri", uri="qemu+tls://localhost/system?pkipath=/root/client"))
    wait_until(
        lambda: "TLS" not in host.show(SERVICE, "StatusText"), DEADLINE_S, "it no longer says so"
    )
    assert "clients by TLS are served again" in wait_for_line(host, "served again")


def test_what_keeps_it_from_starting_is_found_in_the_journal(host):
    host.write(CONF, 'unix_sock_group = "nosuchgroup"\n')
    shell(host, ENABLE)
    assert host.run("systemctl", "start", SERVICE).status == 1

    def told():
        return shell(host, "journalctl --sync; journalctl --quiet --output=cat -t proxyd -p err")

    wait_until(lambda: "there is no such group" in told(), DEADLINE_S, "the journal has it")


def test_a_proxyd_that_stands_still_is_killed_and_started_again(host):
    configure(host, SERVICE, "[Service]\nWatchdogSec=1\n")
    shell(host, ENABLE)
    virsh(host, "uri").succeeded()
    host.systemctl("kill", "--signal=STOP", SERVICE)
    wait_until(lambda: host.show(SERVICE, "NRestarts") == "1", DEADLINE_S, "it was started again")
    assert says_uri(virsh(host, "uri"))


def test_a_stop_leaves_the_socket_and_a_stopped_socket_no_file(listening):
    virsh(listening, "uri").succeeded()
    path = listening.root / SOCK[1:]
    listening.systemctl("stop", SERVICE)
    assert listening.show(SERVICE, "Result") == "success"
    assert path.is_socket()
    shell(listening, f"systemctl stop {LOCAL}")
    assert not path.exists()


def test_the_status_tells_who_is_there(listening):
    with listening.held("virsh", "-c", LEGACY, "event", "--all", "--loop"):
        said = "1 session, 0 being opened, backends: virtqemud 1"
        wait_until(
            lambda: listening.show(SERVICE, "StatusText") == said, DEADLINE_S, "the status says so"
        )


def test_a_drop_in_moves_a_socket_and_says_who_may_use_it(host):
    elsewhere = "/run/libvirt/elsewhere"
    configure(
        host,
        "virtproxyd.socket",
        f"[Socket]\nListenStream=\nListenStream={elsewhere}\nSocketMode=0660\nSocketGroup=libvirt\n",
    )
    shell(host, ENABLE)
    assert says_uri(virsh(host, "uri", uri=f"qemu+unix:///system?socket={elsewhere}"))
    assert shell(host, f"stat --format='%a %G' {elsewhere}") == "660 libvirt\n"
    assert not (host.root / SOCK[1:]).exists()


# ---- What systemd thinks of the units


def test_systemd_objects_to_nothing(host):
    said = host.run("systemd-analyze", "verify", *UNITS)
    assert (said.status, said.stdout + said.stderr) == (0, "")


def test_the_service_is_little_exposed(host):
    said = host.run("systemd-analyze", "security", "--no-pager", SERVICE).succeeded()
    figure = re.search(r"exposure level for virtproxyd.service: ([0-9.]+)", said)
    assert figure is not None
    print(f"exposure of virtproxyd.service as installed: {figure[1]}")
    assert float(figure[1]) < 2.0


def test_the_manual_and_the_completion_are_found(host):
    assert "virtproxyd" in host.run("man", "--pager=cat", "proxyd").succeeded()
    completions = "/usr/local/share/bash-completion/completions/proxyd"
    words = 'COMP_WORDS=(proxyd unin) COMP_CWORD=1; _proxyd; echo "${COMPREPLY[@]}"'
    assert shell(host, f"source {completions}; {words}") == "uninstall\n"


# ---- A user's own


@pytest.fixture
def user(machine):
    """Somebody's systemd, without a login: user("command", …) runs there."""
    shell(machine, f"useradd --create-home --uid {UID} {USER}")
    machine.write("/usr/sbin/virtqemud", VIRTQEMUD, 0o755)
    machine.systemctl("start", "systemd-logind.service")
    # From a group of the machine's: systemd 256 and later lets logind hear nobody from without.
    shell(machine, f"systemd-run --quiet --wait --collect loginctl enable-linger {USER}")
    machine.systemctl("start", f"user@{UID}.service")
    environment = {"HOME": f"/home/{USER}", "XDG_RUNTIME_DIR": f"/run/user/{UID}"}

    def user(*command):
        return as_user(machine, USER, *command, environment=environment).succeeded()

    yield user
    machine.systemctl("stop", f"user@{UID}.service")


def test_a_user_has_a_service_of_her_own(user):
    uri = "qemu+unix:///session?mode=legacy"
    user("systemctl", "--user", "enable", "--now", "virtproxyd.socket", "virtproxyd-admin.socket")
    assert user("virsh", "-c", uri, "uri").startswith("qemu")
    assert "admin" in user("virt-admin", "-c", "virtproxyd:///session", "srv-list")
    user("systemctl", "--user", "reload", SERVICE)
    user("systemctl", "--user", "stop", SERVICE)
    # What it has started for its clients has guests, and lives on.
    behind = f"qemu+unix:///session?socket=/home/{USER}/own/libvirt/libvirt-sock"
    assert user("virsh", "-c", behind, "uri").startswith("qemu")
    assert user("systemd-analyze", "--user", "verify", "--man=no", SERVICE) == ""


# ---- Coming and going: each in a machine of its own

# Where a service has its files; of those that are no directories with the time of the last change.
# The tests' own environment, to which others that run beside this one add compiled modules, is not
# looked at.
LISTING = rf"""
shopt -s nullglob
find /etc /opt /run/libvirt /usr/local /usr/{{,s}}bin /usr/{{lib,share}}/{{systemd,*-1,*.d}} \
    /usr/share/{{man/man8,bash-completion,proxyd*}} /var -xdev \
    \( -path /var/log/journal -o -path {shlex.quote(sys.prefix)} \) -prune -o \
    -type d -printf '%y %m %u %p\n' -o -printf '%y %m %u %s %C@ %p\n'
find /etc/systemd/system -printf '%y %p\n'
"""
# The group libvirt, which may have members by now, and what sysusers leaves beside it.
STAYS = {"/etc/group", "/etc/gshadow", "/etc/group-", "/etc/gshadow-", "/etc/.pwd.lock"}


@pytest.fixture
def other():
    with short_directory() as directory, Machine(directory) as booted:
        yield booted


def changed(before, after):
    """The paths of which two listings do not say the same."""
    return {line.split()[-1] for line in before ^ after}


def test_nothing_is_left_after_an_uninstallation(other):
    start_libvirtd(other, "virtqemud")
    install_proxyd(other)
    other.run("proxyd", "uninstall").succeeded()  # so that the directory of sockets is there
    before = set(shell(other, LISTING).splitlines())
    other.run("proxyd", "install").succeeded()
    shell(other, ENABLE)
    virsh(other, "uri").succeeded()
    other.run("proxyd", "uninstall").succeeded()
    after = set(shell(other, LISTING).splitlines())
    assert changed(before, after) <= STAYS
    listed = other.run("systemctl", "list-units", "--all", "--plain", "--quiet", "virtproxyd*")
    assert listed.succeeded() == ""


def test_a_second_installation_changes_nothing(other):
    install_proxyd(other)
    before = set(shell(other, LISTING).splitlines())
    said = other.run("proxyd", "install").succeeded().splitlines()
    assert [line for line in said if line.startswith(("create", "update", "remove"))] == []
    after = set(shell(other, LISTING).splitlines())
    assert changed(before, after) == set()


def test_a_file_that_was_edited_stays(other):
    install_proxyd(other)
    other.write(CONF, "max_clients = 77\n")
    said = other.run("proxyd", "uninstall").succeeded()
    assert f"keep    {CONF}: changed since it was installed" in said
    assert (other.root / CONF[1:]).read_text() == "max_clients = 77\n"
    assert not (other.root / ENVIRONMENT_FILE[1:]).exists()


def test_units_of_the_checkout_are_those_of_the_machine(host):
    for name in UNITS[1:]:
        installed = host.root / "usr/local/lib/systemd/system" / name
        assert installed.read_bytes() == (HOST_CHECKOUT / "units" / name).read_bytes()
