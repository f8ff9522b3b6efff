"""The files of certificates, keys and revocation lists, read once and with bounds."""

import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.x509.oid import PublicKeyAlgorithmOID
from OpenSSL import crypto

from proxyd.config.quoting import excerpt
from proxyd.pki.content import key_kind, naming, public_key, reason_of
from proxyd.pki.private_key import ExpandedKey, MLDSAPrivateKey, load_private_key
from proxyd.pki.problems import ISSUE, Problem, fatal, warning

TlsKey: TypeAlias = (
    RSAPrivateKey
    | EllipticCurvePrivateKey
    | Ed25519PrivateKey
    | Ed448PrivateKey
    | MLDSAPrivateKey
    | ExpandedKey
)
_Loaded = TypeVar("_Loaded", x509.Certificate, x509.CertificateRevocationList)

# Below these OpenSSL finds a key too weak to load; it counts RSA of 2047 bits as 2048.
_LEAST_RSA_BITS: Final = 2047
_LEAST_EC_BITS: Final = 224

TYPES: Final = ("RSA", "EC", "Ed25519", "Ed448", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """Where everything lies."""

    ca: str  # "": no CA is trusted
    crl: str | None  # None: no revocation list
    # Certificate and key; of several, each client is shown the first that suits it.
    pairs: tuple[tuple[str, str], ...]
    # Certificates that are there and not looked at, each with the missing one before it.
    behind_gap: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate that we can show, with its key and what else stands in its file."""

    certificate_file: str
    key_file: str
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: TlsKey
    openssl_key: crypto.PKey | None = None  # where cryptography's forgets what kind it is


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a file is expected to hold."""

    noun: str
    labels: tuple[str, ...]  # of the PEM blocks that count
    converter: str  # the command of openssl that makes PEM of DER
    remedy: str
    largest: int = 1 << 20


_X509: Final = ("CERTIFICATE", "X509 CERTIFICATE")
_KEY_LABELS: Final = tuple(
    f"{type_}PRIVATE KEY" for type_ in ("", "ENCRYPTED ", "RSA ", "EC ", "DSA ")
)
_CA: Final = _Kind(
    "certificate",
    _X509,
    "x509",
    "put the CA's certificate there (proxyd certs init makes one) or name it in ca_file",
)
_CERTIFICATE: Final = _Kind(
    "certificate",
    _X509,
    "x509",
    "put this server's certificate there (proxyd certs server makes one) or name it in cert_file",
)
_KEY: Final = _Kind(
    "private key",
    _KEY_LABELS,
    "pkey",
    "put the key of this server's certificate there (proxyd certs server makes both) or name"
    " it in key_file",
)
_CRL: Final = _Kind(
    "revocation list",
    ("X509 CRL",),
    "crl",
    "put the CA's list there (proxyd certs crl makes one) or leave out crl_file",
    largest=16 << 20,
)

_PIECE: Final = 1 << 20  # read at one time
_MARK: Final = re.compile(rb"-----(BEGIN|END) ([A-Z0-9 ]+)-----")


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One pair of files, as far as it could be read."""

    certificate_file: str
    key_file: str
    certificates: list[x509.Certificate]
    pair: KeyPair | None


class Found:
    """What the files hold. What cannot be used is left out and has its problem."""

    def __init__(self, files: CertificateFiles) -> None:
        self.ca_file = files.ca
        self.crl_file = files.crl or ""
        self.problems: list[Problem] = list(_of_gaps(files.behind_gap))
        self.files: dict[str, _File | None] = {}
        self._partners = {
            one: other
            for pair in files.pairs[1:]
            for one, other in (pair, pair[::-1])
            if os.path.lexists(other)
        }
        self.authorities = (
            self._all(files.ca, _CA, x509.load_pem_x509_certificate) if files.ca else []
        )
        self.revocations = self._all(files.crl, _CRL, _load_list) if files.crl else []
        self.entries = [self._entry(*paths) for paths in files.pairs]

    def _entry(self, certificate_file: str, key_file: str) -> Entry:
        certificates = self._all(certificate_file, _CERTIFICATE, x509.load_pem_x509_certificate)
        self.problems += _of_strength(certificate_file, certificates)
        key = self._key(key_file)
        if not (certificates and key):
            return Entry(certificate_file, key_file, certificates, None)
        pair = KeyPair(
            certificate_file=certificate_file,
            key_file=key_file,
            certificate=certificates[0],
            chain=tuple(certificates[1:]),
            key=key,
            openssl_key=self._whole_key(key_file) if _is_pss(certificates[0]) else None,
        )
        self.problems += _of_match(certificate_file, key_file, pair)
        return Entry(certificate_file, key_file, certificates, pair)

    def _key(self, path: str) -> TlsKey | None:
        blocks = self._blocks(path, _KEY)
        if not blocks:
            return None
        try:
            key = load_private_key(blocks[0])
        except TypeError:
            text = "the key is encrypted, and nobody is there to type the password"
            fix = f"decrypt it: umask 077; openssl pkey -in {shlex.quote(path)} -out NEW_FILE"
        except (ValueError, UnsupportedAlgorithm) as error:
            text, fix = f"the key in it cannot be read ({reason_of(error)})", _KEY.remedy
        else:
            if isinstance(key, TlsKey):
                return key
            text = f"TLS has no use for a key of this type, only for {', '.join(TYPES)}"
            fix = ISSUE
        self.problems.append(fatal(path, text, fix))
        return None

    def _whole_key(self, path: str) -> crypto.PKey | None:
        """One that is for RSA-PSS alone, which to cryptography is RSA."""
        try:
            return crypto.load_privatekey(crypto.FILETYPE_PEM, self._blocks(path, _KEY)[0])
        except crypto.Error:
            return None

    def _all(self, path: str, kind: _Kind, load: Callable[[bytes], _Loaded]) -> list[_Loaded]:
        """Everything of this kind in a file; nothing at all if a part is broken."""
        loaded = []
        blocks = self._blocks(path, kind)
        for number, block in enumerate(blocks, 1):
            try:
                loaded.append(load(block))
            except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
                text = f"{kind.noun} number {number} in it cannot be read ({reason_of(error)})"
                self.problems.append(fatal(path, text, kind.remedy))
        return loaded if len(loaded) == len(blocks) else []

    def _blocks(self, path: str, kind: _Kind) -> list[bytes]:
        """The PEM blocks of this kind."""
        if path not in self.files:
            self.files[path] = self._file(path, kind)
        file = self.files[path]
        if file is None:
            return []
        blocks = list(_blocks_of(file.content))
        wanted = [block for label, block in blocks if label in kind.labels]
        if not wanted:
            labels = [label for label, _ in blocks]
            self.problems.append(_of_nothing(path, kind, file.content, labels))
        return wanted

    def _file(self, path: str, kind: _Kind) -> _File | None:
        fix = kind.remedy
        try:
            file = _read(path, kind.largest)
        except FileNotFoundError:
            text = "there is no such file"
            if partner := self._partners.get(path):  # one that need not be there at all
                text = f"{text}, but there is {partner}"
                fix = f"put there what belongs to that one, or take {partner} away"
        except PermissionError:
            text = f"it may not be read by this process (uid {os.geteuid()})"
            fix = f"see what stands in the way: namei -l {shlex.quote(path)}"
        except (OSError, ValueError) as error:
            text = f"it cannot be read ({reason_of(error)})"
        else:
            if len(file.content) <= kind.largest:
                return file
            text = f"it is larger than {kind.largest >> 20} MiB, too large for a {kind.noun}"
        self.problems.append(fatal(path, text, fix))
        return None


def _is_pss(certificate: x509.Certificate) -> bool:
    return certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS


def _read(path: str, largest: int) -> _File:
    """The file, or enough of it to tell that it is too large."""
    # Without O_NONBLOCK a FIFO would keep us waiting for somebody who writes.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("it is no regular file")
        content = bytearray()
        while len(content) <= largest and (piece := os.read(descriptor, _PIECE)):
            content += piece
        return _File(bytes(content), mode)
    finally:
        os.close(descriptor)


def _blocks_of(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The label and text of each PEM block. What stands between them is ignored, as everywhere."""
    label, start = b"", 0
    for mark in _MARK.finditer(content):
        word, name = mark.groups()
        if word == b"BEGIN":
            label, start = name, mark.start()
        elif name == label:
            yield label.decode(), content[start : mark.end()]
            label = b""


def _of_nothing(path: str, kind: _Kind, content: bytes, labels: Sequence[str]) -> Problem:
    """Why a file holds nothing of this kind."""
    quoted = shlex.quote(path)
    if labels:
        text = f"it holds no {kind.noun}, but {excerpt(', '.join(dict.fromkeys(labels)))}"
    elif not content.strip():
        text = "it is empty"
    elif content.startswith(b"\x30"):  # with a SEQUENCE all of them begin
        fix = f"convert it (openssl {kind.converter} -inform DER -in {quoted} -out NEW_FILE)"
        return fatal(path, "it is DER, not PEM", f"{fix} and use that")
    elif _MARK.search(content):
        text = f"the {kind.noun} in it is cut off"
    else:
        text = "it is not PEM"
    return fatal(path, text, kind.remedy)


def _load_list(block: bytes) -> x509.CertificateRevocationList:
    crl = x509.load_pem_x509_crl(block)
    len(crl)  # which reads the entries
    return crl


def _of_match(certificate_file: str, key_file: str, pair: KeyPair) -> Iterator[Problem]:
    wanted = pair.key.public_key()
    fits = [public_key(each) == wanted for each in (pair.certificate, *pair.chain)]
    if fits[0]:
        return
    if any(fits):
        text = f"the key in {key_file} is that of certificate number {fits.index(True) + 1} in it"
        yield fatal(certificate_file, text, "put that one first: the server's own leads")
        return
    text = f"the key does not belong to {naming(pair.certificate)} in {certificate_file}"
    yield fatal(key_file, text, f"put two there that were made together, or {ISSUE}")


def _of_strength(path: str, certificates: Sequence[x509.Certificate]) -> Iterator[Problem]:
    for each in certificates:
        match public_key(each):
            case RSAPublicKey(key_size=bits) if bits < _LEAST_RSA_BITS:
                text = f"has an RSA key of {bits} bits, and OpenSSL wants 2048"
            case EllipticCurvePublicKey(key_size=bits) if bits < _LEAST_EC_BITS:
                text = f"has an EC key of {bits} bits, and OpenSSL wants {_LEAST_EC_BITS}"
            case _:
                continue
        yield fatal(path, f"{naming(each)} {text}", ISSUE)


def _of_gaps(behind_gap: Sequence[tuple[str, str]]) -> Iterator[Problem]:
    for path, missing in behind_gap:
        text = f"it is not used, for the numbers end where one is missing, at {missing}"
        yield warning(path, text, "rename it and its key, so that no number is left out")


def never_shown(found: Found) -> Iterator[Problem]:
    """Of two identities that suit the same clients all are shown the first."""
    first: dict[tuple[str, ...], str] = {}
    for each in found.entries:
        if each.pair:
            leaf = each.pair.certificate
            algorithms = (leaf.public_key_algorithm_oid, leaf.signature_algorithm_oid)
            kind = (key_kind(public_key(leaf)), *(oid.dotted_string for oid in algorithms))
            before = first.setdefault(kind, each.certificate_file)
            if before != each.certificate_file:
                text = f"no client is shown it: {before} comes first and suits the same ones"
                fix = "leave it out, or issue it with a key of another type"
                yield warning(each.certificate_file, text, fix)
