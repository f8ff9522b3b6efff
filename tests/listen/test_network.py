"""TCP ports: where they listen, what they refuse, and whom they name."""

import errno
import os
import socket

import pytest

from proxyd.config.listeners import NetworkListening, network_listening
from proxyd.config.settings import Settings
from proxyd.config.transports import Transport
from proxyd.listen import network
from proxyd.listen.network import open_network_listeners
from proxyd.listen.unix import ListenerError
from proxyd.process.sockets import port_owner
from proxyd.wire.programs import AuthMethod


def asked(host="127.0.0.1", port="0", backlog=5):
    return NetworkListening(
        transport=Transport.TLS,
        host=host,
        port=port,
        backlog=backlog,
        method=AuthMethod.NONE,
    )


@pytest.fixture
def listening():
    """Opens what is asked for and closes it at the end."""
    opened = []

    def listening(*arguments, **options):
        listeners = open_network_listeners(asked(*arguments, **options))
        opened.extend(listeners)
        return listeners

    yield listening
    for listener in opened:
        listener.close()


def refusal(*arguments, **options):
    with pytest.raises(ListenerError) as refused:
        open_network_listeners(asked(*arguments, **options))
    return str(refused.value)


def test_the_settings_decide_whether_where_and_for_whom():
    assert network_listening(Settings(), Transport.TLS) is None
    settings = Settings(listen_tls=True, listen_addr="::1", tls_port="4711", max_queued_clients=7)
    wanted = network_listening(settings, Transport.TLS)
    assert (wanted.host, wanted.port, wanted.backlog) == ("::1", "4711", 7)
    door = wanted.door("[::1]:4711")
    assert (door.name, door.transport, door.method) == (
        "tls [::1]:4711",
        Transport.TLS,
        AuthMethod.NONE,
    )
    assert not door.readonly
    assert not door.own_uid_only


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_is_listened_on_and_accepts(listening, host):
    (listener,) = listening(host)
    assert not os.get_blocking(listener.fileno())
    with socket.create_connection(listener.getsockname()[:2]) as client:
        accepted, peer = listener.accept()
        accepted.close()
        assert peer[:2] == client.getsockname()[:2]


def test_no_address_is_every_address_of_both_families(listening):
    listeners = listening(None)
    assert sorted(listener.family for listener in listeners) == [socket.AF_INET, socket.AF_INET6]
    (six,) = (each for each in listeners if each.family == socket.AF_INET6)
    assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_a_port_may_be_asked_for_by_both_families_at_once(listening):
    (four,) = listening("127.0.0.1")
    port = four.getsockname()[1]
    (six,) = listening("::1", port=str(port))
    assert six.getsockname()[1] == port


def test_a_name_stands_for_its_addresses_each_once(listening):
    listeners = listening("localhost")
    addresses = [listener.getsockname()[0] for listener in listeners]
    assert "127.0.0.1" in addresses
    assert len(addresses) == len(set(addresses))


def test_a_restart_need_not_wait_for_connections_that_linger(listening):
    (first,) = listening()
    address = first.getsockname()
    with socket.create_connection(address) as client:
        accepted, _ = first.accept()
        accepted.close()  # this side ends first, and its half lingers in TIME_WAIT
        client.recv(1)
    first.close()
    (second,) = listening(port=str(address[1]))
    assert second.getsockname() == address


def test_a_port_in_use_is_refused_and_its_holder_named():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refusal(port=str(port))
    assert said.startswith(f"127.0.0.1:{port} is in use by pid {os.getpid()} (")
    assert "systemctl stop libvirtd-tls.socket" in said
    assert "(tls_port)" in said


def test_one_address_of_several_in_use_is_a_refusal_that_leaves_nothing_open():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        before = os.listdir("/proc/self/fd")
        assert f"[::]:{port} is in use" in refusal(None, port=str(port))
        assert os.listdir("/proc/self/fd") == before


def test_an_address_that_is_not_this_hosts_is_refused_with_what_to_do():
    said = refusal("192.0.2.1")
    assert "192.0.2.1 is not one of this host's addresses" in said
    assert "ip address" in said


def test_a_name_without_address_is_refused():
    said = refusal("no.such.host.invalid")
    assert 'no address for listen_addr "no.such.host.invalid" and tls_port "0"' in said


def test_a_service_that_nobody_knows_is_refused():
    assert 'tls_port "no-such-service"' in refusal(port="no-such-service")


def test_a_family_that_the_host_does_not_have_is_left_out(listening, monkeypatch):
    def without_ipv6(family, *rest):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return plain(family, *rest)

    plain = socket.socket
    monkeypatch.setattr(network.socket, "socket", without_ipv6)
    (listener,) = listening(None)
    assert listener.family == socket.AF_INET


def test_a_port_that_nobody_holds_has_no_owner():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert port_owner(port).pid == 0
