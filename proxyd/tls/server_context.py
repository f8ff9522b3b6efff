"""Everything that a new TLS connection needs, as one immutable snapshot: `ServerTls`.

It is built whole from files, settings and policy, and swapped whole at a reload: a connection
keeps the one that it was accepted with.

Each identity has a context of its own, and a client is shown the first that suits it: see
endpoint/handshake.py. OpenSSL could hold one of each kind of key in a single context, but of two
RSA keys only one, and it would choose by an order of its own.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto

from proxyd.config.listeners import by_certificate
from proxyd.config.priority import TlsPolicy, TlsVersion, parse_priority
from proxyd.endpoint import openssl
from proxyd.negotiation.terms import TlsTerms
from proxyd.pki.bounds import LONGEST_CHAIN, TooLarge, sent
from proxyd.pki.certificates import Credentials
from proxyd.pki.files import KeyPair
from proxyd.pki.private_key import use_private_key
from proxyd.pki.problems import Problem
from proxyd.tls.offers import Lacking, limit_offers
from proxyd.tls.reach import Identity, of_lacking, of_loading, problems_of_reach
from proxyd.tls.terms import makes_of, terms_of
from proxyd.tls.trial import WIDEST, tried
from proxyd.tls.verify import ChainCheck, ClientJudge, Inspection, Verdict, reason_of

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
    (
        "peer did not return a certificate",
        "give the client one (clientcert.pem, clientkey.pem), whose key can make a signature that"
        " tls_priority allows",
    ),
    ("http request", "a browser? libvirt clients use qemu+tls://"),
    ("wrong version number", "a client without TLS? its URI has to say +tls"),
    ("unsupported protocol", "the client is limited to versions that tls_priority excludes"),
    (
        "no shared cipher",
        "the client has none of the ciphers that tls_priority allows, or no use for our keys",
    ),
    ("no suitable signature algorithm", "the client knows no signatures of our keys"),
    ("no suitable key share", "the client has none of the groups that tls_priority allows"),
    (
        "no shared signature algorithms",
        "the client knows none of the signatures that tls_priority allows",
    ),
    ("unknown ca", "the client does not trust our CA: give it our cacert.pem"),
    ("key too small", "tls_priority asks for stronger keys; RSA then needs 3072 bits"),
    ("bad certificate", "the client does not like our certificate"),
    ("certificate expired", "the client finds our certificate or its CA expired"),
    ("certificate unknown", "the client does not like our certificate"),
)


class TlsUnusable(Exception):
    """No TLS listener can be made of this; the text says why and what to do.

    `problems` has it for each file that is to blame.
    """

    def __init__(self, text: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(text or "; ".join(map(str, problems)))
        self.problems = tuple(problems)


class ServerTls:
    """What one generation of TLS connections is made and judged with."""

    def __init__(
        self,
        identities: Sequence[Identity],
        judge: ClientJudge,
        credentials: Credentials,
        proof: str,
        signatures: Sequence[str],
    ) -> None:
        self.identities = tuple(identities)
        self._makes = {
            each.context: makes_of(each.pair.certificate, signatures) for each in identities
        }
        self.credentials = credentials
        self.proof = proof  # what a client's certificate proves: see listening.by_certificate
        self._judge = judge

    @property
    def contexts(self) -> tuple[SSL.Context, ...]:
        """One for each identity; a client gets the first that suits it."""
        return tuple(each.context for each in self.identities)

    def terms(self, connection: SSL.Connection, offered: Sequence[int] | None) -> TlsTerms:
        """What a complete handshake has agreed on; `offered` are the client's signatures."""
        return terms_of(connection, self._makes[connection.get_context()], offered)

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
    priority: str | None = None,
) -> ServerTls:
    """Raises TlsUnusable. `enforce` False lets in clients with any certificate or none.

    `priority` is what the policy was made of.
    """
    identities: list[Identity] = []
    problems = []
    for pair in credentials.pairs:
        try:
            context = _context(pair, policy)
            _trust(context, credentials, identities)
            if in_kernel:
                openssl.ask_kernel(context)
            context.set_verify(
                _DEMAND_CERTIFICATE if enforce else _ASK_FOR_CERTIFICATE,
                ChainCheck(enforce=enforce),
            )
        except Lacking as error:
            raise TlsUnusable(problems=[of_lacking(priority, str(error))]) from error
        except (SSL.Error, crypto.Error) as error:
            texts = "; ".join(str(entry[-1]) for entry in error.args[0]) if error.args else ""
            problems.append(of_loading(pair, priority, texts))
        else:
            identities.append(Identity(pair, context))
    if problems:
        raise TlsUnusable(problems=problems)
    return ServerTls(
        identities,
        ClientJudge(enforce=enforce, allowed=allowed),
        credentials,
        by_certificate(enforce=enforce, allowed=allowed),
        policy.signatures.split(":"),
    )


def problems_in_use(credentials: Credentials, priority: str | None) -> list[Problem]:
    """What a start with them under this tls_priority would be refused for, or warn of."""
    policy = parse_priority(priority)
    try:
        tls = make_server_tls(credentials, policy, enforce=True, allowed=None, priority=priority)
    except TlsUnusable as unusable:
        return list(unusable.problems)
    return problems_of_reach(tls.identities, policy, priority)


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
        try:
            digest = certificate.signature_hash_algorithm
        except UnsupportedAlgorithm:
            digest = None
        if digest is not None:  # RFC 5929 does not say what to do for Ed25519 and ML-DSA
            weak = isinstance(digest, hashes.MD5 | hashes.SHA1)
            found["tls-server-end-point"] = certificate.fingerprint(
                hashes.SHA256() if weak else digest
            )
    return found


def sends_tickets(tls: ServerTls) -> bool:
    """Tries out whether a TLS 1.3 client is sent anything behind the handshake.

    If it is, no libvirt client gets in by TLS 1.3.
    """
    return any(tried(each, WIDEST, only=TlsVersion.TLS1_3).has_ticket for each in tls.contexts)


def _context(pair: KeyPair, policy: TlsPolicy) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    openssl.show_own_chain_only(context)
    openssl.write_whole(context)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify_depth(LONGEST_CHAIN)
    context.set_min_proto_version(int(policy.lowest))
    context.set_max_proto_version(int(policy.highest))
    if policy.ciphers:
        context.set_cipher_list(policy.ciphers.encode())
    if policy.suites:
        context.set_tls13_ciphersuites(policy.suites.encode())
    limit_offers(context, policy)
    context.use_certificate(pair.certificate)
    use_private_key(context, pair.openssl_key or pair.key)
    for each in dict.fromkeys(pair.chain):
        context.add_extra_chain_cert(each)
    return context


def _trust(context: SSL.Context, credentials: Credentials, others: Sequence[Identity]) -> None:
    """What clients are checked with: one store for all contexts, for a list may be long."""
    if others:
        openssl.share_store(context, others[0].context)
        return
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
