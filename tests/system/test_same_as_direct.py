"""A client cannot tell proxyd from the daemon itself: real virsh, both ways, compared in full."""

import select

import pytest

from tests.bed.virsh import held_virsh, unix_uri, virsh
from tests.bed.waiting import wait_until
from tests.system.daemon_clients import clients_of

pytestmark = pytest.mark.system

DOMAIN = """
<domain type='{kind}'>
  <name>made</name><uuid>11111111-2222-3333-4444-555555555555</uuid>
  <memory unit='KiB'>65536</memory><vcpu>1</vcpu>
  <os><type arch='{arch}'{machine}>hvm</type></os>
</domain>
"""
SECRET = """
<secret ephemeral='no' private='no'>
  <uuid>22222222-2222-3333-4444-555555555555</uuid>
  <description>for a test</description>
  <usage type='volume'><volume>/nonexistent/made.img</volume></usage>
</secret>
"""
NETWORK = """
<network><name>made</name><uuid>33333333-2222-3333-4444-555555555555</uuid>
  <bridge name='virbr9' stp='on' delay='0'/><mac address='52:54:00:aa:bb:cc'/></network>
"""
FILES = {
    "qemu.xml": DOMAIN.format(kind="qemu", arch="x86_64", machine=" machine='pc'"),
    "test.xml": DOMAIN.format(kind="test", arch="i686", machine=""),
    "secret.xml": SECRET,
    "network.xml": NETWORK,
    "broken.xml": "<domain><name>half",
}

# virsh runs several commands of one connection from one argument; test:///default begins anew
# with each connection, and what the others define they undefine.
TEST_COMMANDS = [
    "list --all",
    "domstate test",
    "domid test",
    "domuuid test",
    "dumpxml test",
    "dumpxml --inactive --update-cpu test",
    "vcpucount test",
    "domblklist test",
    "domiflist test",
    "autostart test; dominfo nothing",
    "net-list --all",
    "net-dumpxml default",
    "net-destroy default; net-list --all; net-start default; net-info default",
    "pool-list --all --details",
    "pool-dumpxml default-pool",
    "pool-info default-pool",
    "vol-create-as default-pool made.img 10M; vol-list default-pool;"
    " vol-info made.img default-pool",
    "vol-info made.img default-pool",
    "nodedev-list --tree",
    "nodedev-dumpxml computer",
    "iface-list --all",
    "iface-dumpxml eth1",
    "capabilities",
    "nodeinfo",
    "hostname",
    "version",
    "uri",
    "snapshot-list test",
    "destroy test; domstate test; start test; domstate test",
    "define {dir}/test.xml; list --all; start made; list; destroy made; undefine made; list --all",
    "suspend test; domstate --reason test; resume test; domstate --reason test",
    "define {dir}/broken.xml",
    "define {dir}/missing.xml",
    "start test",
    "dumpxml nosuch",
    "domcapabilities",
    "secret-list",
    "nosuchcommand",
    "event test lifecycle --timeout 1",
    "event --all --timeout 1",
]
QEMU_COMMANDS = [
    "list --all",
    "version",
    "capabilities",
    "domcapabilities",
    "domcapabilities --virttype nosuch",
    "define {dir}/qemu.xml; dumpxml made; list --all; undefine made",
    "secret-define {dir}/secret.xml; secret-list;"
    " secret-dumpxml 22222222-2222-3333-4444-555555555555;"
    " secret-undefine 22222222-2222-3333-4444-555555555555",
    "pool-define-as made dir --target {dir}; pool-start made; vol-create-as made v.img 1M;"
    " vol-list made; vol-delete v.img made; pool-destroy made; pool-undefine made",
    "net-define {dir}/network.xml; net-dumpxml made; net-undefine made",
    "nwfilter-list",
    "nodedev-list --cap system",
    "iface-list --all",
    "cpu-models x86_64",
    "maxvcpus --type qemu",
    "sysinfo",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    for name, text in FILES.items():
        (directory / name).write_text(text)
    return directory


def said(finished):
    return finished.stdout, finished.stderr, finished.status


@pytest.mark.parametrize("command", TEST_COMMANDS)
def test_virsh_says_the_same_of_the_test_driver(command, qemu_backend, proxyd, files):
    command = command.format(dir=files)

    direct = virsh(unix_uri("test:///default", qemu_backend.sock), command)
    proxied = virsh(unix_uri("test:///default", proxyd.sock), command)

    hide = [str(qemu_backend.sock), str(proxyd.sock)]  # `uri` prints where the client went
    assert said(proxied)[0].replace(hide[1], "") == said(direct)[0].replace(hide[0], "")
    assert said(proxied)[1:] == said(direct)[1:]


@pytest.mark.parametrize("command", QEMU_COMMANDS)
def test_virsh_says_the_same_of_qemu(command, qemu_backend, proxyd, files):
    command = command.format(dir=files)

    direct = virsh(unix_uri("qemu:///system", qemu_backend.sock), command, deadline_s=60)
    proxied = virsh(unix_uri("qemu:///system", proxyd.sock), command, deadline_s=60)

    assert said(proxied) == said(direct)


@pytest.mark.parametrize(
    ("command", "works"),
    [
        ("list --all", True),
        ("dumpxml test", True),
        ("net-list --all", True),
        ("pool-list --all", True),
        ("capabilities", True),
        ("event test lifecycle --timeout 1", True),
        ("destroy test", False),
        ("define {dir}/test.xml", False),
        ("net-destroy default", False),
        ("dumpxml --security-info test", False),
        ("autostart test", False),
    ],
)
def test_virsh_r_reads_and_is_refused_writes_alike(command, works, qemu_backend, proxyd, files):
    command = command.format(dir=files)

    direct = virsh(unix_uri("test:///default", qemu_backend.sock_ro), command, readonly=True)
    proxied = virsh(unix_uri("test:///default", proxyd.sock_ro), command, readonly=True)

    assert said(proxied) == said(direct)
    assert ("operation forbidden" not in proxied.stderr) is works


def test_a_client_that_does_not_ask_for_read_only_gets_it_at_the_read_only_socket(proxyd):
    written = virsh(unix_uri("test:///default", proxyd.sock_ro), "destroy test")

    assert "operation forbidden: read only access prevents" in written.stderr


def test_events_arrive_as_they_do_directly(qemu_backend, proxyd):
    direct = events_seen(qemu_backend.sock, qemu_backend)
    proxied = events_seen(proxyd.sock, qemu_backend)

    assert [line for line in direct if "lifecycle" in line]
    assert proxied == direct


def events_seen(sock, backend):
    """What `virsh event` prints while somebody else stops and starts a domain."""
    uri = unix_uri("test:///default", sock)
    with held_virsh(
        uri, "event", "test", "--event", "lifecycle", "--loop", "--timeout", "20"
    ) as seen:
        wait_until(lambda: clients_of(backend), 10, "the listener is connected")
        # The listener may be connected and not registered yet, so the first events can be missed:
        # the same commands follow until it has seen a whole round.
        lines = []
        for _ in range(50):
            virsh(
                unix_uri("test:///default", backend.sock), "suspend test; resume test"
            ).succeeded()
            lines = read_available(seen, lines)
            if sum("Resumed" in line for line in lines) >= 2:
                break
        first = next(n for n, line in enumerate(lines) if "Suspended" in line)
        return lines[first : first + 2]


def read_available(process, lines):
    while select.select([process.stdout], [], [], 0.1)[0] and (line := process.stdout.readline()):
        lines = [*lines, line]
    return lines
