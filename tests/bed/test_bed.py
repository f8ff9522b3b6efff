"""The bed itself: real daemons start, answer, stand side by side and leave nothing."""

import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bed.command import run_to_end
from tests.bed.daemon import conf_text, descriptors, short_directory, status_field
from tests.bed.libvirtd import Libvirtd, every_pid
from tests.bed.python_libvirt import held_script, run_script
from tests.bed.virsh import held_virsh, unix_uri, virsh, virt_admin
from tests.bed.waiting import wait_until

pytestmark = pytest.mark.system

CHECKOUT = Path(__file__).parents[2]
NOBODY = 65534
DOMAIN = """
<domain type='qemu'>
  <name>guest</name><memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os>
</domain>
"""
# Neither firewall nor name service, so that no more packages are needed.
NETWORK = """
<network>
  <name>inner</name><bridge name='pxdbr0'/><forward mode='open'/><dns enable='no'/>
  <ip address='192.0.2.1' prefix='24'/>
</network>
"""
PARENTS = ["/etc", "/etc/libvirt", "/run", "/var/lib", "/var/cache", "/var/log"]

# Runs where libvirt's directories were never made, beside a file and a link of somebody else's.
ON_A_FRESH_HOST = """
import os, sys
from pathlib import Path
from tests.bed.daemon import short_directory
from tests.bed.libvirtd import Libvirtd
from tests.bed.virsh import unix_uri, virsh

cache = Path("/var/cache")
(cache / "file").write_text("kept")
(cache / "link").symlink_to("file")
(cache / ".dir").mkdir()
with short_directory() as directory, Libvirtd(directory) as libvirtd:
    virsh(unix_uri("qemu:///system", libvirtd.sock), "list").succeeded()
    inside = Path(f"/proc/{libvirtd.pid}/root/var/cache")
    print(sorted(os.listdir(inside)), os.readlink(inside / "link"), (inside / "file").read_text())
print(sorted(os.listdir(cache)), os.listdir("/var/lib"), os.listdir("/var/log"))
"""


@pytest.fixture
def libvirtd():
    with short_directory() as directory, Libvirtd(directory) as daemon:
        yield daemon


def uri_of(daemon, name="qemu"):
    return unix_uri(daemon.uri(name), daemon.sock)


def traces():
    """All that a daemon could leave on the host: mounts, control groups, interfaces, files."""
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "groups": sorted(str(path) for path in Path("/sys/fs/cgroup").rglob("*libvirt*")),
        "interfaces": os.listdir("/sys/class/net"),
        **{parent: sorted(os.listdir(parent)) for parent in PARENTS},
    }


def create_guest(daemon):
    """Start a QEMU process and return its pid."""
    xml = daemon.directory / "guest.xml"
    xml.write_text(DOMAIN)
    xml.chmod(0o644)
    virsh(uri_of(daemon), "create", str(xml), user=daemon.user).succeeded()
    # QEMU processes that libvirt only asks for their capabilities may still be there.
    [guest] = [pid for pid in daemon.children() if "guest=guest" in command_line(pid)]
    return guest


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_text()


def gone(pids):
    """Whether none of them is left, but for what init has not collected yet."""
    return not set(pids) & set(every_pid())


def test_two_daemons_answer_side_by_side():
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(Libvirtd(stack.enter_context(short_directory()))) for _ in "ab"
        )

        assert first.pid != second.pid
        for daemon in (first, second):
            assert Path(f"/proc/{daemon.pid}/comm").read_text() == "libvirtd\n"
            virsh(uri_of(daemon), "list", "--all").succeeded()
            assert "running" in virsh(uri_of(daemon, "test"), "list").succeeded()


@pytest.mark.parametrize(
    ("name", "listing"),
    [
        ("network", "net-list"),
        ("storage", "pool-list"),
        ("secret", "secret-list"),
        ("nodedev", "nodedev-list"),
        ("interface", "iface-list"),
        ("nwfilter", "nwfilter-list"),
    ],
)
def test_it_serves_the_secondary_drivers(libvirtd, name, listing):
    virsh(uri_of(libvirtd, name), listing).succeeded()


def test_the_read_only_socket_refuses_changes(libvirtd):
    uri = unix_uri("test:///default", libvirtd.sock_ro)

    virsh(uri, "list", readonly=True).succeeded()
    refused = virsh(uri, "destroy", "test", readonly=True)

    assert refused.status == 1
    assert "read only" in refused.stderr


def test_it_answers_under_the_name_of_a_modular_daemon(libvirtd):
    with short_directory() as directory:
        libvirtd.serve_as(directory, "virtqemud", "virtstoraged")

        virsh(unix_uri("qemu:///system", directory / "virtqemud-sock"), "list").succeeded()
        uri = unix_uri("storage:///system", directory / "virtstoraged-sock-ro")
        virsh(uri, "pool-list", readonly=True).succeeded()


def test_stopping_leaves_nothing():
    before = traces()
    with short_directory() as directory:
        with Libvirtd(directory) as libvirtd:
            pids = [libvirtd.pid, create_guest(libvirtd)]
        wait_until(lambda: gone(pids), 10, "init has collected the guest")
    assert traces() == before


