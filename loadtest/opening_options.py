"""The options that say how sessions are opened, and the `Opening` that they come to."""

import argparse
import os
import re
from typing import Final

from loadtest import amounts
from loadtest.client import Opening
from loadtest.credentials import Account, Credentials, client_context, password_of
from loadtest.failures import UsageError
from loadtest.targets import Protection, Target, TcpAddress
from loadtest.tickets import SERVICE, Tickets, login

TARGET_HELP: Final = (
    "NAME=unix:/PATH, or NAME=tcp:HOST:PORT, tls:, gssapi: or scram+tls: likewise (an IPv6 address"
    " as [::1]), and behind it [,pid=N[+N…]][,LABEL=N…][,uri=URI]"
)
_SERVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def add_opening(parser: argparse.ArgumentParser) -> None:
    """All but --uri, whose default is not the same everywhere."""
    add = parser.add_argument
    add("--timeout", type=amounts.seconds, default=10.0, help="seconds that any one wait may last")
    add("--cacert", metavar="FILE", help="the CA that tls: targets are trusted by, PEM")
    add("--cert", metavar="FILE", help="our certificate for tls: targets, PEM")
    add("--key", metavar="FILE", help="its private key, PEM, without a password")
    add("--no-host-check", action="store_true", help="take any name in a server's certificate")
    add(
        "--ticket-cache",
        metavar="FILE",
        help="our Kerberos ticket for gssapi: targets (default: KRB5CCNAME, or what libkrb5 says)",
    )
    add(
        "--service",
        type=_service,
        metavar="NAME",
        help=f"in NAME/HOST, whom that ticket is shown to (default {SERVICE})",
    )
    add("--user", metavar="NAME", help="who comes in by password, for scram+tls: targets")
    add(
        "--password-file",
        metavar="FILE",
        help="the password in one line; nobody else may read the file",
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
    login(tickets)
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
