"""What a TLS client trusts and shows: the files of the options, and OpenSSL's context of them."""

import os
import ssl
from dataclasses import dataclass
from functools import cache

from loadtest.failures import UsageError


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files in PEM, for all TLS targets of a run."""

    cacert: str
    cert: str | None = None
    key: str | None = None
    host_check: bool = True

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise UsageError("--cert and --key belong together: give both, or none of them")


@cache  # a context costs more than a session; nothing of a session stays in it
def client_context(credentials: Credentials) -> ssl.SSLContext:
    """Raises UsageError, which names the option whose file is of no use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = credentials.host_check
    _readable("--cacert", credentials.cacert)
    try:
        context.load_verify_locations(credentials.cacert)
    except ssl.SSLError as error:
        raise UsageError(f"--cacert {credentials.cacert} holds no certificate in PEM") from error
    if credentials.cert is not None and credentials.key is not None:
        _load_pair(context, credentials.cert, credentials.key)
    return context


def _load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    def no_password() -> str:  # without it OpenSSL would ask on the terminal
        raise UsageError(f"--key {key} is encrypted; give one without a password")

    _readable("--cert", cert)
    _readable("--key", key)
    try:
        context.load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        reason = f"--cert {cert} and --key {key} are no certificate and its key in PEM"
        raise UsageError(reason) from error


def _readable(option: str, path: str) -> None:
    # OpenSSL's own errors do not say which file it was.
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UsageError(f"cannot read the file of {option}, {path}: {reason}") from error
