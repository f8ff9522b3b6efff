"""Everything that a new TLS connection needs, as one immutable snapshot: `ServerTls`.

It is built whole from files, settings and policy, and swapped whole at a reload: a connection
keeps the one that it was accepted with.
"""

import contextlib
import datetime as dt
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto

from proxyd.auth.bounds import LONGEST_CHAIN, TooLarge, sent
from proxyd.auth.certificates import Credentials
from proxyd.auth.verify import ChainCheck, ClientJudge, Inspection, Verdict, reason_of
from proxyd.config.priority import TlsPolicy, TlsVersion

# OpenSSL would complete our chain from the CAs that clients are checked with, which may be other
# ones than those that signed our certificate. No name in pyOpenSSL.
_NO_AUTO_CHAIN: Final = 0x8

# pyOpenSSL sets it, and then each record is a call from Python: a third more CPU for a long stream.
_ENABLE_PARTIAL_WRITE: Final = 0x1

# Records are then encrypted by the kernel where it can (module tls) and where OpenSSL was built for
# it; anywhere else the option has no effect. No name in pyOpenSSL.
_ENABLE_KTLS: Final = 0x8

_OPTIONS: Final = (
    SSL.OP_NO_TICKET  # TLS 1.2; for 1.3 see tickets.py
    | SSL.OP_NO_COMPRESSION
    | SSL.OP_CIPHER_SERVER_PREFERENCE
)
_EXPORTER_SIZE: Final = 32
_ASK_FOR_CERTIFICATE: Final = SSL.VERIFY_PEER
_DEMAND_CERTIFICATE: Final = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT

# OpenSSL's texts for what goes wrong most often, and what to do about each.
_HINTS: Final = (
    ("peer did not return a certificate", "give the client one (clientcert.pem, clientkey.pem)"),
    ("http request", "a browser? libvirt clients use qemu+tls://"),
    ("wrong version number", "a client without TLS? its URI has to say +tls"),
    ("unsupported protocol", "the client is limited to versions that tls_priority excludes"),
    ("no shared cipher", "the client has none of the ciphers that tls_priority allows"),
    ("unknown ca", "the client does not trust our CA: give it our cacert.pem"),
    ("key too small", "tls_priority asks for stronger keys; RSA then needs 3072 bits"),
    ("bad certificate", "the client does not like our certificate"),
    ("certificate expired", "the client finds our certificate or its CA expired"),
    ("certificate unknown", "the client does not like our certificate"),
)


class TlsUnusable(Exception):
    """No TLS listener can be made of this; the text says why and what to do."""


class ServerTls:
    """What one generation of TLS connections is made and judged with."""

    def __init__(self, context: SSL.Context, judge: ClientJudge, credentials: Credentials) -> None:
        self.context = context
        self.credentials = credentials
        self._judge = judge

    def judge(self, inspection: Inspection, connection: SSL.Connection) -> None:
        """Writes the verdict on a client whose handshake is complete."""
        refusal, chain = inspection.refusal, []
        try:
            if not refusal:
                chain = sent(connection)
        except TooLarge as excess:
            refusal = f"its certificate {excess}"
        except (ValueError, x509.InvalidVersion) as malformed:
            text = reason_of(malformed)
            inspection.verdict = Verdict(refusal=f"its certificate is malformed: {text}")
            return
        inspection.verdict = self._judge.verdict(refusal, chain, dt.datetime.now(dt.UTC))

    def explain(self, inspection: Inspection, reason: str) -> str:
        """Why a handshake failed: what the chain's check found, or OpenSSL's text with a hint."""
        if inspection.refusal:
            return inspection.refusal
        hint = next((f" ({hint})" for text, hint in _HINTS if text in reason), "")
        return f"no TLS: {reason}{hint}"


