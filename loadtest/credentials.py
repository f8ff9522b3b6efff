"""What a client trusts and shows: the files of the options, OpenSSL's context, a password."""

import os
import ssl
import stat
from dataclasses import dataclass
from functools import cache
from typing import Final

from .failures import UsageError

_LARGEST_PASSWORD: Final = 4096  # bytes of its file


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


@dataclass(frozen=True, slots=True)
class Account:
    """Who comes in by a password, for all SCRAM targets of a run; the password stays in its file.

    So it is in no report, which shows the whole plan, and goes over no pipe to a generator.
    """

    user: str
    password_file: str


@cache  # a session less that reads a file
def password_of(account: Account) -> str:
    """The file's first and only line. Raises UsageError if it is of no use, or not ours alone."""
    told = f"--password-file {account.password_file}"
    _readable("--password-file", account.password_file)
    with open(account.password_file, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = stat.S_IMODE(status.st_mode)
            raise UsageError(f"{told}: others may use it (mode {mode:04o}); chmod 0600")
        if status.st_uid not in {0, os.geteuid()}:
            raise UsageError(f"{told}: it belongs to uid {status.st_uid}; chown it")
        content = file.read(_LARGEST_PASSWORD + 1)
    try:
        password = content.decode().removesuffix("\n")
    except UnicodeDecodeError:
        password = ""
    if len(content) > _LARGEST_PASSWORD or not password.isprintable() or not password:
        raise UsageError(f"{told}: it must hold one line, which is the password, and no more")
    return password
