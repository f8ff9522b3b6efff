"""Our key pairs, CA and revocation list: one immutable snapshot, swapped whole.

There are two degrees of strictness, between which tls_no_sanity_certificate chooses:

    always       without this there is no TLS: files that can be read and understood, keys that
                 belong to their certificates and are of a kind that OpenSSL takes
    check        what libvirtd refuses to start with or warns of (reference/handshake.md, end of
                 section 4), and what an administrator wants to know before the clients do

The verdicts were compared with libvirtd 9.0.0 on GnuTLS 3.7.9. By intent other than there:

* It looks at the first certificate of cert_file and at the first 16 of ca_file. Here all count,
  and those in cert_file may lead from the server's own to a CA.
* It obeys a revocation list whoever signed it and whenever. OpenSSL refuses every client of a CA
  whose list is not in order. So a list that no CA of ours may have signed is fatal, and one that
  is out of date a warning, since a newer one may come with a reload.
* It starts with a certificate that is revoked, or without a subject or a host name, which its
  clients then refuse. Here each is a warning.
* It takes RSA keys of 1024 bits. OpenSSL does not load them.
"""

import datetime as dt
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from proxyd.auth.dname import distinguished_name, subject_of
from proxyd.auth.fitness import (
    Purpose,
    extension_of,
    flaws_of_authority,
    flaws_of_leaf,
    malformation,
    may_issue,
    path_up,
    signed_by,
    spelled,
)
from proxyd.config.quoting import excerpt, one_line

TlsKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey
_Loaded = TypeVar("_Loaded", x509.Certificate, x509.CertificateRevocationList)

_SOON: Final = dt.timedelta(days=14)
_LONGEST_SUBJECT: Final = 200
_LONGEST_REASON: Final = 150

# Below these OpenSSL finds a key too weak to load; it counts RSA of 2047 bits as 2048.
_LEAST_RSA_BITS: Final = 2047
_LEAST_EC_BITS: Final = 224
_BROKEN_DIGESTS: Final = frozenset({"md5", "sha1"})

_TYPES: Final[dict[type[TlsKey], str]] = {
    RSAPrivateKey: "RSA",
    EllipticCurvePrivateKey: "EC",
    Ed25519PrivateKey: "Ed25519",
    Ed448PrivateKey: "Ed448",
}

