"""A handshake in memory, and what both sides say of it: OpenSSL's own and what was on the wire."""

import contextlib
import datetime as dt
import functools
from dataclasses import dataclass, field

from cryptography import x509
from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from certs.keys import digest_for, new_key
from proxyd.pki.private_key import use_private_key

_HANDSHAKE = 22
_SERVER_KEY_EXCHANGE, _CERTIFICATE_VERIFY = 12, 15
_NAMED_CURVE = 3


@functools.cache
def self_signed(kind):
    """A certificate and its key, of a kind that `certs` knows."""
    key = new_key(kind)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .sign(key, digest_for(key))
    )
    return certificate, key


def put_key(context, certificate, key):
    context.use_certificate(certificate)
    use_private_key(context, key)


@dataclass
class Client:
    """A client's context, with the number of the signature that a server made for it."""

    version: int | None = None
    groups: str = ""
    signatures: str = ""
    ciphers: str = ""
    kind: str = ""  # of its own key
    signature: int | None = None
    _kept: list = field(default_factory=list)

    def __post_init__(self):
        self.context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        handle = self.context._context
        if self.version:
            self.context.set_min_proto_version(self.version)
            self.context.set_max_proto_version(self.version)
        if self.ciphers:
            self.context.set_cipher_list(self.ciphers.encode())
        if self.groups:
            assert lib.SSL_CTX_set1_curves_list(handle, self.groups.encode())
        if self.signatures:
            assert lib.SSL_CTX_set1_sigalgs_list(handle, self.signatures.encode())
        if self.kind:
            put_key(self.context, *self_signed(self.kind))
        callback = ffi.callback("void(int, int, int, const void *, size_t, SSL *, void *)")
        self._kept.append(callback(self._looks_at))
        lib.SSL_CTX_set_msg_callback(handle, self._kept[0])

    def _looks_at(self, sent, _version, kind, start, size, _ssl, _argument):
        said = bytes(ffi.buffer(start, size))
        if sent or kind != _HANDSHAKE:
            return
        if said[0] == _CERTIFICATE_VERIFY:
            self.signature = int.from_bytes(said[4:6], "big")
        if said[0] == _SERVER_KEY_EXCHANGE:
            at = 8 + said[7] if said[4] == _NAMED_CURVE else 4
            for _ in range(3 if said[4] != _NAMED_CURVE else 0):  # p, g and the public value
                at += 2 + int.from_bytes(said[at : at + 2], "big")
            self.signature = int.from_bytes(said[at : at + 2], "big")


def meet(server, client):
    """Both connections after the handshake; raises SSL.Error where there is none."""
    ours, theirs = SSL.Connection(server, None), SSL.Connection(client.context, None)
    ours.set_accept_state()
    theirs.set_connect_state()
    done = set()
    while len(done) < 2:
        for side, other in ((theirs, ours), (ours, theirs)):
            with contextlib.suppress(SSL.WantReadError):
                side.do_handshake()
                done.add(side)
            with contextlib.suppress(SSL.WantReadError):
                while True:
                    other.bio_write(side.bio_read(1 << 16))
    return ours, theirs


def group_of(server, client):
    """The name of the group that came of it; None for no handshake at all."""
    try:
        ours, _ = meet(server, client)
    except SSL.Error:
        return None
    return ours.get_group_name()