def make_server_tls(
    credentials: Credentials,
    policy: TlsPolicy,
    *,
    enforce: bool,
    allowed: Sequence[str] | None,
    in_kernel: bool = False,
) -> ServerTls:
    """Raises TlsUnusable. `enforce` False lets in clients with any certificate or none."""
    try:
        context = _context(credentials, policy)
        if in_kernel:
            context.set_options(_ENABLE_KTLS)
        context.set_verify(
            _DEMAND_CERTIFICATE if enforce else _ASK_FOR_CERTIFICATE, ChainCheck(enforce=enforce)
        )
    except (SSL.Error, crypto.Error) as error:
        texts = "; ".join(str(entry[-1]) for entry in error.args[0]) if error.args else ""
        raise TlsUnusable(f"OpenSSL refuses the certificates or ciphers: {texts}") from error
    return ServerTls(context, ClientJudge(enforce=enforce, allowed=allowed), credentials)


def channel_bindings(connection: SSL.Connection) -> dict[str, bytes]:
    """What an established connection can be told by (RFC 9266, RFC 5929, section 4).

    Both ends know it and nobody between them could have the same with each of them.
    """
    found = {}
    if connection.get_protocol_version() >= SSL.TLS1_3_VERSION:
        # Below it takes the extended master secret, and nobody here can say whether that is used.
        found["tls-exporter"] = connection.export_keying_material(
            b"EXPORTER-Channel-Binding", _EXPORTER_SIZE, b""
        )
    shown = connection.get_certificate()
    if shown is not None:
        certificate = shown.to_cryptography()
        digest = certificate.signature_hash_algorithm
        if digest is not None:  # RFC 5929 does not say what to do for Ed25519
            weak = isinstance(digest, hashes.MD5 | hashes.SHA1)
            found["tls-server-end-point"] = certificate.fingerprint(
                hashes.SHA256() if weak else digest
            )
    return found


def sends_tickets(tls: ServerTls) -> bool:
    """Tries out whether a TLS 1.3 client is sent anything behind the handshake.

    If it is, no libvirt client gets in by TLS 1.3.
    """
    server = SSL.Connection(tls.context, None)
    server.set_verify(SSL.VERIFY_NONE, lambda *_: True)
    server.set_accept_state()
    client = SSL.Connection(_client_context(), None)
    client.set_connect_state()
    for _ in range(2):  # hello and answer, then finished and whatever else the server says
        _step(client, server)
        said = _step(server, client)
    return said > 0


def _context(credentials: Credentials, policy: TlsPolicy) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_options(_OPTIONS)
    context.set_mode(_NO_AUTO_CHAIN | SSL.MODE_RELEASE_BUFFERS)
    context.clear_mode(_ENABLE_PARTIAL_WRITE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify_depth(LONGEST_CHAIN)
    context.set_min_proto_version(int(policy.lowest))
    context.set_max_proto_version(int(policy.highest))
    if policy.ciphers:
        context.set_cipher_list(policy.ciphers.encode())
    if policy.suites:
        context.set_tls13_ciphersuites(policy.suites.encode())
    taken: set[x509.Certificate] = set()
    for pair in credentials.pairs:
        context.use_certificate(pair.certificate)
        context.use_privatekey(pair.key)
        for each in pair.chain:
            if each not in taken:
                taken.add(each)
                context.add_extra_chain_cert(each)
    store = context.get_cert_store()
    assert store is not None
    # Like GnuTLS: whatever lies in ca_file is trusted, a root or not.
    flags = crypto.X509StoreFlags.PARTIAL_CHAIN
    for authority in credentials.authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
    for revocations in credentials.revocations:
        store.add_crl(revocations)
        flags |= crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
    store.set_flags(flags)
    return context


def _client_context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(int(TlsVersion.TLS1_3))
    return context


def _step(one: SSL.Connection, other: SSL.Connection) -> int:
    """Lets one side go on and takes what it says to the other; how many bytes that was."""
    said = 0
    with contextlib.suppress(SSL.WantReadError):  # it waits for the other side, which is next
        one.do_handshake()
    try:
        while True:
            wire = one.bio_read(1 << 16)
            other.bio_write(wire)
            said += len(wire)
    except SSL.WantReadError:
        return said
