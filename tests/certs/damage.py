"""A sound host, and ways to harm it: what is done, to which file, and what `check` says of it."""

import datetime as dt
import os

from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.authority import Authority
from certs.keys import parse_key
from certs.places import flat
from tests.certs.conftest import CA_NAME, HOST
from tests.pki.minting import (
    CONSTRAINTS_OF_LEAF,
    DAY,
    FOR_CLIENTS,
    HOST_NAMES,
    NOW,
    USAGE_OF_LEAF,
    key_pem,
    key_usage,
    mint,
    new_key,
    pem,
    purposes,
)

YEAR = 365 * DAY


def ago(days):
    moment = dt.datetime.now(dt.UTC) - days * DAY
    return lambda: moment


class Tree:
    """A sound host: a CA, a server, a client, and a revocation list with somebody else on it."""

    def __init__(self, root):
        self.root = root
        self.authority = Authority.create(root, name=CA_NAME, clock=ago(30))
        self.places, self.store = self.authority.places, self.authority.store
        self.server, self.client = self.places.server, self.places.client
        self.authority = self.at(1)
        self.authority.client("former", to=flat(root.parent / "former"))
        self.authority.revoke("former")
        self.authority.server(HOST)
        self.authority.client("joe")

    def at(self, days):
        """The same CA so many days ago."""
        return Authority.open(self.root, clock=ago(days))

    def put(self, pair, certificate, key):
        pair.certificate.write_bytes(pem(certificate))
        pair.key.write_bytes(key_pem(key))

    def mint(self, *extensions):
        """A certificate of this CA with extensions that its program would not make, and its key."""
        key, begins = new_key(), ago(1)() - NOW
        signer = parse_key(self.store.key.read_bytes(), self.store.key)
        certificate = mint(
            HOST,
            key,
            issuer=CA_NAME,
            signer=signer,
            extensions=extensions,
            begins=begins,
            ends=begins + YEAR,
        )
        return certificate, key

    def another_ca(self):
        return Authority.create(self.root.parent / "other", name="Other CA")


def expired_server(sound):
    sound.at(9).server(HOST, days=2, force=True)


def ca_of_the_past(sound):
    old = Authority.create(sound.root, name=CA_NAME, days=10, clock=ago(20), force=True)
    old.server(HOST, force=True)
    old.client("joe", force=True)


def wrong_key(sound):
    sound.server.key.write_bytes(sound.client.key.read_bytes())


def encrypted(path):
    key = parse_key(path.read_bytes(), path)
    path.write_bytes(key_pem(key, b"secret"))


def server_of_another_ca(sound):
    sound.another_ca().server(HOST, to=sound.places, force=True)
    sound.places.ca.write_bytes(pem(sound.authority.certificate))
    sound.at(1).refresh_list()


def client_of_another_ca(sound):
    issued = sound.another_ca().client("joe", to=flat(sound.root.parent / "joe"))
    sound.client.certificate.write_bytes(issued.cert_file.read_bytes())
    sound.client.key.write_bytes(issued.key_file.read_bytes())


def forget_a_revocation(sound):
    before = sound.places.crl.read_bytes()
    sound.authority.client("thief", to=flat(sound.root.parent / "thief"))
    sound.authority.revoke("thief")
    sound.places.crl.write_bytes(before)


def for_clients_only(sound):
    critical = (purposes(ExtendedKeyUsageOID.CLIENT_AUTH), True)
    sound.put(sound.server, *sound.mint(CONSTRAINTS_OF_LEAF, USAGE_OF_LEAF, critical, HOST_NAMES))


def for_servers_only(sound):
    usual = (purposes(ExtendedKeyUsageOID.SERVER_AUTH), False)
    sound.put(sound.client, *sound.mint(CONSTRAINTS_OF_LEAF, USAGE_OF_LEAF, usual))


def nobody_but_the_ca(sound):
    for pair in (sound.server, sound.client):
        pair.certificate.unlink()
        pair.key.unlink()


