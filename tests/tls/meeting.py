"""Handshakes with a server context, in memory or by a socket pair."""

import contextlib

from OpenSSL import SSL

from proxyd.endpoint.tls import HandshakeFailed, TlsEndpoint
from proxyd.tls.verify import Inspection
from tests.bed.pairs import tcp_pair
from tests.fakes.tls import TLS_1_3, TlsPeer

# libvirt's documentation (TLS, "post-quantum cryptography").
WITHOUT_POST_QUANTUM = (
    "@SYSTEM:-SIGN-ML-DSA-65:-SIGN-ML-DSA-44:-SIGN-ML-DSA-87:-GROUP-X25519-MLKEM768"
    ":-GROUP-SECP256R1-MLKEM768:-GROUP-SECP384R1-MLKEM1024"
)


class Meeting:
    """A client with the certificate of a directory, and what became of it."""

    def __init__(self, tls, pkipath, version=TLS_1_3):
        other, sock = tcp_pair()
        self.inspection = Inspection()
        self.endpoint = TlsEndpoint(sock, tls.contexts[0], self.inspection, tls.contexts[1:])
        self.peer = TlsPeer(other, version)
        if (pkipath / "clientcert.pem").exists():
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_min_proto_version(version)
            context.set_max_proto_version(version)
            context.use_certificate_chain_file(str(pkipath / "clientcert.pem"))
            context.use_privatekey_file(str(pkipath / "clientkey.pem"))
            self.peer.connection = SSL.Connection(context, other)
            self.peer.connection.set_connect_state()
        self.error = ""
        self.alert = ""
        try:
            self._shake_hands()
            tls.judge(self.inspection, self.endpoint.connection)
        except HandshakeFailed as failed:
            self.error = tls.explain(self.inspection, str(failed))
            self.alert = self._alert()

    def _shake_hands(self):
        done = False
        while not done:
            with contextlib.suppress(SSL.WantReadError):
                self.peer.connection.do_handshake()
            done = self.endpoint.handshake()

    def _alert(self):
        try:
            self.peer._wait_for(lambda: self.peer.connection.recv(1))
        except SSL.Error as error:
            return str(error.args[0][0][2])
        return ""

    @property
    def verdict(self):
        return self.inspection.verdict

    def close(self):
        self.peer.close()
        self.endpoint.close()
