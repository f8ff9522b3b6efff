"""Commands of virsh that are given to a daemon directly and through proxyd."""

import pytest

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
