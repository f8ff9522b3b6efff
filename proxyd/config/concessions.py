"""What a `tls_priority` gives up that is there without one, to be said wherever it is obeyed."""

from collections.abc import Iterator
from typing import Final

from proxyd.config.priority import TlsPolicy, TlsVersion

_AEAD: Final = ("GCM", "CCM", "CHACHA20")  # in OpenSSL's names
_SUITES_OF_TLS_1_3: Final = "TLS_"
_LEVEL: Final = "@SECLEVEL"


def concessions(policy: TlsPolicy) -> Iterator[tuple[str, str]]:
    """Each as words that go on after "tls_priority …", and the word that takes it back."""
    if policy.lowest > TlsVersion.TLS1_2:
        return  # all that TLS 1.3 has is as it should be
    ciphers = [each for each in policy.ciphers.split(":") if not each.startswith(_LEVEL)]
    if not all(map(is_forward_secret, ciphers)):
        text = (
            "allows RSA key exchange, without forward secrecy: who gets at the server's key can"
            " read what was recorded before"
        )
        yield text, "-RSA"
    if not all(map(_is_aead, ciphers)):
        text = "allows AES-CBC, which is no AEAD cipher: attacks on its padding are known"
        yield text, "-AES-256-CBC:-AES-128-CBC"


def is_forward_secret(cipher: str) -> bool:
    """Whether a cipher in OpenSSL's name goes with ephemeral keys."""
    return cipher.startswith((_SUITES_OF_TLS_1_3, "ECDHE-", "DHE-"))


def _is_aead(cipher: str) -> bool:
    return any(each in cipher for each in _AEAD)
