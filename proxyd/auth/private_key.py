"""Reads a private key in PEM, also one that only OpenSSL understands."""

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import crypto


def load_private_key(pem: bytes) -> object:
    """The key. Raises ValueError, UnsupportedAlgorithm, and TypeError for an encrypted one."""
    try:
        return load_pem_private_key(pem, None)
    except ValueError as error:
        # GnuTLS puts a zero before every second EC key (certtool 3.7.9), as before an INTEGER.
        # OpenSSL reads that; cryptography 50 does not.
        try:
            return crypto.load_privatekey(crypto.FILETYPE_PEM, pem, b"").to_cryptography_key()
        except crypto.Error:
            raise error from None
