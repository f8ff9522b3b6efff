"""How much of a client's certificates is looked into; what has more is refused by its size.

A stranger may send as much as a handshake has (endpoint/handshake.py), and more where the kernel
encrypts. OpenSSL takes it apart without the interpreter's lock, so that costs the stranger's own
handshake and a share of a processor. What Python does with it stops every session: a subject of
90 KiB took 50 ms to spell, for a log line of 500 characters. So before anything here is walked
through, sizes are compared, which costs the same for any content.

The limits are a few times what certificates have (a client's: 0.5 to 2 KiB, of ML-DSA-87 7.5 KiB; a
subject 20 to 300 bytes, extensions 0.1 to 1.5 KiB), and such that nothing below them takes a
millisecond. libvirt has none of its own; its GnuTLS takes 128 KiB and 16 certificates.

OpenSSL's own limit is 100 KiB (SSL_CTX_set_max_cert_list), and pyOpenSSL has no call to lower it.
It has one for the depth of a chain: see `LONGEST_CHAIN`.
"""

import functools
from typing import Final

from cryptography import x509
from OpenSSL import SSL, crypto

from proxyd.pki.dname import parts_of

LARGEST_CERTIFICATE: Final = 16384
LARGEST_SUBJECT: Final = 1024
LARGEST_EXTENSIONS: Final = 4096
# With the client's own; GnuTLS refuses the next one too. OpenSSL's default is 100 steps, and for
# each it looks through all that was sent.
LONGEST_CHAIN: Final = 16
_REMEMBERED: Final = 64  # certificates that clients have shown; 1 MiB at most


class TooLarge(Exception):
    """Not looked into; the text goes on after "the certificate …" and names size and limit."""


def loaded(certificate: crypto.X509) -> x509.Certificate:
    """Raises TooLarge, and ValueError or x509.InvalidVersion for what is no certificate."""
    return x509.load_der_x509_certificate(_der_of(certificate))


def sent(connection: SSL.Connection) -> list[x509.Certificate]:
    """What the client has shown, its own certificate first; [] for none.

    Whoever comes again shows the same, so these are remembered, with what was read in them.
    Raises what `loaded` does.
    """
    leaf = connection.get_peer_certificate()
    if leaf is None:
        return []
    others = connection.get_peer_cert_chain() or []
    _check_count(len(others))
    first = _remembered(_der_of(leaf))
    # The own one may be among them or not: that differs from version to version.
    chain = [first, *(each for each in map(loaded, others) if each != first)]
    _check_count(len(chain))
    return chain


def check_parts(certificate: x509.Certificate) -> None:
    """To be called before the subject or the extensions are read. Raises TooLarge."""
    try:
        parts = parts_of(certificate)
    except ValueError:
        return  # whoever reads it will say so
    _check("has a subject that is", len(parts.subject), LARGEST_SUBJECT)
    _check("has extensions that are", len(parts.extensions), LARGEST_EXTENSIONS)


def _der_of(certificate: crypto.X509) -> bytes:
    der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
    _check("is", len(der), LARGEST_CERTIFICATE)
    return der


@functools.lru_cache(_REMEMBERED)
def _remembered(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


def _check_count(count: int) -> None:
    if count > LONGEST_CHAIN:
        raise TooLarge(
            f"is one of at least {count} that it sent, where {LONGEST_CHAIN} are looked into"
        )


def _check(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"{what} {size} bytes long, where at most {limit} are looked into")
