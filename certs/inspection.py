"""What is wrong with the files of a host or user, and how to mend it: `inspect`.

The verdicts about a server's files are those that proxyd itself starts with
(`proxyd.auth.certificates`). Two things are different here, where an administrator has asked:

* What proxyd warns of because a reload may mend it, and somebody is refused until then, is a
  problem: a revocation list that is out of date, a certificate that is revoked or has no subject.
* Permissions are told of by `certs.modes`, which knows directories and owners as well.
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

from certs import modes
from certs.failures import CannotDo
from certs.ledger import record_of
from certs.names import covers, may_name
from certs.places import Pair, Site, Store
from certs.reading import certificates_in, lists_in, read_issuer, read_ledger
from proxyd.auth.certificates import load_credentials
from proxyd.auth.files import CertificateFiles
from proxyd.auth.fitness import Purpose, flaws_of_leaf, path_up, spelled
from proxyd.auth.problems import CertificateError, Problem
from proxyd.config.quoting import excerpt

_SOON: Final = dt.timedelta(days=14)  # as proxyd's own warning
_LONGEST_SUBJECT: Final = 200
_NEW_CLIENT: Final = "issue a new one (python -m certs client)"
_NEW_SERVER: Final = "issue a new one (python -m certs server), with every name that clients use"


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
) -> Findings:
    """Looks at everything; changes nothing, and raises nothing for what is in the files.

    `hosts` are names that the server must have; without any, in /etc/pki, that of this host should
    be one.
    `role` is what must be there; without one it is whatever is there.
    """
    look = _Look(site, now, euid)
    roles = tuple(each for each in Purpose if each is role or look.has(each))
    return Findings(
        root=site.places.root,
        roles=roles,
        known=tuple(look.known()),
        problems=tuple(dict.fromkeys(look.problems(roles, hosts))),
    )


class _Look:
    """One inspection."""

    def __init__(self, site: Site, now: dt.datetime, euid: int) -> None:
        self._site = site
        self._places = site.places
        self._now = now
        self._euid = euid
        self._lists = lists_in(site.places.crl)

    def has(self, purpose: Purpose) -> bool:
        pair = self._places.pair(purpose)
        return os.path.lexists(pair.certificate) or os.path.lexists(pair.key)

    def known(self) -> Iterator[Known]:
        places = self._places
        for path in (places.ca, places.server.certificate, places.client.certificate):
            for each in certificates_in(path):
                record = record_of(each, Purpose.SERVER)
                subject = excerpt(record.subject, _LONGEST_SUBJECT)
                more = [f"also {name}" for name in record.names[1:]]
                text = ", ".join([subject, *more, f"until {spelled(record.ends)}"])
                yield Known(str(path), text)
        for crl in self._lists:
            end = f", until {spelled(crl.next_update_utc)}" if crl.next_update_utc else ""
            yield Known(str(places.crl), f"{len(crl)} revoked{end}")

    def problems(self, roles: Sequence[Purpose], hosts: Sequence[str]) -> Iterator[Problem]:
        root = self._places.root
        if not root.is_dir():
            text = "it is no directory" if os.path.lexists(root) else "there is no such directory"
            fix = f"make a CA there: python -m certs init --dir {shlex.quote(str(root))}"
            yield _problem(root, text, fix)
            return
        yield from self._of_modes()
        yield from self._loaded(())
        yield from self._of_list()
        if Purpose.SERVER in roles:
            yield from self._of_server(hosts)
        if Purpose.CLIENT in roles:
            yield from self._of_client()
        if not roles:
            text = "there is neither a server's certificate nor a client's"
            fix = "make one (python -m certs server, python -m certs client)"
            yield _warning(root, text, fix)
        if self._site.store and os.path.lexists(self._site.store.key) and self._authorities():
            yield from self._of_store(self._site.store)

    def _of_modes(self) -> Iterator[Problem]:
        places, store, owners = self._places, self._site.store, self._site.owners
        keys = [places.server.key, places.client.key]
        others = [places.ca, places.crl, places.server.certificate, places.client.certificate]
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
                fix = "make a new one (python -m certs crl) and reload"
                yield _warning(self._places.crl, text, fix)

    def _of_server(self, hosts: Sequence[str]) -> Iterator[Problem]:
        pair = self._places.server
        if self._euid != 0 and _is_out_of_reach(pair.key):
            text = "only another user may read it, so the server's files were not checked"
            yield _warning(pair.key, text, "run this as root to check them")
            return
        yield from self._loaded((pair,))
        for certificate in certificates_in(pair.certificate)[:1]:
            own = socket.gethostname() if self._site.of_this_host and not hosts else None
            yield from _of_hosts(pair.certificate, certificate, hosts, own)

    def _of_client(self) -> Iterator[Problem]:
        pair = self._places.client
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
            fix = f"python -m certs crl --dir {shlex.quote(str(store.root))}"
            yield _problem(self._places.crl, text, fix)

    def _loaded(self, pairs: Iterable[Pair], *, check: bool = True) -> Iterator[Problem]:
        """proxyd's own verdicts about the CA, its revocation list and these pairs."""
        files = CertificateFiles(
            ca=str(self._places.ca),
            crl=str(self._places.crl) if os.path.lexists(self._places.crl) else None,
            pairs=tuple((str(pair.certificate), str(pair.key)) for pair in pairs),
        )
        try:
            found = load_credentials(files, now=self._now, check=check).warnings
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


def _is_out_of_reach(path: Path) -> bool:
    return path.exists() and not os.access(path, os.R_OK)


def _problem(path: Path, text: str, fix: str) -> Problem:
    return Problem(path=str(path), text=text, fix=fix, fatal=True)


def _warning(path: Path, text: str, fix: str) -> Problem:
    return Problem(path=str(path), text=text, fix=fix, fatal=False)
