"""A domain, asked for in a session."""

import pytest

from tests.bed.virsh import unix_uri, virsh

DOMAIN = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    <graphics type='vnc' socket='{socket}'/><memballoon model='none'/></devices></domain>
"""


@pytest.fixture
def domain(qemu_backend, tmp_path):
    """A domain that is defined and does not run."""
    xml = tmp_path / "domain.xml"
    xml.write_text(DOMAIN.format(name="carrier", socket=qemu_backend.directory / "vnc"))
    uri = unix_uri("qemu:///system", qemu_backend.sock)
    virsh(uri, f"define {xml}").succeeded()
    yield "carrier"
    virsh(uri, "destroy carrier")
    virsh(uri, "undefine carrier").succeeded()
