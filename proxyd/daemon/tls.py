"""From settings to what new TLS connections are made with: `load_tls`.

Imported only where there is a TLS listener, and first of all: OpenSSL must be loaded in a certain
way (auth/tickets.py), and it takes memory that a host without TLS need not spend.
"""

import datetime as dt
import logging
import os
from dataclasses import replace
from typing import Final

from proxyd.auth.tickets import load_openssl

load_openssl()

from proxyd.auth.certificates import Credentials, load_credentials  # noqa: E402
from proxyd.auth.files import CertificateFiles  # noqa: E402
from proxyd.auth.problems import CertificateError  # noqa: E402
from proxyd.auth.server_tls import (  # noqa: E402
    ServerTls,
    TlsUnusable,
    make_server_tls,
    sends_tickets,
)
from proxyd.config.priority import TlsPolicy, TlsVersion, parse_priority  # noqa: E402
from proxyd.config.settings import Settings  # noqa: E402
from proxyd.daemon.exits import Exit, StartFailed  # noqa: E402
from proxyd.daemon.places import Places  # noqa: E402

_SYSTEM_CA: Final = "/etc/pki/CA/cacert.pem"
_SYSTEM_CRL: Final = "/etc/pki/CA/cacrl.pem"
_SYSTEM_PAIR: Final = (
    "/etc/pki/libvirt/servercert.pem",
    "/etc/pki/libvirt/private/serverkey.pem",
)

log = logging.getLogger("rpc.nettlscontext")


def load_tls(settings: Settings, places: Places) -> ServerTls:
    """Raises StartFailed with everything that is wrong. Reads files; takes milliseconds."""
    policy = parse_priority(settings.tls_priority)
    try:
        credentials = load_credentials(
            certificate_files(settings, places),
            now=dt.datetime.now(dt.UTC),
            check=not settings.tls_no_sanity_certificate,
        )
        tls = _made(credentials, policy, settings)
        if policy.highest >= TlsVersion.TLS1_3 and sends_tickets(tls):
            tls = _made(credentials, _without_tls_1_3(policy), settings)
    except (CertificateError, TlsUnusable) as error:
        raise StartFailed(Exit.NETWORK, f"cannot listen for TLS clients: {error}") from error
    for problem in credentials.warnings:
        log.warning("%s", problem)
    return tls


def _made(credentials: Credentials, policy: TlsPolicy, settings: Settings) -> ServerTls:
    return make_server_tls(
        credentials,
        policy,
        enforce=not settings.tls_no_verify_certificate,
        allowed=settings.tls_allowed_dn_list,
        in_kernel=settings.proxyd_kernel_tls,
    )


def _without_tls_1_3(policy: TlsPolicy) -> TlsPolicy:
    """What is left when tickets cannot be switched off. Raises TlsUnusable."""
    remedy = (
        "this OpenSSL sends session tickets, with which no libvirt client gets in by TLS 1.3; unset"
        " OPENSSL_CONF, or write NumTickets = 0 into the system_default section of its file"
    )
    if policy.lowest >= TlsVersion.TLS1_3:
        raise TlsUnusable(remedy)
    log.warning("TLS 1.3 is switched off: %s", remedy)
    return replace(policy, highest=TlsVersion.TLS1_2)


def certificate_files(settings: Settings, places: Places) -> CertificateFiles:
    """The files that the settings name, or those in the usual places that exist."""
    more = tuple(_pair(text) for text in settings.proxyd_more_certificates)
    if settings.ca_file and settings.cert_file and settings.key_file:
        return CertificateFiles(
            ca=settings.ca_file,
            crl=settings.crl_file,
            pairs=((settings.cert_file, settings.key_file), *more),
        )
    own = _own_pair(places.pki)
    crl = _first_there(places.pki, "cacrl.pem", _SYSTEM_CRL)
    return CertificateFiles(
        ca=_first_there(places.pki, "cacert.pem", _SYSTEM_CA),
        crl=crl if os.path.exists(crl) else None,
        pairs=(own or _SYSTEM_PAIR, *more),
    )


def _pair(text: str) -> tuple[str, str]:
    certificate, _, key = text.partition(":")
    return certificate, key


def _own_pair(directory: str) -> tuple[str, str] | None:
    """A user's certificate counts only together with its key."""
    pair = (f"{directory}/servercert.pem", f"{directory}/serverkey.pem")
    return pair if directory and all(map(os.path.exists, pair)) else None


def _first_there(directory: str, name: str, otherwise: str) -> str:
    own = f"{directory}/{name}"
    return own if directory and os.path.exists(own) else otherwise
