"""A certificate authority for the tests, with the files where libvirt's programs look for them.

Keys are ECDSA on P-256, because they are made in no time.
"""

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
DAY: Final = dt.timedelta(days=1)
SHORTLY: Final = dt.timedelta(minutes=5)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def name_of(*attributes: tuple[str, str]) -> x509.Name:
    """A subject from pairs like ("O", "Example"), in the order of the certificate."""
    known = {
        "C": NameOID.COUNTRY_NAME,
        "O": NameOID.ORGANIZATION_NAME,
        "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
        "CN": NameOID.COMMON_NAME,
    }
    return x509.Name([x509.NameAttribute(known[kind], value) for kind, value in attributes])


@dataclass
class Issued:
    """A certificate and its key, as values and as files."""

    certificate: x509.Certificate
    key: Key
    cert_file: Path
    key_file: Path


@dataclass
class Pki:
    """A CA below `directory`: cacert.pem, what it issued, and cacrl.pem once that is revoked."""

    directory: Path
    name: str = "proxyd tests"
    revoked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self.key = new_key()
        subject = name_of(("CN", self.name))
        usage = _key_usage(key_cert_sign=True, crl_sign=True)
        self.certificate = (
            _builder(subject, subject, self.key, -DAY, 365 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.ca_file = self.directory / "cacert.pem"
        self.crl_file = self.directory / "cacrl.pem"
        write_certificates(self.ca_file, self.certificate)
        self._count = 0

    def server(
        self,
        names: Sequence[str] = LOCAL_NAMES,
        *,
        key: Key | None = None,
        begins: dt.timedelta = -DAY,
        ends: dt.timedelta = 60 * DAY,
    ) -> Issued:
        """A server's certificate for host names and addresses."""
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        return self._issue(
            name_of(("CN", names[0])),
            key or new_key(),
            (begins, ends),
            (ExtendedKeyUsageOID.SERVER_AUTH, alternatives),
            self._next_directory("server"),
        )

    def client(
        self,
        *subject: tuple[str, str],
        names: Sequence[x509.GeneralName] = (),
        nameless: bool = False,
        begins: dt.timedelta = -DAY,
        ends: dt.timedelta = 60 * DAY,
    ) -> Path:
        """A client's certificate, with other names if given, in a directory for ?pkipath=.

        A `nameless` one has no subject.
        """
        directory = self._next_directory("client")
        self._issue(
            name_of(*(() if nameless else subject or (("CN", "joe"),))),
            new_key(),
            (begins, ends),
            (
                ExtendedKeyUsageOID.CLIENT_AUTH,
                x509.SubjectAlternativeName(names) if names else None,
            ),
            directory,
        )
        write_certificates(directory / "cacert.pem", self.certificate)
        return directory

    def stranger(self) -> Path:
        """A directory for ?pkipath= that trusts this CA and has no certificate."""
        directory = self._next_directory("stranger")
        write_certificates(directory / "cacert.pem", self.certificate)
        return directory

    def revoke(self, *directories: Path) -> Path:
        """Puts these clients on the revocation list and writes it."""
        for directory in directories:
            pem = (directory / "clientcert.pem").read_bytes()
            self.revoked.append(x509.load_pem_x509_certificate(pem).serial_number)
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - SHORTLY)
            .next_update(now + DAY)
        )
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - SHORTLY).build())
        crl = builder.sign(self.key, hashes.SHA256())
        self.crl_file.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        return self.crl_file

    def settings(self, server: Issued) -> dict[str, str]:
        """The keys of the conf file that lead to these files."""
        return {
            "ca_file": str(self.ca_file),
            "cert_file": str(server.cert_file),
            "key_file": str(server.key_file),
        }

    def _next_directory(self, kind: str) -> Path:
        self._count += 1
        directory = self.directory / f"{kind}{self._count}"
        directory.mkdir()
        return directory

    def _issue(
        self,
        subject: x509.Name,
        key: Key,
        validity: tuple[dt.timedelta, dt.timedelta],
        use: tuple[x509.ObjectIdentifier, x509.SubjectAlternativeName | None],
        directory: Path,
    ) -> Issued:
        purpose, alternatives = use
        builder = (
            _builder(subject, self.certificate.subject, key, *validity)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True, key_encipherment=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        kind = "server" if purpose == ExtendedKeyUsageOID.SERVER_AUTH else "client"
        issued = Issued(
            certificate, key, directory / f"{kind}cert.pem", directory / f"{kind}key.pem"
        )
        write_certificates(issued.cert_file, certificate)
        write_key(issued.key_file, key)
        return issued


def write_certificates(path: Path, *certificates: x509.Certificate) -> None:
    path.write_bytes(
        b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)
    )


def write_key(path: Path, key: Key) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, begins: dt.timedelta, ends: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(**granted: bool) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{each: granted.get(each, False) for each in every})
