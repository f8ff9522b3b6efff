"""Handshakes in memory: whom an identity of ours serves, found out before the first client comes.

Whether a certificate, its key and tls_priority go together is OpenSSL's to say, and it says so only
to clients: at run time each of them would meet "no shared cipher". So clients of two kinds are
tried, each as it is and limited to one version of TLS:

    WIDEST      everything that this OpenSSL can; an identity that it cannot use is no use
    LIBVIRT     what `virsh` 9.0.0 sends by itself with GnuTLS 3.7.9, in whose priority NORMAL it
                all stands: read off its hello, and held against it by
                tests/system/test_tls_identities.py.
                Newer ones offer more, post-quantum keys and groups

Neither client looks at the chain; that is `sanity`'s matter.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from OpenSSL import SSL

from proxyd.config.concessions import is_forward_secret
from proxyd.config.priority import TlsVersion
from proxyd.endpoint import openssl
from proxyd.pki.content import (
    broken_digest,
    extension_of,
    issuer_in,
    malformation,
    naming,
    spells_out_curve,
    subject_in,
)

_ROUNDS: Final = 6  # three suffice, four after a retry
_WHOLE: Final = 1 << 20
_FIRST_TRIAL_VERSION: Final = TlsVersion.TLS1_2

# What no version of OpenSSL since 3.0 has all of; each is offered where it is known.
_GROUPS: Final = (
    "X25519:P-256:P-384:P-521:X448:X25519MLKEM768:SecP256r1MLKEM768:SecP384r1MLKEM1024"
    ":ffdhe2048:ffdhe3072:ffdhe4096:ffdhe6144:ffdhe8192"
    ":brainpoolP256r1:brainpoolP384r1:brainpoolP512r1"
    ":brainpoolP256r1tls13:brainpoolP384r1tls13:brainpoolP512r1tls13:secp256k1:P-224"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a client offers, in OpenSSL's names joined by ":"; "" is OpenSSL's own choice."""

    ciphers: str = "ALL:@SECLEVEL=0"
    suites: str = ""
    groups: str = _GROUPS
    signatures: str = ""


WIDEST: Final = Offer()
LIBVIRT: Final = Offer(
    ciphers=":".join(
        f"{exchange}{cipher}"
        for exchange, ciphers in (
            (
                "ECDHE-ECDSA-",
                "AES256-GCM-SHA384 CHACHA20-POLY1305 AES256-CCM AES256-SHA"
                " AES128-GCM-SHA256 AES128-CCM AES128-SHA",
            ),
            (
                "ECDHE-RSA-",
                "AES256-GCM-SHA384 CHACHA20-POLY1305 AES256-SHA AES128-GCM-SHA256 AES128-SHA",
            ),
            ("", "AES256-GCM-SHA384 AES256-CCM AES256-SHA AES128-GCM-SHA256 AES128-CCM AES128-SHA"),
            (
                "DHE-RSA-",
                "AES256-GCM-SHA384 CHACHA20-POLY1305 AES256-CCM AES256-SHA"
                " AES128-GCM-SHA256 AES128-CCM AES128-SHA",
            ),
        )
        for cipher in ciphers.split()
    )
    + ":@SECLEVEL=0",  # GnuTLS still offers SHA-1
    suites="TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"
    ":TLS_AES_128_CCM_SHA256",
    groups="P-256:P-384:P-521:X25519:X448:ffdhe2048:ffdhe3072:ffdhe4096:ffdhe6144:ffdhe8192",
    signatures=":".join(
        f"rsa_pkcs1_sha{bits}:rsa_pss_pss_sha{bits}:rsa_pss_rsae_sha{bits}:{ecdsa}"
        for bits, ecdsa in (
            (256, "ecdsa_secp256r1_sha256:ed25519"),
            (384, "ecdsa_secp384r1_sha384:ed448"),
            (512, "ecdsa_secp521r1_sha512"),
        )
    )
    + ":rsa_pkcs1_sha1:ecdsa_sha1",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a handshake: a version and a cipher, or why there was none.

    `has_ticket` is whether the server of TLS 1.3 had more to say behind it.
    """

    version: TlsVersion | None = None
    cipher: str = ""
    refusal: str = ""
    has_ticket: bool = False


def tried(context: SSL.Context, offer: Offer, *, only: TlsVersion | None = None) -> Outcome:
    """One handshake of a server's context with a client of this offer. Takes milliseconds."""
    server = SSL.Connection(context, None)
    server.set_verify(SSL.VERIFY_NONE, lambda *_: True)
    server.set_accept_state()
    client = SSL.Connection(client_context(offer, only), None)
    client.set_connect_state()
    said_last, server_done = 0, False
    try:
        for _ in range(_ROUNDS):
            client_done = _advanced(client)
            _carried(client, server)
            if not server_done:
                server_done = _advanced(server)
                said_last = _carried(server, client)
            if client_done and server_done:
                break
        else:
            return Outcome(refusal="it came to no end")
    except SSL.Error as error:
        texts = (str(entry[-1]) for entry in (error.args[0] if error.args else ()))
        return Outcome(refusal="; ".join(dict.fromkeys(texts)) or "refused")
    version = TlsVersion(client.get_protocol_version())
    return Outcome(
        version=version,
        cipher=client.get_cipher_name() or "",
        # Below, the server has the last word in any case.
        has_ticket=version >= TlsVersion.TLS1_3 and said_last > 0,
    )


def objection_of_gnutls(
    certificate: x509.Certificate, chain: Sequence[x509.Certificate], outcome: Outcome
) -> str:
    """What libvirt's clients have against a certificate that is used in this way; or "".

    GnuTLS obeys keyUsage, critical or not: a key that signs the exchange must be for signatures,
    one that decrypts it (RSA in TLS 1.2) for encrypting keys. It does not read curves without name.
    """
    for each in (certificate, *chain):
        if broken_digest(each) and subject_in(each) != issuer_in(each):
            return f"{naming(each)} is signed with {broken_digest(each)}"
    if spells_out_curve(certificate):
        return "its key has a curve's parameters instead of its name"
    usage = None if malformation(certificate) else extension_of(certificate, x509.KeyUsage)
    if usage is None or not outcome.version:
        return ""
    if is_forward_secret(outcome.cipher):
        return "" if usage.value.digital_signature else "keyUsage lacks digitalSignature"
    return "" if usage.value.key_encipherment else "keyUsage lacks keyEncipherment"


def client_context(offer: Offer, only: TlsVersion | None = None) -> SSL.Context:
    """What a client's connections are made with that offers this."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(int(only or _FIRST_TRIAL_VERSION))
    context.set_max_proto_version(int(only or TlsVersion.TLS1_3))
    context.set_cipher_list(offer.ciphers.encode())
    if offer.suites:
        context.set_tls13_ciphersuites(offer.suites.encode())
    known = [name for name in offer.groups.split(":") if openssl.set_groups(context, name)]
    openssl.set_groups(context, ":".join(known))
    if offer.signatures:
        openssl.set_signatures(context, offer.signatures)
    return context


def _advanced(connection: SSL.Connection) -> bool:
    """Whether its handshake is done."""
    with contextlib.suppress(SSL.WantReadError):
        connection.do_handshake()
        return True
    return False


def _carried(one: SSL.Connection, other: SSL.Connection) -> int:
    """How many bytes the one had to say."""
    said = 0
    with contextlib.suppress(SSL.WantReadError):
        while True:
            wire = one.bio_read(_WHOLE)
            other.bio_write(wire)
            said += len(wire)
    return said
