"""Clients as virt-admin lists them."""

from tests.bed.virsh import virt_admin


def client_numbers(admin_sock, server="virtproxyd"):
    listed = virt_admin(admin_sock, "client-list", server).succeeded()
    return [line.split()[0] for line in listed.split("---\n")[1].splitlines() if line.strip()]
