"""The other side of a TLS endpoint, in this process: a client that behaves like a socket."""

import datetime as dt
import functools
import select

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from proxyd.endpoint.tls import TlsEndpoint

TLS_1_2 = SSL.TLS1_2_VERSION
TLS_1_3 = SSL.TLS1_3_VERSION
LET_IN = b"\x01"
DEADLINE_S = 5
PARTIAL_WRITE = 0x1
ENABLE_KTLS = 0x8  # SSL_OP_ENABLE_KTLS


@functools.cache
def certified_key():
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def server_context():
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.clear_mode(PARTIAL_WRITE)  # as proxyd's own
    certificate, key = certified_key()
    context.use_certificate(certificate)
    context.use_privatekey(key)
    return context


class TlsPeer:
    """A client's connection with the methods of a blocking socket that the tests need."""

    def __init__(self, sock, version):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        sock.setblocking(False)
        self.sock = sock
        self.connection = SSL.Connection(context, sock)
        self.connection.set_connect_state()
        self.family = sock.family

    def sendall(self, data):
        view = memoryview(data)
        while view:
            view = view[self._wait_for(lambda left=view: self.connection.send(left)) :]

    def recv(self, size):
        try:
            return self._wait_for(lambda: self.connection.recv(size))
        except SSL.ZeroReturnError:
            return b""
        except SSL.SysCallError as error:
            if error.args[0] == -1:
                return b""
            raise

    def shutdown(self, _how):
        """As every libvirt client: without a word of TLS."""
        self.connection.sock_shutdown(1)

    def say_goodbye(self):
        self.connection.shutdown()

    def setsockopt(self, *arguments):
        self.sock.setsockopt(*arguments)

    def settimeout(self, _seconds):
        """Every wait here has a deadline already."""

    def close(self):
        self.sock.close()

    def _wait_for(self, step):
        while True:
            try:
                return step()
            except SSL.WantReadError:
                assert select.select([self.sock], [], [], DEADLINE_S)[0], "nothing came"
            except SSL.WantWriteError:
                assert select.select([], [self.sock], [], DEADLINE_S)[1], "no room"


def secured(other, sock, *, version=TLS_1_3, make=TlsEndpoint, in_kernel=False):
    """A TlsEndpoint on `sock`, after its handshake with a client on `other` that was let in.

    `in_kernel` asks OpenSSL to have the kernel encrypt, which it does if it can.
    """
    context = server_context()
    if in_kernel:
        context.set_options(ENABLE_KTLS)
    endpoint = make(sock, context, None)
    peer = TlsPeer(other, version)
    done = client_done = False
    while not (done and client_done):
        try:
            peer.connection.do_handshake()
            client_done = True
        except SSL.WantReadError:
            pass
        done = done or endpoint.handshake()
    assert endpoint.write(memoryview(LET_IN)) == 1
    assert peer.recv(2) == LET_IN
    return peer, endpoint
