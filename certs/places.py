"""Where libvirt's programs look for certificates, and where our CA keeps what is its own.

There are two forms. The tree is that of /etc/pki; the flat one, everything in one directory, is
that of ~/.pki/libvirt and of ?pkipath= in a URI. A `Site` is what gets checked: the files of a
directory, or those that libvirt itself would use.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxyd.pki.fitness import Purpose
from proxyd.pki.identities import in_usual_places

from .failures import CannotDo

SYSTEM: Final = Path("/etc/pki")
OF_A_USER: Final = Path(".pki/libvirt")  # below the home directory


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate's file and its key's."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The files of one host or user. Nothing says that they exist."""

    root: Path
    ca: Path
    crl: Path
    server: Pair
    client: Pair

    def pair(self, purpose: Purpose) -> Pair:
        """The files of the server or of the client."""
        return self.server if purpose is Purpose.SERVER else self.client

    @property
    def directories(self) -> tuple[Path, ...]:
        """Every directory that is needed, the outer ones first."""
        pairs = (self.server, self.client)
        public = (self.root, self.ca.parent, *(pair.certificate.parent for pair in pairs))
        return tuple(dict.fromkeys([*public, *(pair.key.parent for pair in pairs)]))


def tree(root: Path) -> Places:
    """The form of /etc/pki."""
    libvirt, private = root / "libvirt", root / "libvirt/private"
    return Places(
        root=root,
        ca=root / "CA/cacert.pem",
        crl=root / "CA/cacrl.pem",
        server=Pair(libvirt / "servercert.pem", private / "serverkey.pem"),
        client=Pair(libvirt / "clientcert.pem", private / "clientkey.pem"),
    )


def flat(root: Path) -> Places:
    """The form of ~/.pki/libvirt and ?pkipath=."""
    return Places(
        root=root,
        ca=root / "cacert.pem",
        crl=root / "cacrl.pem",
        server=Pair(root / "servercert.pem", root / "serverkey.pem"),
        client=Pair(root / "clientcert.pem", root / "clientkey.pem"),
    )


def places_around(certificate: Path, purpose: Purpose) -> Places:
    """The tree or the directory that this is the certificate's file of. Raises CannotDo."""
    for places in (tree(certificate.parent.parent), flat(certificate.parent)):
        pair = places.pair(purpose)
        if pair.certificate == certificate and pair.key.parent.is_dir():
            return places
    raise CannotDo(
        f"{certificate} does not have the name that libvirt's programs look for"
        f" ({flat(Path()).pair(purpose).certificate}), so where its key is cannot be told; issue a"
        " new one (proxyd certs server, proxyd certs client)"
    )


@dataclass(frozen=True, slots=True)
class Store:
    """What a CA keeps to itself, below CA/private of its tree."""

    root: Path  # of the tree

    @property
    def private(self) -> Path:
        """The directory, which nobody else may enter."""
        return self.root / "CA/private"

    @property
    def key(self) -> Path:
        """The CA's key."""
        return self.private / "cakey.pem"

    @property
    def ledger(self) -> Path:
        """What was issued and revoked."""
        return self.private / "ledger.json"

    @property
    def issued(self) -> Path:
        """A copy of each certificate, named by its serial number."""
        return self.private / "issued"

    @property
    def replaced(self) -> Path:
        """Where an older CA goes when a new one takes its place."""
        return self.private / "replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The files, and who may own them."""

    places: Places
    store: Store | None  # of a CA, where there may be one
    owners: frozenset[int]
    of_this_host: bool = False  # /etc/pki itself, which all of its users need


def site_in(root: Path, euid: int) -> Site:
    """A directory that somebody names: a tree, or flat if it looks so."""
    if _looks_flat(root):
        # A user's own directory, whoever asks.
        owners = frozenset({0, euid, root.stat().st_uid})
        return Site(places=flat(root), store=None, owners=owners)
    return Site(
        places=tree(root),
        store=Store(root),
        owners=frozenset({0, euid}),
        of_this_host=root == SYSTEM,
    )


def own_site(home: Path, euid: int, system: Path = SYSTEM) -> Site:
    """What libvirt uses: root the tree, others first what is in their home."""
    if euid == 0:
        return site_in(system, euid)
    own, common = flat(home / OF_A_USER), tree(system)
    places = Places(
        root=own.root if own.root.exists() else common.root,
        ca=own.ca if own.ca.exists() else common.ca,
        crl=own.crl if own.crl.exists() else common.crl,
        # A certificate counts only together with its key.
        server=own.server if _is_there(own.root, Purpose.SERVER) else common.server,
        client=own.client if _is_there(own.root, Purpose.CLIENT) else common.client,
    )
    return Site(places=places, store=None, owners=frozenset({0, euid}))


def _looks_flat(root: Path) -> bool:
    here = flat(root)
    where = str(root)
    identities = (
        pair[0] for purpose in Purpose for pair in in_usual_places(where, where, purpose)[0]
    )
    files = (str(here.ca), *identities)
    return not (root / "CA").exists() and any(map(os.path.lexists, files))


def _is_there(directory: Path, purpose: Purpose) -> bool:
    """Whether one identity in a user's directory is complete."""
    where = str(directory)
    found, _ = in_usual_places(where, where, purpose)
    return any(all(map(os.path.exists, pair)) for pair in found)
