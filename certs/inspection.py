"""What is wrong with the files of a host or user, and how to mend it: `inspect`.

The verdicts about a server's files are those that proxyd itself starts with
(`proxyd.pki.certificates`). Two things are different here, where an administrator has asked:

* What proxyd warns of because a reload may mend it, and somebody is refused until then, is a
  problem: a revocation list that is out of date, a certificate that is revoked or has no subject.
* Permissions are told of by `certs.modes`, which knows directories and owners as well.

Whom the server's files serve is tried out under a `tls_priority`, the default one unless another is
named: its configuration is not read.
"""

import datetime as dt
import os
import shlex
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cryptography import x509

from proxyd.config.expiry import EXPIRY_DAYS
from proxyd.config.quoting import excerpt
from proxyd.pki.certificates import load_credentials
from proxyd.pki.content import key_kind, public_key
from proxyd.pki.files import CertificateFiles
from proxyd.pki.fitness import Purpose, flaws_of_leaf, path_up, spelled
from proxyd.pki.identities import in_usual_places
from proxyd.pki.problems import CertificateError, Problem
from proxyd.tls.server_context import problems_in_use

from . import modes
from .failures import CannotDo
from .ledger import record_of
from .names import covers, may_name
from .places import Pair, Site, Store
from .reading import certificates_in, lists_in, read_issuer, read_ledger

_SOON: Final = dt.timedelta(days=EXPIRY_DAYS)
_LONGEST_SUBJECT: Final = 200
_NEW_CLIENT: Final = "issue a new one (proxyd certs client)"
_NEW_SERVER: Final = "issue a new one (proxyd certs server), with every name that clients use"


@dataclass(frozen=True, slots=True)
class Known:
    """What is in a file that could be read."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything there is to say."""

    root: Path
    roles: tuple[Purpose, ...]
    known: tuple[Known, ...]
    problems: tuple[Problem, ...]

    @property
    def fine(self) -> bool:
        """Nothing, or warnings only."""
        return not any(each.fatal for each in self.problems)


def inspect(
    site: Site,
    *,
    now: dt.datetime,
    euid: int,
    hosts: Sequence[str] = (),
    role: Purpose | None = None,
    priority: str | None = None,
) -> Findings:
    """Looks at everything; changes nothing, and raises nothing for what is in the files.

    `hosts` are names that the server must have; without any, in /etc/pki, that of this host should
    be one.
    `role` is what must be there; without one it is whatever is there.
    `priority` is the tls_priority that the server's files are to go with.
    """
    look = _Look(site, now, euid, priority)
    roles = tuple(each for each in Purpose if each is role or look.has(each))
    return Findings(
        root=site.places.root,
        roles=roles,
        known=tuple(look.known()),
        problems=tuple(dict.fromkeys(look.problems(roles, hosts))),
    )


