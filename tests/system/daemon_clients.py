"""What a daemon says of its clients, by virt-admin."""

import re

from tests.bed.libvirtd import Libvirtd
from tests.bed.virsh import virt_admin
from tests.bed.waiting import wait_until


def clients_of(backend: Libvirtd) -> list[int]:
    """The ids that `virt-admin client-list` shows."""
    listed = virt_admin(backend.admin_sock, "client-list", "libvirtd").succeeded()
    return [int(number) for number in re.findall(r"^ *(\d+) ", listed, re.MULTILINE)]


def info_of(backend: Libvirtd, client: int) -> dict[str, str]:
    """What `virt-admin client-info` knows of a client."""
    shown = virt_admin(backend.admin_sock, "client-info", "libvirtd", str(client)).succeeded()
    return dict(re.findall(r"^(\S+) *: (.*?) *$", shown, re.MULTILINE))


def new_clients(backend: Libvirtd, before: list[int]) -> list[int]:
    """Those that were not among the ones before, some of which may have left since."""
    return [number for number in clients_of(backend) if number not in before]


def only_new_client(backend, before):
    return wait_until(lambda: new_clients(backend, before), 10, "a client arrives at the daemon")[
        -1
    ]
