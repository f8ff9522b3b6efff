"""One spelling of addresses, and of the names of sockets."""

import pytest

from proxyd.config.addresses import (
    LEGACY,
    LEGACY_READONLY,
    daemon_at,
    host_port,
    socket_name,
    socket_unit,
)


def test_an_address_is_written_as_in_a_uri():
    assert host_port(("127.0.0.1", 16514)) == "127.0.0.1:16514"
    assert host_port(("::1", 16514, 0, 0)) == "[::1]:16514"


def test_the_legacy_sockets_have_the_names_that_clients_know():
    assert (LEGACY, LEGACY_READONLY) == ("libvirt-sock", "libvirt-sock-ro")
    assert socket_unit("virtqemud") == "virtqemud.socket"
    assert socket_unit("virtqemud", readonly=True) == "virtqemud-ro.socket"


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("daemon", ["virtqemud", "libvirt", "virt-ro"])
def test_whose_a_socket_is_can_be_told_by_its_name(daemon, readonly):
    assert daemon_at(f"/run/libvirt/{socket_name(daemon, readonly=readonly)}") == daemon


@pytest.mark.parametrize("path", ["/srv/test", "test", ""])
def test_a_socket_of_another_name_is_called_by_it(path):
    assert daemon_at(path) == path.rpartition("/")[2]