class _Look:
    """One inspection."""

    def __init__(self, site: Site, now: dt.datetime, euid: int, priority: str | None) -> None:
        self._site = site
        self._places = site.places
        self._now = now
        self._euid = euid
        self._lists = lists_in(site.places.crl)
        self._pairs = {each: self._found(each) for each in Purpose}
        self._priority = priority

    def _found(self, purpose: Purpose) -> tuple[tuple[Pair, ...], tuple[tuple[str, str], ...]]:
        """The identities, and what lies behind a gap in their numbers."""
        pair = self._places.pair(purpose)
        found, behind_gap = in_usual_places(
            str(pair.certificate.parent), str(pair.key.parent), purpose
        )
        return tuple(Pair(Path(one), Path(other)) for one, other in found), behind_gap

    def _identities(self, purpose: Purpose) -> tuple[Pair, ...]:
        return self._pairs[purpose][0]

    def has(self, purpose: Purpose) -> bool:
        """Whether anything is there: behind a gap, too, for somebody meant it to be used."""
        pairs, behind_gap = self._pairs[purpose]
        there = any(map(os.path.lexists, (*_certificates(pairs), *_keys(pairs))))
        return there or bool(behind_gap)

    def known(self) -> Iterator[Known]:
        places = self._places
        identities = (each for purpose in Purpose for each in self._identities(purpose))
        for path in (places.ca, *_certificates(identities)):
            for each in certificates_in(path):
                record = record_of(each, Purpose.SERVER)
                subject = excerpt(record.subject, _LONGEST_SUBJECT)
                more = [f"also {name}" for name in record.names[1:]]
                kind = key_kind(public_key(each))
                text = ", ".join([subject, *more, *filter(None, [kind])])
                yield Known(str(path), f"{text}, until {spelled(record.ends)}")
        for crl in self._lists:
            end = f", until {spelled(crl.next_update_utc)}" if crl.next_update_utc else ""
            yield Known(str(places.crl), f"{len(crl)} revoked{end}")

    def problems(self, roles: Sequence[Purpose], hosts: Sequence[str]) -> Iterator[Problem]:
        root = self._places.root
        if not root.is_dir():
            text = "it is no directory" if os.path.lexists(root) else "there is no such directory"
            fix = f"make a CA there: proxyd certs init --dir {shlex.quote(str(root.absolute()))}"
            yield _problem(root, text, fix)
            return
        yield from self._of_modes()
        yield from self._loaded(())
        yield from self._of_list()
        if Purpose.SERVER in roles:
            yield from self._of_server(hosts)
        if Purpose.CLIENT in roles:
            pairs, behind_gap = self._pairs[Purpose.CLIENT]
            yield from self._loaded((), behind_gap)
            for pair in pairs:
                yield from self._of_client(pair)
        if not roles:
            text = "there is neither a server's certificate nor a client's"
            fix = "make one (proxyd certs server, proxyd certs client)"
            yield _warning(root, text, fix)
        if self._site.store and os.path.lexists(self._site.store.key) and self._authorities():
            yield from self._of_store(self._site.store)

    def _of_modes(self) -> Iterator[Problem]:
        places, store, owners = self._places, self._site.store, self._site.owners
        identities = [each for purpose in Purpose for each in self._identities(purpose)]
        keys = list(_keys(identities))
        others = [places.ca, places.crl, *_certificates(identities)]
        directories = list(places.directories)
        if store:
            keys.append(store.key)
            others.append(store.ledger)
            directories.append(store.private)
        yield from modes.of_directories(directories, owners)
        yield from modes.of_files([*others, *keys], keys, owners)
        if self._site.of_this_host:
            yield from modes.of_readers([places.root, places.ca.parent, places.ca])

    def _of_list(self) -> Iterator[Problem]:
        for crl in self._lists:
            end = crl.next_update_utc
            if end and self._now <= end <= self._now + _SOON:
                text = f"the list is out of date on {spelled(end)}, and then clients are refused"
                fix = "make a new one (proxyd certs crl) and reload"
                yield _warning(self._places.crl, text, fix)

    def _of_server(self, hosts: Sequence[str]) -> Iterator[Problem]:
        pairs, behind_gap = self._pairs[Purpose.SERVER]
        for key in _keys(pairs):
            if self._euid != 0 and _is_out_of_reach(key):
                text = "only another user may read it, so the server's files were not checked"
                yield _warning(key, text, "run this as root to check them")
                return
        yield from self._loaded(pairs, behind_gap)
        for path in _certificates(pairs):
            for certificate in certificates_in(path)[:1]:
                own = socket.gethostname() if self._site.of_this_host and not hosts else None
                yield from _of_hosts(path, certificate, hosts, own)

    def _of_client(self, pair: Pair) -> Iterator[Problem]:
        yield from (_for_client(each, pair) for each in self._loaded((pair,), check=False))
        certificates = certificates_in(pair.certificate)
        if not certificates:
            return
        leaf, *between = certificates
        for flaw in flaws_of_leaf(leaf, Purpose.CLIENT, self._now):
            path, text = str(pair.certificate), f"the certificate {flaw.text}"
            yield Problem(path=path, text=text, fix=_NEW_CLIENT, fatal=flaw.fatal)
        for text in self._refusals(leaf, between):
            yield _problem(pair.certificate, f"the certificate {text}", _NEW_CLIENT)
        end = leaf.not_valid_after_utc
        if self._now <= end <= self._now + _SOON:
            text = f"the certificate expires on {spelled(end)}"
            yield _warning(pair.certificate, text, _NEW_CLIENT)

    def _refusals(
        self, leaf: x509.Certificate, between: Sequence[x509.Certificate]
    ) -> Iterator[str]:
        """Why servers refuse a client, besides its certificate's own flaws."""
        authorities = self._authorities()
        if authorities and not path_up(leaf, between=between, authorities=authorities):
            yield f"was not issued by the CA in {self._places.ca}"
        if not record_of(leaf, Purpose.CLIENT).subject:
            yield "has no subject"
        for crl in self._lists:
            entry = crl.get_revoked_certificate_by_serial_number(leaf.serial_number)
            if entry and _same_issuer(crl, leaf):
                yield f"was revoked on {spelled(entry.revocation_date_utc)}"

    def _authorities(self) -> list[x509.Certificate]:
        return certificates_in(self._places.ca)

    def _of_store(self, store: Store) -> Iterator[Problem]:
        try:
            read_issuer(store.root)
        except CannotDo as error:
            yield _of_failure(store.key, error)
        try:
            ledger = read_ledger(store)
        except CannotDo as error:
            yield _of_failure(store.ledger, error)
            return
        listed = {each.serial_number for crl in self._lists for each in crl}
        missing = [each for each in ledger.records if each.revocation]
        missing = [each for each in missing if each.serial not in listed]
        if missing:
            text = f"it lacks {len(missing)} of the certificates that this CA has revoked"
            fix = f"proxyd certs crl --dir {shlex.quote(str(store.root.absolute()))}"
            yield _problem(self._places.crl, text, fix)

    def _loaded(
        self,
        pairs: Sequence[Pair],
        behind_gap: tuple[tuple[str, str], ...] = (),
        *,
        check: bool = True,
    ) -> Iterator[Problem]:
        """proxyd's own verdicts about the CA, its revocation list and these pairs."""
        files = CertificateFiles(
            ca=str(self._places.ca),
            crl=str(self._places.crl) if os.path.lexists(self._places.crl) else None,
            pairs=tuple((str(pair.certificate), str(pair.key)) for pair in pairs),
            behind_gap=behind_gap,
        )
        try:
            credentials = load_credentials(files, now=self._now, check=check)
            found = credentials.warnings
            if pairs and check:
                found += tuple(problems_in_use(credentials, self._priority))
        except CertificateError as error:
            found = error.problems
        for each in found:
            if not each.fix.startswith("chmod"):
                yield replace(each, fatal=each.fatal or "refuse" in each.text)