def test_a_killed_daemon_starts_again_and_its_guests_are_gone(libvirtd):
    guest = create_guest(libvirtd)
    libvirtd.kill()
    assert guest in libvirtd.children()

    libvirtd.start()

    # Of the guest alone: a daemon that has just started may be asking dmidecode.
    wait_until(lambda: not Path(f"/proc/{guest}/exe").exists(), 10, "the guest has ended")
    assert guest not in libvirtd.children()
    assert "guest" not in virsh(uri_of(libvirtd), "list").succeeded()


def test_a_host_that_never_had_libvirts_directories_does_not_get_them():
    hide = "".join(f"mount -t tmpfs tmpfs /var/{name}; " for name in ("cache", "lib", "log"))
    command = ["unshare", "--mount", "bash", "-ec", f'{hide} exec "$@"', "bash"]
    script = [sys.executable, "-c", ON_A_FRESH_HOST]

    said = run_to_end(
        [*command, *script], deadline_s=60, environment={"PYTHONPATH": str(CHECKOUT)}
    ).succeeded()

    assert said == "['.dir', 'file', 'libvirt', 'link'] file kept\n['.dir', 'file', 'link'] [] []\n"


def test_a_network_stays_inside(libvirtd, tmp_path):
    xml = tmp_path / "net.xml"
    xml.write_text(NETWORK)

    virsh(uri_of(libvirtd, "network"), "net-create", str(xml)).succeeded()

    links = run_to_end(["nsenter", "-t", str(libvirtd.pid), "--net", "ip", "link"], deadline_s=10)
    assert "pxdbr0" in links.succeeded()
    assert "pxdbr0" not in os.listdir("/sys/class/net")


def test_extra_settings_arrive():
    config = {"max_clients": 23, "max_client_requests": 7}
    with short_directory() as directory, Libvirtd(directory, config=config) as libvirtd:
        limits = virt_admin(libvirtd.admin_sock, "srv-clients-info", "libvirtd").succeeded()
    assert re.search(r"^nclients_max\s*: 23$", limits, re.MULTILINE)


def test_a_daemon_that_cannot_start_says_why():
    config = {"auth_unix_rw": "nonsense"}
    with short_directory() as directory, pytest.raises(ChildProcessError) as caught:
        Libvirtd(directory, config=config).start()
    assert "nonsense" in caught.value.__notes__[0]


def test_a_session_daemon_answers_an_ordinary_user_and_leaves_nothing():
    before = traces()
    with short_directory() as directory:
        with Libvirtd(directory, user=NOBODY) as libvirtd:
            pids = [libvirtd.pid, create_guest(libvirtd)]

            assert status_field(libvirtd.pid, "Uid") == NOBODY
            assert libvirtd.sock_ro is None
            for name in ("qemu", "test"):
                virsh(uri_of(libvirtd, name), "list", user=NOBODY).succeeded()
            virt_admin(libvirtd.admin_sock, "srv-list", user=NOBODY).succeeded()
        wait_until(lambda: gone(pids), 10, "init has collected the guest")
    assert traces() == before


def test_a_virsh_can_stay_connected(libvirtd):
    def clients():
        listing = virt_admin(libvirtd.admin_sock, "client-list", "libvirtd").succeeded()
        return re.findall(r"^ \d+ +unix ", listing, re.MULTILINE)

    with held_virsh(uri_of(libvirtd, "test")) as held:
        held.stdin.write("domid test\n")
        held.stdin.flush()
        assert "1\n" in held.stdout
        assert len(clients()) == 1
    wait_until(lambda: not clients(), 10, "the daemon sees its client leave")


def test_the_distributions_python_talks_to_it(libvirtd):
    script = "import libvirt, sys; print(libvirt.open(sys.argv[1]).listDomainsID())"
    assert run_script(script, uri_of(libvirtd, "test")).succeeded() == "[1]\n"


def test_a_script_gets_descriptors():
    reading, writing = os.pipe()
    with open(reading) as pipe:
        script = "import os, sys; os.write(int(sys.argv[1]), b'here'); input()"
        with open(writing, "w"), held_script(script, str(writing), pass_fds=[writing]):
            assert pipe.read(4) == "here"


def test_the_figures_of_a_process_are_read():
    with open("/dev/zero") as zero:
        assert descriptors(os.getpid())[zero.fileno()] == "/dev/zero"
    assert status_field(os.getpid(), "Threads") >= 1


def test_settings_are_written_as_the_daemons_read_them():
    settings = {"a": 1, "b": 'say "x"', "c": ["p=q", "r"], "d": None, "e": True}
    assert conf_text(settings) == 'a = 1\nb = \'say "x"\'\nc = ["p=q", "r"]\ne = 1\n'


def test_a_command_gets_nothing_of_our_environment(monkeypatch):
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///default")
    environment = run_to_end(["env"], deadline_s=10).succeeded()
    assert "DEFAULT_URI" not in environment
    assert "LC_ALL=C" in environment


def test_waiting_ends_at_the_deadline_and_says_for_what():
    with pytest.raises(TimeoutError, match=r"not within 0\.01 s: the moon"):
        wait_until(lambda: False, 0.01, "the moon")
