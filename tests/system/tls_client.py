"""A TLS client of our own, for what virsh would not do."""

import socket
import ssl
from contextlib import contextmanager

from tests.system.rpc import DEADLINE_S, RpcClient

LET_IN = b"\x01"


def host_and_port(address):
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def connected(address):
    return socket.create_connection(host_and_port(address), timeout=DEADLINE_S)


def client_context(pkipath):
    """With the client's certificate if there is one; it checks nothing of the server but its CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(pkipath / "cacert.pem")
    if (pkipath / "clientcert.pem").exists():
        context.load_cert_chain(pkipath / "clientcert.pem", pkipath / "clientkey.pem")
    return context


def tls_connected(address, pkipath):
    """Handshake done, nothing read."""
    return client_context(pkipath).wrap_socket(connected(address))


@contextmanager
def opened_over_tls(address, pkipath, uri="test:///default"):
    with tls_connected(address, pkipath) as sock:
        assert sock.recv(1) == LET_IN
        client = RpcClient(sock)
        reply = client.open(uri)
        assert reply is not None
        yield client
