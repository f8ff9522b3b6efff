"""Descriptors arrive: one in a call, one in a reply, as many as a frame may carry."""

import pytest

from tests.bed.command import run_to_end
from tests.bed.daemon import descriptors
from tests.bed.open_domain import domain
from tests.bed.python_libvirt import held_script, run_script
from tests.bed.virsh import unix_uri

__all__ = ["domain"]

pytestmark = pytest.mark.system


def leading_to(pid, path):
    return sum(target == str(path) for target in descriptors(pid).values())


def test_virsh_passes_a_descriptor(proxyd, domain, tmp_path):
    passed = tmp_path / "passed"
    passed.touch()
    uri = unix_uri("qemu:///system", proxyd.sock)
    command = ["virsh", "-c", uri, "dom-fd-associate", "--domain", domain, "--name", "g"]

    with passed.open() as file:
        done = run_to_end(
            [*command, "--pass-fds", str(file.fileno())], deadline_s=30, pass_fds=[file.fileno()]
        )

    assert (done.status, done.stderr) == (0, "")


ASSOCIATE = """
import libvirt, os, sys
uri, domain, count, path = sys.argv[1:]
connection = libvirt.open(uri)
passed = [os.open(path, os.O_RDONLY) for _ in range(int(count))]
connection.lookupByName(domain).FDAssociate("g", passed, 0)
print("associated", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("count", [1, 2, 32])
def test_as_many_descriptors_arrive_as_were_sent(count, proxyd, qemu_backend, domain, tmp_path):
    passed = tmp_path / "passed"
    passed.touch()
    uri = unix_uri("qemu:///system", proxyd.sock)

    with held_script(ASSOCIATE, uri, domain, str(count), str(passed)) as client:
        assert client.stdout.readline() == "associated\n"

        assert leading_to(qemu_backend.pid, passed) == count
        assert leading_to(proxyd.pid, passed) == 0


GRAPHICS = """
import libvirt, os, socket, sys
connection = libvirt.open(sys.argv[1])
domain = connection.lookupByName(sys.argv[2])
domain.create()
with socket.socket(fileno=domain.openGraphicsFD(0, 0)) as graphics:
    graphics.settimeout(20)
    print(graphics.recv(12).decode().strip())
domain.destroy()
print(connection.getLibVersion() > 0)
"""


def test_a_descriptor_in_a_reply_arrives_and_speaks_vnc(proxyd, domain):
    before = len(proxyd.descriptors())

    said = run_script(GRAPHICS, unix_uri("qemu:///system", proxyd.sock), domain).succeeded()

    assert said == "RFB 003.008\nTrue\n"
    assert len(proxyd.descriptors()) <= before + 2  # one session may still be ending
