"""A certificate authority in a directory: `Authority`, for the command and for other programs.

    authority = Authority.create(directory, name="Example CA")
    server = authority.server("host.example.org", names=["192.0.2.1"])
    client = authority.client("joe", to=places.flat(elsewhere))
    authority.revoke(client.record.number)

The directory is a tree like /etc/pki, and what is issued goes into it unless `to` says otherwise.
Every change holds the lock of CA/private and is written down before anybody gets a certificate:
what is not in the ledger could not be revoked by name. All methods raise CannotDo.

A CA that certtool or openssl has made can be used as well, once its certificate is CA/cacert.pem
and its key CA/private/cakey.pem. What a revocation list of before names stays revoked.
"""

import datetime as dt
import itertools
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from proxyd.config.quoting import excerpt
from proxyd.pki.content import extension_of, malformation, may_revoke
from proxyd.pki.fitness import Purpose, flaws_of_authority, signed_by

from . import keys, storage
from .failures import CannotDo
from .ledger import Ledger, Record, Revocation, as_json, record_of
from .names import NO_ATTRIBUTES, Attributes, address_in, alternative_names, host_names, subject_for
from .places import Places, Store, places_around, tree
from .reading import (
    certificates_in,
    parse_certificate,
    read_issuer,
    read_ledger,
    read_list,
)
from .revoking import demand_reason, named, next_list
from .signing import Issuer, Request, Validity, sign_authority, sign_leaf, validity_of

