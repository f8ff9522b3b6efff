"""The fake daemon on TCP, and behind TLS with OpenSSL's tickets and a byte that confirms."""

import socket
import socketserver
import ssl
import threading

from tests.loadtest.fake_daemon import Connection


def server_context(pki, *, version=ssl.TLSVersion.TLSv1_3, wants_certificate=True):
    """As libvirt's: one version here, so that a test knows which one it is about."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(pki["server.pem"], pki["server.key"])
    if wants_certificate:
        context.load_verify_locations(pki["ca.pem"])
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class _TlsConnection(Connection):
    server: "FakeTlsDaemon"

    def handle(self):
        script = self.server.script
        try:
            secured = self.server.context.wrap_socket(self.request, server_side=True)
        except OSError as error:  # of OpenSSL's as well
            script.handshakes.append(str(error))
            return
        with secured:
            script.handshakes.append("resumed" if secured.session_reused else "full")
            self.request = secured
            if script.confirmation:
                secured.sendall(script.confirmation)
                super().handle()


class FakeTcpDaemon(socketserver.ThreadingTCPServer):
    """Serves in threads while its context lasts; leaving joins them, so clients must be gone."""

    request_queue_size = 64

    def __init__(self, script, host="127.0.0.1", handler=Connection):
        self.script = script
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), handler)

    @property
    def port(self):
        return self.server_address[1]

    def __enter__(self):
        self.serving = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.serving.start()
        return self

    def __exit__(self, *exc_info):
        self.shutdown()
        self.serving.join()
        super().__exit__(*exc_info)


class FakeTlsDaemon(FakeTcpDaemon):
    def __init__(self, context, script, host="127.0.0.1"):
        self.context = context
        super().__init__(script, host, _TlsConnection)
