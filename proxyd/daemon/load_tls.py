"""From settings to what new TLS connections are made with: `load_tls`.

Imported only where there is a TLS listener, and first of all: OpenSSL must be loaded in a certain
way (tls/tickets.py), and it takes memory that a host without TLS need not spend.
"""

import datetime as dt
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from proxyd.tls.tickets import load_openssl

load_openssl()

from proxyd.config.priority import TlsPolicy, TlsVersion, parse_priority  # noqa: E402
from proxyd.config.settings import Settings  # noqa: E402
from proxyd.daemon.places import Places  # noqa: E402
from proxyd.pki.certificates import Credentials, load_credentials  # noqa: E402
from proxyd.pki.files import CertificateFiles  # noqa: E402
from proxyd.pki.identities import Pair, in_usual_places, numbered  # noqa: E402
from proxyd.pki.problems import CertificateError, Problem, warning  # noqa: E402
from proxyd.process.exit_status import Exit, StartFailed  # noqa: E402
from proxyd.tls.reach import of_no_verification, problems_of_reach  # noqa: E402
from proxyd.tls.server_context import (  # noqa: E402
    ServerTls,
    TlsUnusable,
    make_server_tls,
    sends_tickets,
)

_REFUSED: Final = "cannot listen for TLS clients: "
_SYSTEM_CA: Final = "/etc/pki/CA/cacert.pem"
_SYSTEM_CRL: Final = "/etc/pki/CA/cacrl.pem"
_SYSTEM_DIRECTORIES: Final = ("/etc/pki/libvirt", "/etc/pki/libvirt/private")

log = logging.getLogger("rpc.nettlscontext")


def load_tls(settings: Settings, places: Places) -> ServerTls:
    """Raises StartFailed with everything that is wrong. Reads files and tries handshakes.

    That takes tens of milliseconds.
    """
    policy = parse_priority(settings.tls_priority)
    try:
        credentials = load_credentials(
            certificate_files(settings, places),
            now=dt.datetime.now(dt.UTC),
            check=not settings.tls_no_sanity_certificate,
        )
        tls = _made(credentials, policy, settings)
        if policy.highest >= TlsVersion.TLS1_3 and sends_tickets(tls):
            policy = _without_tls_1_3(policy)
            tls = _made(credentials, policy, settings)
        left_out = _left_out(tls, policy, settings)
    except (CertificateError, TlsUnusable) as error:
        text = f"{_REFUSED}{error}"
        fatal = [problem for problem in error.problems if problem.fatal]
        raise StartFailed(
            Exit.NETWORK,
            text,
            key=_to_blame(settings, fatal[0]) if fatal else "listen_tls",
            causes=[(_to_blame(settings, each), f"{_REFUSED}{each}") for each in fatal],
        ) from error
    for problem in (*credentials.warnings, *left_out):
        log.warning("%s", problem)
    return tls


def _to_blame(settings: Settings, problem: Problem) -> str:
    """The setting that names what is wrong, or the one that asks for any of it."""
    named = ("ca_file", "cert_file", "key_file", "crl_file")
    return next((key for key in named if getattr(settings, key) == problem.path), "listen_tls")


def _made(credentials: Credentials, policy: TlsPolicy, settings: Settings) -> ServerTls:
    return make_server_tls(
        credentials,
        policy,
        enforce=not settings.tls_no_verify_certificate,
        allowed=settings.tls_allowed_dn_list,
        in_kernel=settings.proxyd_kernel_tls,
        priority=settings.tls_priority,
    )


def _left_out(tls: ServerTls, policy: TlsPolicy, settings: Settings) -> list[Problem]:
    """What is to be said of those who cannot come in. Raises CertificateError if nobody can."""
    problems = problems_of_reach(tls.identities, policy, settings.tls_priority)
    problems += of_no_verification(settings)
    problems += _of_no_authority(settings)
    if any(problem.fatal for problem in problems):
        raise CertificateError(problems)
    return problems


def _of_no_authority(settings: Settings) -> list[Problem]:
    """What an empty ca_file means, as a warning."""
    if settings.ca_file != "" or settings.tls_no_verify_certificate:
        return []
    text = "no CA is trusted, so no client's certificate is, and none gets in"
    return [warning('ca_file = ""', text, "name the CA that signs the clients' certificates")]


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
    """The files that the settings name, or those in the usual places that exist.

    In the directories of cert_file and key_file, too, numbered ones count. libvirt looks for those
    in its usual places only. That the settings are all there or none of them, and none of them
    empty that may not be, has been seen to (config/agreement.py).
    """
    more = tuple(_pair(text) for text in settings.proxyd_more_certificates)
    if settings.ca_file is not None and settings.cert_file and settings.key_file:
        own = (settings.cert_file, settings.key_file)
        certificates, keys = (os.path.dirname(each) or "." for each in own)
        others, behind_gap = numbered(certificates, keys)
        return CertificateFiles(
            ca=settings.ca_file,
            crl=settings.crl_file or None,
            pairs=_each_once((own, *others, *more)),
            behind_gap=behind_gap,
        )
    usual, behind_gap = in_usual_places(*_usual_directories(places.pki))
    crl = _first_there(places.pki, "cacrl.pem", _SYSTEM_CRL)
    return CertificateFiles(
        ca=_first_there(places.pki, "cacert.pem", _SYSTEM_CA),
        crl=crl if os.path.exists(crl) else None,
        pairs=_each_once((*usual, *more)),
        behind_gap=behind_gap,
    )


def _pair(text: str) -> Pair:
    certificate, _, key = text.partition(":")
    return certificate, key


def _each_once(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """In that order; a setting may name what is found anyway."""
    found: dict[str, Pair] = {}
    for pair in pairs:
        found.setdefault(os.path.abspath(pair[0]), pair)
    return tuple(found.values())


def _usual_directories(own: str) -> tuple[str, str]:
    """Of certificates and of keys. A user's own count if one there has its key."""
    if own:
        found, _ = in_usual_places(own, own)
        if any(all(map(os.path.exists, pair)) for pair in found):
            return own, own
    return _SYSTEM_DIRECTORIES


def _first_there(directory: str, name: str, otherwise: str) -> str:
    own = f"{directory}/{name}"
    return own if directory and os.path.exists(own) else otherwise