AUTHORITY_DAYS: Final = 3650
LEAF_DAYS: Final = 825
# A list that is out of date shuts out every client, and nobody fetches a newer one by itself.
LIST_DAYS: Final = 365
LONGEST_DAYS: Final = 36500


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A new certificate, and everything that was written with it."""

    certificate: x509.Certificate
    record: Record
    places: Places
    cert_file: Path
    key_file: Path
    written: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """What a call put on the list, and what stood on it before."""

    now: tuple[Record, ...]
    before: tuple[Record, ...]
    crl_file: Path


def utc_now() -> dt.datetime:
    """The time of day."""
    return dt.datetime.now(dt.UTC)


class Authority:
    """A CA whose certificate and key are at hand. `places` are the files of its directory."""

    def __init__(
        self, directory: Path, issuer: Issuer, *, clock: Callable[[], dt.datetime] = utc_now
    ) -> None:
        self.places = tree(directory)
        self.store = Store(directory)
        self._issuer = issuer
        self._clock = clock

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        name: str,
        key: str = keys.DEFAULT_KIND,
        days: int = AUTHORITY_DAYS,
        force: bool = False,
        clock: Callable[[], dt.datetime] = utc_now,
    ) -> Self:
        """Makes a CA. With `force` the one that is there is put aside, into CA/private/replaced."""
        secret = keys.new_key(key)
        certificate = sign_authority(subject_for(name), secret, _validity(clock(), days))
        authority = cls(directory, Issuer(certificate, secret), clock=clock)
        places, store = authority.places, authority.store
        storage.make_directory(directory, storage.PUBLIC_DIRECTORY)
        storage.make_directory(places.ca.parent, storage.PUBLIC_DIRECTORY)
        storage.make_directory(store.private, storage.PRIVATE_DIRECTORY)
        with storage.locked(store.private):
            there = [path for path in _of_an_authority(places, store) if os.path.lexists(path)]
            if there and not force:
                raise CannotDo(
                    f"{there[0]} is there already; choose another --dir, or use --force to put"
                    f" that CA aside, of which no certificate will be worth anything"
                )
            _put_aside(there, store, clock())
            secret_pem = keys.key_pem(secret)
            storage.write_file(store.key, secret_pem, mode=storage.KEY_MODE, replace=False)
            _publish(places.ca, _pem(certificate), replace=False)
        return authority

    @classmethod
    def open(cls, directory: Path, *, clock: Callable[[], dt.datetime] = utc_now) -> Self:
        """The CA that is there."""
        return cls(directory, read_issuer(directory), clock=clock)

    @property
    def certificate(self) -> x509.Certificate:
        """The CA's own."""
        return self._issuer.certificate

    @property
    def key_kind(self) -> str:
        """The kind of key that certificates get unless told otherwise."""
        return keys.kind_like(self._issuer.key)

    def server(
        self,
        name: str,
        *,
        names: Sequence[str] = (),
        attributes: Attributes = NO_ATTRIBUTES,
        key: str | None = None,
        days: int = LEAF_DAYS,
        to: Places | None = None,
        force: bool = False,
    ) -> Issued:
        """A server's certificate for a host name or address, and for more `names` of both kinds.

        Without `force` no key is replaced.
        """
        address = address_in(name)
        request = Request(
            purpose=Purpose.SERVER,
            subject=subject_for(str(address or name), attributes),
            names=host_names([name, *names]),
            key=keys.new_key(key or self.key_kind),
            validity=self._leaf_validity(days),
        )
        return self._issue(request, to or self.places, force=force)

    def client(
        self,
        name: str,
        *,
        attributes: Attributes = NO_ATTRIBUTES,
        key: str | None = None,
        days: int = LEAF_DAYS,
        to: Places | None = None,
        force: bool = False,
    ) -> Issued:
        """A client's certificate. Without `force` no key is replaced."""
        request = Request(
            purpose=Purpose.CLIENT,
            subject=subject_for(name, attributes),
            names=(),
            key=keys.new_key(key or self.key_kind),
            validity=self._leaf_validity(days),
        )
        return self._issue(request, to or self.places, force=force)

    def renew(self, path: Path, *, days: int = LEAF_DAYS) -> Issued:
        """A certificate that says what the one in this file does, with a new key and a later end.

        Both take the place of the old ones. Names that stand there twice stand there once then.
        """
        remedy = "name the file of the certificate that is to be renewed"
        old = parse_certificate(storage.read_file(path, remedy), path)
        if not signed_by(old, self.certificate):
            raise CannotDo(f"{path} was not issued by this CA; name the --dir of the one that did")
        purpose = _purpose_of(old)
        to = places_around(path, purpose)
        request = Request(
            purpose=purpose,
            subject=old.subject,
            names=list(dict.fromkeys(alternative_names(old))),
            key=keys.new_key(self._kind_of(to.pair(purpose).key)),
            validity=self._leaf_validity(days),
        )
        return self._issue(request, to, force=True)

    def _kind_of(self, key_file: Path) -> str:
        """That of the key that is there; one that cannot be read is made anew like the CA's."""
        try:
            return keys.kind_like(keys.parse_key(storage.read_file(key_file, ""), key_file))
        except CannotDo:
            return self.key_kind

    def revoke(
        self,
        which: str,
        *,
        reason: str = "",
        every: bool = False,
        days: int = LIST_DAYS,
    ) -> Revoked:
        """Puts a certificate on the revocation list, named by name, serial number or file.

        A file is what is none of the others and has a slash in it or ends with .pem. `every`: all
        that have this name.
        """
        demand_reason(reason)
        validity = _validity(self._clock(), days)
        with storage.locked(self.store.private):
            ledger = self.ledger()
            found = self._found(which, ledger)
            before = [each for each in found if each.revocation]
            fresh = [each for each in found if not each.revocation]
            if len(fresh) > 1 and not every:
                serials = ", ".join(each.number for each in fresh)
                raise CannotDo(
                    f"{excerpt(which)} means {len(fresh)} certificates; use --all, or one of the"
                    f" serial numbers {serials}"
                )
            revocation = Revocation(self._clock().replace(microsecond=0), reason)
            revoked = tuple(replace(each, revocation=revocation) for each in fresh)
            self._publish_list(ledger.with_records(*revoked), validity)
        return Revoked(now=revoked, before=tuple(before), crl_file=self.places.crl)

    def refresh_list(self, *, days: int = LIST_DAYS) -> x509.CertificateRevocationList:
        """Makes the revocation list anew, with the next number and a later end."""
        validity = _validity(self._clock(), days)
        with storage.locked(self.store.private):
            return self._publish_list(self.ledger(), validity)

    def ledger(self) -> Ledger:
        """What was issued and revoked until now."""
        return read_ledger(self.store)

    def _leaf_validity(self, days: int) -> Validity:
        now = self._clock()
        fatal = [flaw for flaw in flaws_of_authority(self.certificate, now) if flaw.fatal]
        if fatal:
            early = now < self.certificate.not_valid_before_utc
            anew = "make a new CA (proxyd certs init --force) and issue all certificates anew"
            fix = "set the clock" if early else anew
            raise CannotDo(f"the CA in {self.places.ca} {fatal[0].text}; {fix}")
        validity = _validity(now, days)
        # Nobody trusts what outlives the CA.
        return replace(validity, ends=min(validity.ends, self.certificate.not_valid_after_utc))

    def _issue(self, request: Request, to: Places, *, force: bool) -> Issued:
        with storage.locked(self.store.private):
            pair = to.pair(request.purpose)
            self._demand_room(to, (pair.key, pair.certificate), force=force)
            certificate = sign_leaf(request, self._issuer)
            record = record_of(certificate, request.purpose)
            self._record(certificate, record)
            written = self._share(to)
            pem = keys.key_pem(request.key)
            # The key first: it is what must not be lost when somebody else was faster.
            storage.write_file(pair.key, pem, mode=storage.KEY_MODE, replace=force)
            _publish(pair.certificate, _pem(certificate), replace=force)
        return Issued(
            certificate=certificate,
            record=record,
            places=to,
            cert_file=pair.certificate,
            key_file=pair.key,
            written=(*written, pair.certificate, pair.key),
        )

    def _demand_room(self, to: Places, wanted: Iterable[Path], *, force: bool) -> None:
        """Nothing may be in the way: no key, and no other CA whose certificates would be lost."""
        if force:
            return
        for path in wanted:
            if os.path.lexists(path):
                raise CannotDo(
                    f"{path} is there already; name another directory with --out or --flat, or use"
                    f" --force to replace it"
                )
        if os.path.lexists(to.ca) and self.certificate not in certificates_in(to.ca):
            raise CannotDo(
                f"{to.ca} is another CA's; name another directory with --out or --flat, or use"
                f" --force to replace it"
            )

    def _record(self, certificate: x509.Certificate, record: Record) -> None:
        storage.make_directory(self.store.issued, storage.PRIVATE_DIRECTORY)
        _publish(self.store.issued / f"{record.number}.pem", _pem(certificate), replace=False)
        self._write_ledger(self.ledger().with_records(record))

    def _share(self, to: Places) -> list[Path]:
        """Makes the directories and puts the CA's own files into another place than ours."""
        for directory in to.directories:
            private = directory in (to.server.key.parent, to.client.key.parent)
            mode = storage.PRIVATE_DIRECTORY if private else storage.PUBLIC_DIRECTORY
            storage.make_directory(directory, mode)
        shared = []
        for ours, theirs in ((self.places.ca, to.ca), (self.places.crl, to.crl)):
            if not ours.exists() or (theirs.exists() and ours.samefile(theirs)):
                continue
            if ours == self.places.ca and self.certificate in certificates_in(theirs):
                continue  # perhaps among others
            _publish(theirs, storage.read_file(ours, ""), replace=True)
            shared.append(theirs)
        return shared

    def _found(self, which: str, ledger: Ledger) -> list[Record]:
        if found := named(which, ledger.records):
            return found
        if "/" in which or which.endswith(".pem"):
            return [self._of_file(Path(which), ledger)]
        root = shlex.quote(str(self.places.root.absolute()))
        raise CannotDo(
            f"{excerpt(which)} is neither the name nor the serial number of a certificate of this"
            f" CA; proxyd certs list --dir {root} shows them"
        )

    def _of_file(self, path: Path, ledger: Ledger) -> Record:
        """The record of a certificate, a new one if it was issued without this program."""
        remedy = "name the certificate's file, its name or its serial number"
        certificate = parse_certificate(storage.read_file(path, remedy), path)
        for each in ledger.records:
            if each.serial == certificate.serial_number:
                return each
        if certificate == self.certificate:
            raise CannotDo(f"{path} is the CA's own certificate, which no list of it can revoke")
        if not signed_by(certificate, self.certificate):
            raise CannotDo(f"{path} was not issued by this CA; name the --dir of the one that did")
        return record_of(certificate, _purpose_of(certificate))

    def _publish_list(self, ledger: Ledger, validity: Validity) -> x509.CertificateRevocationList:
        if not may_revoke(self.certificate):
            raise CannotDo(
                f"the CA in {self.places.ca} may not sign revocation lists (keyUsage lacks"
                f" cRLSign); shut clients out with tls_allowed_dn_list, or make a new CA (proxyd"
                f" certs init --force) and issue all certificates anew"
            )
        present = read_list(self.places.crl, self._issuer)
        crl, ledger = next_list(self._issuer, ledger, present, validity)
        # In this order: after a power cut a number may be missing, but never comes twice.
        self._write_ledger(ledger)
        _publish(self.places.crl, _pem(crl), replace=True)
        return crl

    def _write_ledger(self, ledger: Ledger) -> None:
        content = as_json(ledger)
        storage.write_file(self.store.ledger, content, mode=storage.KEY_MODE, replace=True)


