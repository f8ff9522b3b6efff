"""Certificates for one test run, in a directory of their own."""

import datetime as dt
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PASSWORD = b"secret"
ONE_DAY = dt.timedelta(days=1)
HERE = [
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
]


class Pki:
    """A CA, a server and a client of it, and a stranger: NAME.pem and NAME.key below directory."""

    def __init__(self, directory):
        self.directory = directory
        ca = self._mint("ca", is_ca=True)
        self._mint("server", ca, usage=ExtendedKeyUsageOID.SERVER_AUTH, names=HERE)
        client_key, _ = self._mint("client", ca, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
        other = self._mint("other-ca", is_ca=True)
        self._mint("stranger", other, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
        locked = serialization.BestAvailableEncryption(PASSWORD)
        (directory / "locked.key").write_bytes(_pem(client_key, locked))

    def __getitem__(self, file):
        return str(self.directory / file)

    def _mint(self, name, issuer=None, *, is_ca=False, usage=None, names=()):
        key, subject = ec.generate_private_key(ec.SECP256R1()), _name(name)
        issuer_key, issuer_name = issuer or (key, subject)
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - ONE_DAY)
            .not_valid_after(now + ONE_DAY)
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        )
        if usage:
            made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = made.sign(issuer_key, hashes.SHA256())
        pem = signed.public_bytes(serialization.Encoding.PEM)
        (self.directory / f"{name}.pem").write_bytes(pem)
        (self.directory / f"{name}.key").write_bytes(_pem(key, serialization.NoEncryption()))
        return key, subject


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key, encryption):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
