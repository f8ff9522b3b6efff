"""Files of a CA, read back. Everything that is not as it should be is CannotDo."""

import os
import re
import shlex
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from proxyd.pki.content import malformation

from . import keys, storage
from .failures import CannotDo
from .ledger import Ledger, from_json
from .places import Store, tree
from .signing import Issuer

_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


def read_issuer(root: Path) -> Issuer:
    """The certificate and key of the CA in this tree."""
    places, store = tree(root), Store(root)
    command = f"proxyd certs init --dir {shlex.quote(str(root.absolute()))}"
    remedy = f"name the --dir of your CA, or make one there: {command}"
    key = keys.parse_key(storage.read_file(store.key, remedy), store.key)
    certificate = parse_certificate(storage.read_file(places.ca, remedy), places.ca)
    if flaw := malformation(certificate):
        raise CannotDo(
            f"the certificate in {places.ca} {flaw}; make a new CA (proxyd certs init --force)"
        )
    if not _belong_together(certificate, key):
        raise CannotDo(f"{store.key} is not the key of {places.ca}; restore the one that is")
    return Issuer(certificate, key)


def read_ledger(store: Store) -> Ledger:
    """What the CA there has issued; nothing if it never has."""
    if not os.path.lexists(store.ledger):
        return Ledger()
    try:
        return from_json(storage.read_file(store.ledger, ""))
    except ValueError as error:
        raise CannotDo(
            f"{store.ledger} is damaged: {error}; restore it from a backup, or move it away (what"
            f" is on the revocation list stays revoked)"
        ) from error


def read_list(path: Path, issuer: Issuer) -> x509.CertificateRevocationList | None:
    """The revocation list of this CA, None if there is none yet."""
    if not os.path.lexists(path):
        return None
    try:
        crl = x509.load_pem_x509_crl(storage.read_file(path, ""))
        ours = crl.is_signature_valid(issuer.key.public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CannotDo(f"{path} holds no revocation list in PEM; move it away") from None
    if not ours:
        raise CannotDo(f"{path} is another CA's revocation list; move it away")
    return crl


def parse_certificate(pem: bytes, path: Path) -> x509.Certificate:
    """The first certificate in a file's content."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise CannotDo(f"{path} holds no certificate in PEM; name a file that does") from None


def certificates_in(path: Path) -> list[x509.Certificate]:
    """All of them; nothing for a file that is missing or something else."""
    try:
        return x509.load_pem_x509_certificates(storage.read_regular(path))
    except (OSError, ValueError):
        return []


def lists_in(path: Path) -> list[x509.CertificateRevocationList]:
    """The revocation lists, likewise."""
    try:
        lists = [
            x509.load_pem_x509_crl(block) for block in _LIST.findall(storage.read_regular(path))
        ]
        for each in lists:
            len(each)  # which reads the entries
    except (OSError, ValueError):
        return []
    return lists


def _belong_together(certificate: x509.Certificate, key: keys.Key) -> bool:
    try:
        return certificate.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