def not_for_signatures(sound):
    usage = (key_usage("key_encipherment"), True)
    sound.put(sound.client, *sound.mint(CONSTRAINTS_OF_LEAF, usage, FOR_CLIENTS))


def the_ca_itself(sound):
    sound.server.certificate.write_bytes(sound.places.ca.read_bytes())
    sound.server.key.write_bytes(sound.store.key.read_bytes())


CA, CRL = (lambda s: s.places.ca), (lambda s: s.places.crl)
CA_KEY, LEDGER = (lambda s: s.store.key), (lambda s: s.store.ledger)
SERVER, SERVER_KEY = (lambda s: s.server.certificate), (lambda s: s.server.key)
CLIENT, CLIENT_KEY = (lambda s: s.client.certificate), (lambda s: s.client.key)
NEW_SERVER = "issue a new one (proxyd certs server"
NEW_CLIENT = "issue a new one (proxyd certs client"

# What is done; the file; words of the finding; words of what mends it, {} for the file.
DAMAGES = {
    "no CA": (
        lambda s: s.places.ca.unlink(),
        CA,
        "there is no such file",
        "proxyd certs init",
    ),
    "garbage for a CA": (
        lambda s: s.places.ca.write_text("junk"),
        CA,
        "it is not PEM",
        "put the CA's certificate there",
    ),
    "a CA that has expired": (
        ca_of_the_past,
        CA,
        'the certificate of "CN=Example CA" expired on ',
        "make a new CA (proxyd certs init) and issue all certificates anew",
    ),
    "no certificate beside the server's key": (
        lambda s: s.server.certificate.unlink(),
        SERVER,
        "there is no such file",
        "proxyd certs server",
    ),
    "no key beside the server's certificate": (
        lambda s: s.server.key.unlink(),
        SERVER_KEY,
        "there is no such file",
        "proxyd certs server",
    ),
    "a server's certificate cut short": (
        lambda s: os.truncate(s.server.certificate, 200),
        SERVER,
        "the certificate in it is cut off",
        "put this server's certificate there",
    ),
    "an encrypted key of a server": (
        lambda s: encrypted(s.server.key),
        SERVER_KEY,
        "the key is encrypted, and nobody is there to type the password",
        "decrypt it: umask 077; openssl pkey -in {}",
    ),
    "the key of another certificate": (
        wrong_key,
        SERVER_KEY,
        "the key does not belong to the certificate of",
        NEW_SERVER,
    ),
    "a server that has expired": (expired_server, SERVER, "expired on ", NEW_SERVER),
    "a server's certificate of another CA": (
        server_of_another_ca,
        SERVER,
        'was issued by "CN=Other CA", which is not in ',
        NEW_SERVER,
    ),
    "a server's certificate that is for clients": (
        for_clients_only,
        SERVER,
        "is not for a server (extendedKeyUsage lacks serverAuth)",
        NEW_SERVER,
    ),
    "a CA's certificate as a server's": (
        the_ca_itself,
        SERVER,
        "is a CA's, not a server's (basicConstraints has CA:TRUE)",
        NEW_SERVER,
    ),
    "a server that is revoked": (
        lambda s: s.authority.revoke(HOST),
        SERVER,
        "was revoked on ",
        NEW_SERVER,
    ),
    "a client that is revoked": (
        lambda s: s.authority.revoke("joe"),
        CLIENT,
        "the certificate was revoked on ",
        NEW_CLIENT,
    ),
    "a client that has expired": (
        lambda s: s.at(9).client("joe", days=2, force=True),
        CLIENT,
        "the certificate expired on ",
        NEW_CLIENT,
    ),
    "a client of another CA": (
        client_of_another_ca,
        CLIENT,
        "the certificate was not issued by the CA in ",
        NEW_CLIENT,
    ),
    "a client's certificate that may not sign": (
        not_for_signatures,
        CLIENT,
        "the certificate is not for signatures (keyUsage lacks digitalSignature)",
        NEW_CLIENT,
    ),
    "no key beside the client's certificate": (
        lambda s: s.client.key.unlink(),
        CLIENT_KEY,
        "there is no such file",
        NEW_CLIENT,
    ),
    "a revocation list that is out of date": (
        lambda s: s.at(9).refresh_list(days=2),
        CRL,
        "expired on ",
        "make a new one (proxyd certs crl) and reload",
    ),
    "a revocation list of another CA": (
        lambda s: s.places.crl.write_bytes(pem(s.another_ca().refresh_list())),
        CRL,
        'the revocation list of "CN=Other CA" is signed by no CA in ',
        "proxyd certs crl",
    ),
    "garbage for a revocation list": (
        lambda s: s.places.crl.write_text("junk"),
        CRL,
        "it is not PEM",
        "proxyd certs crl",
    ),
    "a revocation list that lacks one": (
        forget_a_revocation,
        CRL,
        "it lacks 1 of the certificates that this CA has revoked",
        "proxyd certs crl --dir ",
    ),
    "no revocation list at all after a revocation": (
        lambda s: s.places.crl.unlink(),
        CRL,
        "it lacks 1 of the certificates that this CA has revoked",
        "proxyd certs crl --dir ",
    ),
    "a server's key for everybody": (
        lambda s: s.server.key.chmod(0o644),
        SERVER_KEY,
        "its mode lets every user of this host read this key",
        "chmod 600 {}; and replace the key if anybody could reach it",
    ),
    "a CA's key for everybody": (
        lambda s: s.store.key.chmod(0o644),
        CA_KEY,
        "its mode lets every user of this host read this key",
        "chmod 600 {}; and replace the key if anybody could reach it",
    ),
    "a key that its group may change": (
        lambda s: s.client.key.chmod(0o660),
        CLIENT_KEY,
        "others may change this key",
        "chmod 600 {}",
    ),
    "a CA that everybody may change": (
        lambda s: s.places.ca.chmod(0o666),
        CA,
        "others may change it",
        "chmod go-w {}",
    ),
    "a directory that everybody may write": (
        lambda s: s.server.key.parent.chmod(0o777),
        lambda s: s.server.key.parent,
        "others may put their own files into it",
        "chmod go-w {}",
    ),
    "a tree that its group may write": (
        lambda s: s.root.chmod(0o775),
        lambda s: s.root,
        "others may put their own files into it",
        "chmod go-w {}",
    ),
    "a CA's key that is encrypted": (
        lambda s: encrypted(s.store.key),
        CA_KEY,
        "cakey.pem is encrypted",
        "decrypt it (umask 077; openssl pkey -in {}",
    ),
    "the key of another CA": (
        lambda s: s.store.key.write_bytes(key_pem(new_key())),
        CA_KEY,
        "cakey.pem is not the key of ",
        "restore the one that is",
    ),
    "a damaged ledger": (
        lambda s: s.store.ledger.write_text("{}"),
        LEDGER,
        "ledger.json is damaged: it is no ledger",
        "restore it from a backup, or move it away",
    ),
}

# What is done; the file; words of the warning.
WARNINGS = {
    "a CA and nothing else": (
        nobody_but_the_ca,
        lambda s: s.root,
        "there is neither a server's certificate nor a client's",
    ),
    "a key that its group may read": (
        lambda s: s.server.key.chmod(0o640),
        SERVER_KEY,
        "its group may read this key",
    ),
    "a server that expires soon": (
        lambda s: s.authority.server(HOST, days=8, force=True),
        SERVER,
        "expires on ",
    ),
    "a client that expires soon": (
        lambda s: s.authority.client("joe", days=8, force=True),
        CLIENT,
        "the certificate expires on ",
    ),
    "a list that is out of date soon": (
        lambda s: s.authority.refresh_list(days=8),
        CRL,
        "the list is out of date on ",
    ),
    "a purpose that libvirt does not insist on": (
        for_servers_only,
        CLIENT,
        "the certificate is not for a client (extendedKeyUsage lacks clientAuth)",
    ),
}