def _of_hosts(
    path: Path, certificate: x509.Certificate, hosts: Sequence[str], own: str | None
) -> Iterator[Problem]:
    for host in hosts:
        if not covers(certificate, host):
            text = f"the certificate does not name {excerpt(host)}, and clients look for that"
            yield _problem(path, text, _NEW_SERVER)
    if own and not may_name(certificate, own):
        text = f"the certificate does not name this host, {excerpt(own)}"
        yield _warning(path, text, f"name with --host what clients use; or {_NEW_SERVER}")


def _for_client(problem: Problem, pair: Pair) -> Problem:
    """A verdict that was meant for a server's pair, with what mends a client's."""
    paths = (str(pair.certificate), str(pair.key))
    if problem.path in paths and "server" in problem.fix:
        return replace(problem, fix=_NEW_CLIENT)
    return problem


def _of_failure(path: Path, error: CannotDo) -> Problem:
    text, _, fix = str(error).partition("; ")
    return _problem(path, text, fix)


def _same_issuer(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    try:
        return crl.issuer == certificate.issuer
    except (ValueError, TypeError):  # names may be anything
        return False


def _certificates(pairs: Iterable[Pair]) -> list[Path]:
    return [pair.certificate for pair in pairs]


def _keys(pairs: Iterable[Pair]) -> list[Path]:
    return [pair.key for pair in pairs]


def _is_out_of_reach(path: Path) -> bool:
    return path.exists() and not os.access(path, os.R_OK)


def _problem(path: Path, text: str, fix: str) -> Problem:
    return Problem(path=str(path), text=text, fix=fix, fatal=True)


def _warning(path: Path, text: str, fix: str) -> Problem:
    return Problem(path=str(path), text=text, fix=fix, fatal=False)
