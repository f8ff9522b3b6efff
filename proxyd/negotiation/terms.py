"""What both sides of TLS have agreed on."""

from dataclasses import dataclass
from typing import Final

UNKNOWN: Final = "unknown"
NONE: Final = "none"  # RSA key exchange has no group and no signature


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsTerms:
    """The terms of one connection, by the names that OpenSSL and IANA have for them.

    `signature` is the one that the server made with its key, and `UNKNOWN` where the client's
    offer, on which it depends, was not seen (see tls/terms.py).
    """

    version: str  # TLSv1.2 or TLSv1.3
    cipher: str
    group: str
    signature: str

    def __str__(self) -> str:
        """For log lines."""
        return f"{self.version} {self.cipher} {self.group} {self.signature}"