_ISSUE: Final = "issue a new one (python -m certs server)"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """Where everything lies."""

    ca: str
    crl: str | None  # None: no revocation list
    pairs: tuple[tuple[str, str], ...]  # certificate, key; several: one per type of key


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with a file and what to do about it. Not fatal: worth a warning."""

    path: str
    text: str
    fix: str
    fatal: bool

    def __str__(self) -> str:
        return one_line(f"{self.path}: {self.text}; {self.fix}")


class CertificateError(Exception):
    """These files will not do. `problems` has the warnings, too; the text has what is fatal."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(each) for each in self.problems if each.fatal))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate that we can show, with its key and what else stands in its file."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: TlsKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Everything that was in the files, and what is to be said of them."""

    pairs: tuple[KeyPair, ...]
    authorities: tuple[x509.Certificate, ...]
    revocations: tuple[x509.CertificateRevocationList, ...]
    warnings: tuple[Problem, ...]


def load_credentials(
    files: CertificateFiles, *, now: dt.datetime, check: bool = True
) -> Credentials:
    """Reads the files, each once. Raises CertificateError with everything that is wrong."""
    found = _Found(files)
    problems = [*found.problems, *_of_types(found)]
    if check:
        problems += _checked(found, now)
    problems = list(dict.fromkeys(problems))  # pairs may share a file
    if any(each.fatal for each in problems):
        raise CertificateError(problems)
    return Credentials(
        pairs=tuple(each.pair for each in found.entries if each.pair),
        authorities=tuple(found.authorities),
        revocations=tuple(found.revocations),
        warnings=tuple(problems),
    )


def _fatal(path: str, text: str, fix: str) -> Problem:
    return Problem(path=path, text=text, fix=fix, fatal=True)


def _warning(path: str, text: str, fix: str) -> Problem:
    return Problem(path=path, text=text, fix=fix, fatal=False)


# Reading


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
    "put the CA's certificate there (python -m certs init makes one) or name it in ca_file",
)
_CERTIFICATE: Final = _Kind(
    "certificate",
    _X509,
    "x509",
    "put this server's certificate there (python -m certs server makes one) or name it in"
    " cert_file",
)
_KEY: Final = _Kind(
    "private key",
    _KEY_LABELS,
    "pkey",
    "put the key of this server's certificate there (python -m certs server makes both) or name"
    " it in key_file",
)
_CRL: Final = _Kind(
    "revocation list",
    ("X509 CRL",),
    "crl",
    "put the CA's list there (python -m certs crl makes one) or leave out crl_file",
    largest=16 << 20,
)

_PIECE: Final = 1 << 20  # read at one time
_MARK: Final = re.compile(rb"-----(BEGIN|END) ([A-Z0-9 ]+)-----")


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """One pair of files, as far as it could be read."""

    certificate_file: str
    key_file: str
    certificates: list[x509.Certificate]
    pair: KeyPair | None


class _Found:
    """What the files hold. What cannot be used is left out and has its problem."""

    def __init__(self, files: CertificateFiles) -> None:
        self.ca_file = files.ca
        self.crl_file = files.crl or ""
        self.problems: list[Problem] = []
        self.files: dict[str, _File | None] = {}
        self.authorities = self._all(files.ca, _CA, x509.load_pem_x509_certificate)
        self.revocations = self._all(files.crl, _CRL, _load_list) if files.crl else []
        self.entries = [self._entry(*paths) for paths in files.pairs]

    def _entry(self, certificate_file: str, key_file: str) -> _Entry:
        certificates = self._all(certificate_file, _CERTIFICATE, x509.load_pem_x509_certificate)
        self.problems += _of_strength(certificate_file, certificates)
        key = self._key(key_file)
        if not (certificates and key):
            return _Entry(certificate_file, key_file, certificates, None)
        pair = KeyPair(certificate=certificates[0], chain=tuple(certificates[1:]), key=key)
        self.problems += _of_match(certificate_file, key_file, pair)
        return _Entry(certificate_file, key_file, certificates, pair)

    def _key(self, path: str) -> TlsKey | None:
        blocks = self._blocks(path, _KEY)
        if not blocks:
            return None
        try:
            key = load_pem_private_key(blocks[0], None)
        except TypeError:
            text = "the key is encrypted, and nobody is there to type the password"
            fix = f"decrypt it: umask 077; openssl pkey -in {shlex.quote(path)} -out NEW_FILE"
        except (ValueError, UnsupportedAlgorithm) as error:
            text, fix = f"the key in it cannot be read ({_reason(error)})", _KEY.remedy
        else:
            if isinstance(key, TlsKey):
                return key
            text = f"TLS has no use for a key of this type, only for {', '.join(_TYPES.values())}"
            fix = _ISSUE
        self.problems.append(_fatal(path, text, fix))
        return None

    def _all(self, path: str, kind: _Kind, load: Callable[[bytes], _Loaded]) -> list[_Loaded]:
        """Everything of this kind in a file; nothing at all if a part is broken."""
        loaded = []
        blocks = self._blocks(path, kind)
        for number, block in enumerate(blocks, 1):
            try:
                loaded.append(load(block))
            except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
                text = f"{kind.noun} number {number} in it cannot be read ({_reason(error)})"
                self.problems.append(_fatal(path, text, kind.remedy))
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
        except PermissionError:
            text = f"it may not be read by this process (uid {os.geteuid()})"
            fix = f"see what stands in the way: namei -l {shlex.quote(path)}"
        except (OSError, ValueError) as error:
            text = f"it cannot be read ({_reason(error)})"
        else:
            if len(file.content) <= kind.largest:
                return file
            text = f"it is larger than {kind.largest >> 20} MiB, too large for a {kind.noun}"
        self.problems.append(_fatal(path, text, fix))
        return None


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
        return _fatal(path, "it is DER, not PEM", f"{fix} and use that")
    elif _MARK.search(content):
        text = f"the {kind.noun} in it is cut off"
    else:
        text = "it is not PEM"
    return _fatal(path, text, kind.remedy)


def _load_list(block: bytes) -> x509.CertificateRevocationList:
    crl = x509.load_pem_x509_crl(block)
    len(crl)  # which reads the entries
    return crl


def _of_match(certificate_file: str, key_file: str, pair: KeyPair) -> Iterator[Problem]:
    wanted = pair.key.public_key()
    fits = [_public_key(each) == wanted for each in (pair.certificate, *pair.chain)]
    if fits[0]:
        return
    if any(fits):
        text = f"the key in {key_file} is that of certificate number {fits.index(True) + 1} in it"
        yield _fatal(certificate_file, text, "put that one first: the server's own leads")
        return
    text = f"the key does not belong to {_called(pair.certificate)} in {certificate_file}"
    yield _fatal(key_file, text, f"put two there that were made together, or {_ISSUE}")


def _of_strength(path: str, certificates: Sequence[x509.Certificate]) -> Iterator[Problem]:
    for each in certificates:
        match _public_key(each):
            case RSAPublicKey(key_size=bits) if bits < _LEAST_RSA_BITS:
                text = f"has an RSA key of {bits} bits, and OpenSSL wants 2048"
            case EllipticCurvePublicKey(key_size=bits) if bits < _LEAST_EC_BITS:
                text = f"has an EC key of {bits} bits, and OpenSSL wants {_LEAST_EC_BITS}"
            case _:
                continue
        yield _fatal(path, f"{_called(each)} {text}", _ISSUE)


def _of_types(found: _Found) -> Iterator[Problem]:
    """OpenSSL keeps one certificate for each type of key: the last."""
    shown: dict[str, _Entry] = {}
    for each in reversed(found.entries):
        if each.pair:
            type_ = next(name for kind, name in _TYPES.items() if isinstance(each.pair.key, kind))
            kept = shown.setdefault(type_, each)
            if kept is not each:
                text = f"it is never shown, for {kept.certificate_file} has an {type_} key as well"
                fix = "leave it out, or issue it with a key of another type"
                yield _warning(each.certificate_file, text, fix)


# Checking


def _checked(found: _Found, now: dt.datetime) -> Iterator[Problem]:
    yield from _of_authorities(found, now)
    yield from _of_lists(found, now)
    for entry in found.entries:
        if entry.certificates:
            yield from _of_server(entry, now)
            yield from _of_revocation(entry, found)
            if found.authorities:
                yield from _of_chain(entry, found, now)
    yield from _of_modes(found)


def _of_authorities(found: _Found, now: dt.datetime) -> Iterator[Problem]:
    alone = len(found.authorities) == 1
    fix = "make a new CA (python -m certs init) and issue all certificates anew"
    for each in found.authorities:
        other = fix if alone else f"take it out if nothing needs it, or {fix}"
        for flaw in flaws_of_authority(each, now):
            text = f"{_called(each)} {flaw.text}"
            yield Problem(path=found.ca_file, text=text, fix=other, fatal=flaw.fatal)
        yield from _of_the_end(found.ca_file, each, now, fix)


def _of_server(entry: _Entry, now: dt.datetime) -> Iterator[Problem]:
    path, leaf = entry.certificate_file, entry.certificates[0]
    called = _called(leaf)
    for flaw in flaws_of_leaf(leaf, Purpose.SERVER, now):
        yield Problem(path=path, text=f"{called} {flaw.text}", fix=_ISSUE, fatal=flaw.fatal)
    yield from _of_the_end(path, leaf, now, _ISSUE)
    if not _subject(leaf):
        yield _warning(path, f"{called} has no subject, and libvirt's clients refuse it", _ISSUE)
    if malformation(leaf):
        return
    for each in leaf.extensions:
        if each.critical and isinstance(each.value, x509.UnrecognizedExtension):
            text = f"{called} has a critical extension that clients do not know"
            yield _fatal(path, f"{text} ({each.oid.dotted_string})", _ISSUE)
    names = extension_of(leaf, x509.SubjectAlternativeName)
    if not any(
        isinstance(each, x509.DNSName | x509.IPAddress) for each in (names.value if names else ())
    ):
        text = f"{called} has no host name (subjectAltName), and clients look for theirs"
        fix = f"{_ISSUE}, with every name and address that clients use"
        yield _warning(path, text, fix)


def _of_revocation(entry: _Entry, found: _Found) -> Iterator[Problem]:
    leaf = entry.certificates[0]
    if leaf.serial_number < 0:
        return  # as a broken tool may have made it; it is on no list and cannot be looked up
    for each in found.revocations:
        revoked = each.get_revoked_certificate_by_serial_number(leaf.serial_number)
        if revoked and _issuer(each) == _issuer(leaf):
            text = f"{_called(leaf)} was revoked on {spelled(revoked.revocation_date_utc)}"
            yield _warning(entry.certificate_file, f"{text}; clients may refuse it", _ISSUE)


def _of_chain(entry: _Entry, found: _Found, now: dt.datetime) -> Iterator[Problem]:
    path, (leaf, *between) = entry.certificate_file, entry.certificates
    # cryptography checks no such signature, so there would seem to be none.
    broken = [
        each
        for each in (leaf, *between)
        if _broken_digest(each) and _issuer(each) != _subject(each)
    ]
    for each in broken:
        text = f"{_called(each)} is signed with {_broken_digest(each)}, and clients refuse that"
        yield _fatal(path, text, _ISSUE)
    if broken:
        return
    above = path_up(leaf, between=between, authorities=found.authorities)
    if not above:
        yield _of_no_way_up(entry, found)
        return
    *steps, top = above
    for each in steps:
        fix = "put a newer one there"
        for flaw in flaws_of_authority(each, now):
            text = f"{_called(each)} {flaw.text}"
            yield Problem(path=path, text=text, fix=fix, fatal=flaw.fatal)
        yield from _of_the_end(path, each, now, fix)
    for below, each in enumerate(above):
        longest = _longest_path(each)
        if longest is not None and below > longest:
            text = f"{_called(each)} allows {longest} CAs below it, and here are {below}"
            yield _fatal(path, f"{text} (pathLenConstraint)", _ISSUE)
    shown = _subject(top) in map(_subject, between)
    if not shown and any(each != top and signed_by(top, each) for each in found.authorities):
        # Clients are sent what is in cert_file and nothing of ca_file.
        text = f"{_called(leaf)} was issued by {_subject(top)}, which is no root and not in here"
        fix = f"append the certificate of {_subject(top)}, so that clients need the root alone"
        yield _warning(path, text, fix)


def _of_no_way_up(entry: _Entry, found: _Found) -> Problem:
    """Why our certificate leads to no CA of ours."""
    last, *between = entry.certificates
    while above := [each for each in between if may_issue(each) and signed_by(last, each)]:
        last = above[0]
        between.remove(last)
    issuer, ca = _issuer(last), found.ca_file
    namesakes = [each for each in (*between, *found.authorities) if _subject(each) == issuer]
    fix = f"put the CA that signed it into {ca}, or {_ISSUE}"
    if signed_by(last, last):
        why = f"is self-signed and not in {ca}"
    elif any(signed_by(last, each) for each in namesakes):
        why = f"was issued by {issuer}, which may not issue any (keyUsage lacks keyCertSign)"
        fix = "make a new CA (python -m certs init) and issue all certificates anew"
    elif namesakes:
        why = f"names {issuer} as its issuer, but the CA of that name in {ca} did not sign it"
    else:
        why = f"was issued by {issuer}, which is not in {ca}"
    return _fatal(entry.certificate_file, f"{_called(last)} {why}", fix)


def _of_lists(found: _Found, now: dt.datetime) -> Iterator[Problem]:
    in_date = {_issuer(each) for each in found.revocations if not _out_of_date(each, now)}
    for each in found.revocations:
        which = f"the revocation list of {_issuer(each) or 'nobody'}"
        signers = [ca for ca in found.authorities if _signed_list(each, ca)]
        if _broken_digest(each):
            text = f"{which} is signed with {_broken_digest(each)}, which anybody can forge"
            yield _fatal(found.crl_file, text, "make a new one (python -m certs crl)")
        elif found.authorities and not signers:
            text = f"{which} is signed by no CA in {found.ca_file}"
            fix = "put the CA that signed it into ca_file, or make a new list (python -m certs crl)"
            yield _fatal(found.crl_file, text, fix)
        elif signers and not any(map(_may_revoke, signers)):
            text = f"{which} is signed by a CA that may not (keyUsage lacks cRLSign)"
            fix = "make a CA that may (python -m certs init), or leave out crl_file"
            yield _fatal(found.crl_file, text, fix)
        if _issuer(each) not in in_date:  # one that is suffices
            text = f"{which} {_out_of_date(each, now)}, and clients of that CA are refused"
            fix = "make a new one (python -m certs crl) and reload"
            yield _warning(found.crl_file, text, fix)


def _out_of_date(crl: x509.CertificateRevocationList, now: dt.datetime) -> str:
    if crl.next_update_utc and now > crl.next_update_utc:
        return f"expired on {spelled(crl.next_update_utc)}"
    if now < crl.last_update_utc:
        return f"is not valid before {spelled(crl.last_update_utc)}"
    return ""


def _of_modes(found: _Found) -> Iterator[Problem]:
    keys = {each.key_file for each in found.entries}
    for path, file in found.files.items():
        mode = file.mode if file else 0
        if path in keys and mode & stat.S_IROTH:
            text = "every user of this host may read this key"
            group = " (or 640)" if mode & stat.S_IRGRP else ""
            yield _warning(path, text, f"chmod 600{group} {shlex.quote(path)}")
        if mode & (stat.S_IWOTH | (stat.S_IWGRP if path in keys else 0)):
            yield _warning(path, "others may change it", f"chmod go-w {shlex.quote(path)}")


def _of_the_end(
    path: str, certificate: x509.Certificate, now: dt.datetime, fix: str
) -> Iterator[Problem]:
    end = certificate.not_valid_after_utc
    if now <= end <= now + _SOON:
        left = (end - now).days
        days = f"in {left} day{'' if left == 1 else 's'}"
        text = f"{_called(certificate)} expires on {spelled(end)}, {days}"
        yield _warning(path, text, fix)


# Certificates of any content


def _called(certificate: x509.Certificate) -> str:
    subject = _subject(certificate)
    which = f"of {subject}" if subject else f"with serial number {certificate.serial_number:x}"
    return f"the certificate {which}"


def _subject(certificate: x509.Certificate) -> str:
    """Its subject in quotes; "" where it has none that can be read."""
    try:
        return _quoted(subject_of(certificate))
    except ValueError:
        return ""


def _issuer(signed: x509.Certificate | x509.CertificateRevocationList) -> str:
    try:
        return _quoted(distinguished_name(signed.issuer))
    except (ValueError, TypeError):
        return ""


def _quoted(name: str) -> str:
    return excerpt(name, _LONGEST_SUBJECT) if name else ""


def _public_key(certificate: x509.Certificate) -> CertificatePublicKeyTypes | None:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _broken_digest(signed: x509.Certificate | x509.CertificateRevocationList) -> str:
    """The name of the digest that it is signed with if that is a broken one, else ""."""
    try:
        algorithm = signed.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return ""
    return algorithm.name if algorithm and algorithm.name in _BROKEN_DIGESTS else ""


def _signed_list(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if _issuer(crl) != _subject(authority):
        return False
    key = _public_key(authority)
    signs = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey
    try:
        return isinstance(key, signs) and crl.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _may_revoke(authority: x509.Certificate) -> bool:
    if malformation(authority):
        return True  # which is told of already
    usage = extension_of(authority, x509.KeyUsage)
    return usage is None or usage.value.crl_sign


def _longest_path(authority: x509.Certificate) -> int | None:
    if malformation(authority):
        return None
    constraints = extension_of(authority, x509.BasicConstraints)
    return constraints.value.path_length if constraints else None


def _reason(error: Exception) -> str:
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return one_line(text)[:_LONGEST_REASON]
