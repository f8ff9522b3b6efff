"""Clients that come by SSH: real virsh, real sshd, netcat or virt-ssh-helper on the host.

virt-ssh-helper looks for a socket by itself, and prefers the daemon's own to the proxy's: see
docs/ssh.md. So there are two hosts here, one with the proxy's sockets alone and one with both.
"""

import pwd
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bed import versions
from tests.bed.cases import EVERYTHING
from tests.bed.daemon import short_directory
from tests.bed.polkit import Polkitd, PrivateBus
from tests.bed.proxyd_log import log_line
from tests.bed.side_by_side import Way
from tests.bed.sshd import Sshd
from tests.bed.virsh import held_virsh, unix_uri, virsh
from tests.bed.virsh_commands import QEMU_COMMANDS, TEST_COMMANDS, files
from tests.bed.waiting import wait_until
from tests.system.daemon_clients import clients_of, info_of, only_new_client

__all__ = ["files"]

pytestmark = pytest.mark.system

# `proxy=` of the URI, and the program that it starts on the host. The name that the kernel shows
# has 15 bytes at most.
PROGRAMS = {"netcat": "nc", "native": "virt-ssh-helper"}
# The first libvirt whose client and helper heed `mode` and `socket` where the helper is used.
HEEDS_MODE = (9, 1, 0)
TO_THE_PROXY = "nc -q0 -U /run/libvirt/libvirt-sock"

# One of those that wait for a second is enough.
COMMANDS = [command for command in TEST_COMMANDS if command != "event --all --timeout 1"]

# Accounts that every Debian has, by what the rules below say of them.
LET_IN, REFUSED = "games", "bin"
RULES = f"""
polkit.addRule(function (action, subject) {{
    return subject.user == "{LET_IN}" ? polkit.Result.YES : polkit.Result.NO;
}});
"""


@contextmanager
def host(proxyd, backend=None):
    """A host that one logs in to: with the proxy's sockets, and with a daemon's own if given."""
    with short_directory(0o711) as directory:
        run_dir = directory / "run"
        run_dir.mkdir(mode=0o755)
        (run_dir / "libvirt-sock").symlink_to(proxyd.sock)
        (run_dir / "libvirt-sock-ro").symlink_to(proxyd.sock_ro)
        if backend is not None:
            backend.serve_as(run_dir, "virtqemud")
        with Sshd(directory, run_dir) as sshd:
            yield sshd


@pytest.fixture(scope="module")
def front(proxyd):
    """The host whose daemons' sockets lie where only the proxy looks."""
    with host(proxyd) as sshd:
        yield sshd


@pytest.fixture(scope="module")
def shared(front):
    """The same one, with a connection open already: a login costs more than most commands."""
    with front.shared_connection():
        yield front


@pytest.fixture(scope="module")
def both(proxyd, qemu_backend):
    """The host with the daemon's sockets beside the proxy's, as libvirt's packages have them."""
    with host(proxyd, qemu_backend) as sshd:
        yield sshd


# The same as without SSH and proxy


@pytest.mark.parametrize("command", COMMANDS)
def test_virsh_says_the_same_of_the_test_driver(command, shared, qemu_backend, files, side_by_side):
    through = [Way(shared.uri("test:///default", proxy=proxy)) for proxy in PROGRAMS]
    direct = qemu_backend.unix_way("test:///default")

    side_by_side.virsh(direct, through, command.format(dir=files))


@pytest.mark.parametrize("command", QEMU_COMMANDS)
def test_virsh_says_the_same_of_qemu(command, shared, qemu_backend, files, side_by_side):
    through = [Way(shared.uri("qemu:///system", proxy=proxy)) for proxy in PROGRAMS]
    direct = qemu_backend.unix_way("qemu:///system")

    side_by_side.virsh(direct, through, command.format(dir=files))


@pytest.mark.usefixtures("cases_pool")
def test_a_program_never_waits(shared, qemu_backend, side_by_side):
    direct = shared.uri("test:///default", proxy="netcat", socket=str(qemu_backend.sock))
    through = [Way(shared.uri("test:///default", proxy=proxy)) for proxy in PROGRAMS]

    side_by_side.script(Way(direct), through, EVERYTHING)


# Who it is


@pytest.mark.parametrize("proxy", PROGRAMS)
def test_the_proxy_and_the_daemon_see_the_program_on_the_host(proxy, front, proxyd, qemu_backend):
    before = clients_of(qemu_backend)
    with held_virsh(front.uri("qemu:///system", mode="legacy", proxy=proxy)):
        info = info_of(qemu_backend, only_new_client(qemu_backend, before))
        pid = info["unix_process_id"]

        assert Path(f"/proc/{pid}/comm").read_text().strip() == PROGRAMS[proxy]
        assert info["unix_user_name"] == "root"
        assert log_line(proxyd, f" opened: libvirt-sock, uid 0 (root) pid {pid}, qemu:///system")


@pytest.mark.parametrize("proxy", PROGRAMS)
def test_a_client_that_asks_to_read_only_comes_to_the_read_only_socket(proxy, front, proxyd):
    def opened():
        return proxyd.log_text().count(" opened: libvirt-sock-ro, ")

    before = opened()

    refused = virsh(front.uri("test:///default", proxy=proxy), "destroy test", readonly=True)

    assert "operation forbidden: read only access prevents" in refused.stderr
    wait_until(lambda: opened() > before, 10, "the log has the session")


