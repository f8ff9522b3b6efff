"""The table of transports, and that everybody who has a table of his own has each of them."""

from dataclasses import fields

import pytest

from proxyd.config.mechanisms import MECHANISMS, NAMES, Need, needs_of, serving
from proxyd.config.settings import Settings
from proxyd.config.transports import Transport
from proxyd.daemon import entrances
from proxyd.listen.activation import Service
from proxyd.sasl import mechanisms

SETTINGS = {each.name for each in fields(Settings)}


@pytest.mark.parametrize("transport", Transport, ids=lambda each: each.name)
def test_the_settings_of_each_are_settings(transport):
    traits = transport.traits
    assert {*traits.auth, traits.listen, traits.port} - {""} <= SETTINGS
    assert bool(traits.listen) == bool(traits.port) == bool(traits.unit) == traits.by_network


def test_the_numbers_are_virt_admins_and_each_is_a_whole_number_still():
    assert [(each.name, int(each)) for each in Transport] == [("UNIX", 0), ("TCP", 1), ("TLS", 2)]


@pytest.mark.parametrize("transport", Transport, ids=lambda each: each.name)
def test_clients_of_each_can_be_met_and_systemd_can_make_its_sockets(transport):
    assert transport in entrances._GREETS
    if transport.traits.by_network:
        assert transport.traits.unit in set(Service)


def test_a_private_way_is_one_on_which_the_mechanism_need_not_encrypt():
    for transport in Transport:
        offered = serving(transport)
        assert offered
        assert transport.traits.is_private or all(each.encrypts for each in offered)


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda each: each.name)
def test_each_mechanism_can_be_made_and_serves_somebody(mechanism):
    assert mechanism.name in mechanisms._SERVERS
    assert any(mechanism.serves(transport) for transport in Transport)


def test_what_a_host_needs_follows_from_what_is_wanted():
    assert needs_of(Transport.TCP, ()) == {Need.KEYTAB}
    assert needs_of(Transport.TLS, ()) == {Need.KEYTAB, Need.PASSWORDS}
    assert needs_of(Transport.UNIX, ["SCRAM-SHA-256"]) == {Need.PASSWORDS}
    assert needs_of(Transport.TCP, ["SCRAM-SHA-256"]) == set()
    assert set(mechanisms._SERVERS) == set(NAMES)
