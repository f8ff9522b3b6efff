"""The options that say how sessions are opened, and the `Opening` that they come to."""

import argparse
import os
import re
from collections.abc import Callable
from typing import Final

from . import amounts
from .client import Opening
from .credentials import Account, Credentials, client_context, password_of
from .extras import kerberos_login
from .failures import UsageError
from .targets import Protection, Target, TcpAddress, parse_targets
from .tickets import SERVICE, Tickets
from .typed import EXAMPLES, WAYS, spelled_out

TARGET_HELP: Final = (
    f"{WAYS}; NAME= in front of it gives it a name, an IPv6 HOST stands in brackets; behind it"
    " ,pid=N[+N…] or any other LABEL=N…, whose CPU is measured, and ,uri=URI"
)
# Where libvirt's clients look when nobody names a file.
_CACERT: Final = "/etc/pki/CA/cacert.pem"
_SERVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def add_targets(add: Callable[..., object], more: str = "") -> None:
    """As plain arguments; --target says the same. `more` goes on in the help."""
    add("plain_targets", nargs="*", metavar="TARGET", help=f"{TARGET_HELP}{more}")
    add("--target", action="append", default=[], metavar="TARGET", help="the same as TARGET")


def targets_of(options: argparse.Namespace) -> tuple[Target, ...]:
    """Raises UsageError. What their URIs say about certificates goes to the options."""
    texts, files = spelled_out([*options.plain_targets, *options.target])
    if not texts:
        raise UsageError(f"which targets? Type their addresses, as in: {EXAMPLES}")
    targets = parse_targets(texts)
    if _has(targets, Protection.TLS, Protection.SCRAM_TLS):
        options.no_host_check = options.no_host_check or files.unverified
        if options.cacert is None:
            _find_certificates(options, files.pkipath)
    return targets


def _find_certificates(options: argparse.Namespace, pkipath: str | None) -> None:
    """Where libvirt's client would look for them."""
    if pkipath is not None:
        options.cacert = os.path.join(pkipath, "cacert.pem")
        pair = [os.path.join(pkipath, name) for name in ("clientcert.pem", "clientkey.pem")]
        if options.cert is None and options.key is None and os.path.exists(pair[0]):
            options.cert, options.key = pair
    elif os.access(_CACERT, os.R_OK):
        options.cacert = _CACERT


def add_opening(add: Callable[..., object]) -> None:
    """All but --uri, whose default is not the same everywhere. `add`: some add_argument."""
    add(
        "--timeout",
        type=amounts.seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long any one wait may last (default 10)",
    )
    add("--cacert", metavar="FILE", help="tls:, scram+tls: the CA that signed the server's, PEM")
    add("--cert", metavar="FILE", help="tls:, scram+tls: our own certificate, PEM")
    add("--key", metavar="FILE", help="its private key, PEM, without a password")
    add("--no-host-check", action="store_true", help="take any name in a server's certificate")
    add(
        "--ticket-cache",
        metavar="FILE",
        help="gssapi: our Kerberos ticket (default: KRB5CCNAME, else where libkrb5 looks)",
    )
    add(
        "--service",
        type=_service,
        metavar="NAME",
        help=f"gssapi: show it to NAME/HOST (default {SERVICE})",
    )
    add("--user", metavar="NAME", help="scram+tls: who comes in")
    add(
        "--password-file",
        metavar="FILE",
        help="scram+tls: the password in one line; nobody else may use the file",
    )


def opening_of(
    options: argparse.Namespace, targets: tuple[Target, ...], uri: str, *, readonly: bool = False
) -> Opening:
    """Raises UsageError: files, tickets and passwords that are of no use are told now."""
    return Opening(
        uri,
        readonly,
        options.timeout,
        _credentials(options, targets),
        _tickets(options, targets),
        _account(options, targets),
    )


def _credentials(options: argparse.Namespace, targets: tuple[Target, ...]) -> Credentials | None:
    if not _has(targets, Protection.TLS, Protection.SCRAM_TLS):
        _check_unused(options, "tls", "cacert", "cert", "key", "no_host_check")
        return None
    if options.cacert is None:
        raise UsageError("tls: targets need --cacert FILE, the CA that signed their certificates")
    credentials = Credentials(
        options.cacert, options.cert, options.key, host_check=not options.no_host_check
    )
    client_context(credentials)
    return credentials


def _tickets(options: argparse.Namespace, targets: tuple[Target, ...]) -> Tickets | None:
    if not _has(targets, Protection.GSSAPI):
        _check_unused(options, "gssapi", "ticket_cache", "service")
        return None
    # By its name and not as "the default", so that the report of a run has it.
    cache = options.ticket_cache or os.environ.get("KRB5CCNAME")
    tickets = Tickets(cache, options.service or SERVICE)
    kerberos_login(tickets)
    return tickets


def _account(options: argparse.Namespace, targets: tuple[Target, ...]) -> Account | None:
    if not _has(targets, Protection.SCRAM_TLS):
        _check_unused(options, "scram+tls", "user", "password_file")
        return None
    if not options.user or not options.password_file:
        raise UsageError("scram+tls: targets need --user NAME and --password-file FILE")
    account = Account(options.user, options.password_file)
    password_of(account)
    return account


def _has(targets: tuple[Target, ...], *protections: Protection) -> bool:
    addresses = (target.address for target in targets)
    return any(isinstance(a, TcpAddress) and a.protection in protections for a in addresses)


def _check_unused(options: argparse.Namespace, kind: str, *names: str) -> None:
    for name in names:
        if getattr(options, name):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is for {kind}: targets, and there is none")


def _service(text: str) -> str:
    if not _SERVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no service; give a name without its host")
    return text