def _validity(now: dt.datetime, days: int) -> Validity:
    if not 1 <= days <= LONGEST_DAYS:
        raise CannotDo(f"{days} days are not possible; choose from 1 to {LONGEST_DAYS}")
    return validity_of(now, days)


def _of_an_authority(places: Places, store: Store) -> tuple[Path, ...]:
    return (store.key, places.ca, store.ledger, store.issued, places.crl)


def _put_aside(there: Sequence[Path], store: Store, now: dt.datetime) -> None:
    if not there:
        return
    storage.make_directory(store.replaced, storage.PRIVATE_DIRECTORY)
    names = (f"{now:%Y-%m-%d}.{number}" for number in itertools.count(1))
    aside = next(store.replaced / name for name in names if not (store.replaced / name).exists())
    storage.make_directory(aside, storage.PRIVATE_DIRECTORY)
    for path in there:
        path.rename(aside / path.name)


def _purpose_of(certificate: x509.Certificate) -> Purpose:
    usage = None if malformation(certificate) else extension_of(certificate, x509.ExtendedKeyUsage)
    clients = usage is not None and ExtendedKeyUsageOID.CLIENT_AUTH in usage.value
    return Purpose.CLIENT if clients else Purpose.SERVER


def _publish(path: Path, pem: bytes, *, replace: bool) -> None:
    storage.write_file(path, pem, mode=storage.PUBLIC_MODE, replace=replace)


def _pem(signed: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return signed.public_bytes(Encoding.PEM)