@pytest.mark.parametrize("transport", ["libssh", "libssh2"])
def test_libssh_and_libssh2_come_to_the_proxy_as_ssh_does(transport, both, proxyd):
    uri = both.uri("qemu:///system", transport=transport, proxy="netcat")

    assert goes_through(proxyd, uri)


@pytest.fixture
def asking(make_proxyd):
    """A proxyd that every account reaches, and that asks a polkit of its own."""
    with short_directory(0o711) as directory, PrivateBus(directory) as bus:
        polkitd = Polkitd(directory, bus)
        polkitd.rule(RULES)
        with polkitd:
            settings = {"auth_unix_rw": "polkit", "unix_sock_rw_perms": "0777"}
            yield make_proxyd(settings, mode=0o711, environment=bus.environment)


def test_polkit_decides_on_the_account_that_logged_in(asking, qemu_backend):
    uid = str(pwd.getpwnam(LET_IN).pw_uid)
    with host(asking) as sshd:
        for proxy in PROGRAMS:
            before = clients_of(qemu_backend)
            with held_virsh(sshd.uri("test:///default", user=LET_IN, proxy=proxy)):
                info = info_of(qemu_backend, only_new_client(qemu_backend, before))
            refused = virsh(sshd.uri("test:///default", user=REFUSED, proxy=proxy), "list")

            assert (info["unix_user_id"], info["unix_user_name"]) == (uid, LET_IN)
            pid = info["unix_process_id"]
            assert log_line(asking, f" opened: libvirt-sock, uid {uid} ({LET_IN}) pid {pid}, ")
            assert refused.status == 1
            assert "org.libvirt.unix.manage" in refused.stderr
    assert f"({REFUSED})" in log_line(asking, "org.libvirt.unix.manage after")


# Past the proxy, or through it


@pytest.mark.parametrize("query", [{}, {"proxy": "auto"}, {"proxy": "native"}, {"mode": "auto"}])
def test_by_default_the_helper_goes_past_the_proxy_to_the_daemon(query, both, proxyd):
    assert not goes_through(proxyd, both.uri("qemu:///system", **query))


@pytest.mark.parametrize("query", [{}, {"mode": "legacy"}])
def test_netcat_goes_through_the_proxy(query, both, proxyd):
    assert goes_through(proxyd, both.uri("qemu:///system", proxy="netcat", **query))


def test_netcat_goes_where_socket_says(both, proxyd, qemu_backend):
    def uri(sock):
        return both.uri("qemu:///system", proxy="netcat", socket=str(sock))

    assert goes_through(proxyd, uri(proxyd.sock))
    assert not goes_through(proxyd, uri(qemu_backend.sock))


@pytest.mark.parametrize("proxy", ["auto", "native"])
def test_the_helper_goes_through_the_proxy_when_a_libvirt_that_heeds_it_says_legacy(
    proxy, both, proxyd
):
    heeds = versions.libvirt() >= HEEDS_MODE

    assert goes_through(proxyd, both.uri("qemu:///system", mode="legacy", proxy=proxy)) is heeds


def test_the_helper_goes_through_the_proxy_where_it_finds_no_other_socket(front, proxyd):
    assert goes_through(proxyd, front.uri("qemu:///system"))


@pytest.fixture(scope="module")
def key_to_the_proxy(both):
    return both.add_key("to-the-proxy", f'restrict,command="{TO_THE_PROXY}"')


@pytest.mark.parametrize("query", [{}, {"proxy": "native"}, {"proxy": "netcat"}])
def test_a_key_with_a_command_of_its_own_goes_through_whatever_the_client_says(
    query, both, key_to_the_proxy, proxyd
):
    assert goes_through(proxyd, both.uri("qemu:///system", key=key_to_the_proxy, **query))


def test_a_key_that_can_only_read_changes_nothing(both, tmp_path):
    key = both.add_key("to-read", f'restrict,command="{TO_THE_PROXY}-ro"')
    uri = both.uri("qemu:///system", key=key)
    assert virsh(uri, "list --all").succeeded()
    domain = tmp_path / "domain.xml"
    domain.write_text("<domain type='qemu'><name>x</name></domain>")
    refused = virsh(uri, f"define {domain}")
    assert refused.status == 1
    assert "read only access prevents virDomainDefineXML" in refused.stderr


def goes_through(proxyd, uri):
    """Whether a client's session at this URI, qemu:///system there, is one of the proxy's."""
    before, others = sessions(proxyd, "qemu:///system"), sessions(proxyd, "test:///default")
    virsh(uri, "list --all").succeeded()
    # The line of a session may come after its client has gone, but not after that of a later one.
    virsh(unix_uri("test:///default", proxyd.sock), "list --all").succeeded()
    wait_until(lambda: sessions(proxyd, "test:///default") > others, 10, "the later one's line")
    return sessions(proxyd, "qemu:///system") > before


def sessions(proxyd, name):
    """How many it has opened for that URI."""
    return len(re.findall(rf" opened: .*, {re.escape(name)} at ", proxyd.log_text()))
