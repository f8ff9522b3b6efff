"""Certificates: looked at where somebody is to listen for TLS, and judged.

Elsewhere they are nobody's trouble.
"""

import datetime as dt
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from proxyd.config.agreement import clashes_of
from proxyd.config.settings import Settings
from proxyd.config.transports import Transport
from proxyd.doctor.files import in_the_way, way_to
from proxyd.doctor.findings import RELOAD, Finding, error, fine, note, sentence, warning
from proxyd.doctor.state import HostState, TlsState, Way
from proxyd.doctor.surroundings import Surroundings
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.units import listens_by
from proxyd.pki.problems import Problem

if TYPE_CHECKING:
    from proxyd.pki.certificates import Credentials
    from proxyd.pki.files import CertificateFiles


_CA_BELOW_PKI: Final = "/CA/cacert.pem"
# What `certs` makes, and the arguments that it needs for that.
_CERTS: Final = re.compile(r"proxyd certs (init|server|crl)")
_ARGUMENTS: Final = {"server": ' "$(hostname -f)"', "crl": "", "renew": ""}
_CA_KEY: Final = "CA/private/cakey.pem"


def look_at_tls(
    around: Surroundings, settings: Settings, units: Mapping[str, Unit]
) -> TlsState | None:
    """The certificates; None if nobody is to listen for TLS."""
    asked_by = listens_by(Transport.TLS, settings, units)
    if not asked_by:
        return None
    clashes = list(clashes_of(settings, Transport.TLS))
    if clashes:  # then it is not known which files are meant
        problems = [
            Problem(path=each.key, text=f"expected {each.expected}", fix="correct it", fatal=True)
            for each in clashes
        ]
        return TlsState(asked_by=asked_by, problems=tuple(problems), directory="", files=())
    from proxyd.pki.certificates import load_credentials  # noqa: PLC0415 (slow to load)
    from proxyd.pki.problems import CertificateError  # noqa: PLC0415
    from proxyd.tls.reach import of_no_verification  # noqa: PLC0415
    from proxyd.tls.server_context import problems_in_use  # noqa: PLC0415

    files = around.certificate_files(settings)
    ways = tuple(_ways(files))
    found = TlsState(
        asked_by=asked_by,
        problems=(),
        directory=_directory_of(files),
        there=frozenset(way.path for way in ways if os.path.lexists(way.path)),
        files=ways,
    )
    try:
        credentials = load_credentials(
            files, now=dt.datetime.now(dt.UTC), check=not settings.tls_no_sanity_certificate
        )
    except CertificateError as error:
        return replace(found, problems=error.problems)
    return replace(
        found,
        problems=(
            *credentials.warnings,
            *problems_in_use(credentials, settings.tls_priority),
            *of_no_verification(settings),
        ),
        until=_first_end(credentials),
        identities=tuple(_identities(credentials)),
    )


def _ways(files: "CertificateFiles") -> Iterator[Way]:
    public = [files.ca, files.crl, *(pair[0] for pair in files.pairs)]
    yield from (way_to(path, secret=False) for path in public if path)
    yield from (way_to(key, secret=True) for _, key in files.pairs)


def _directory_of(files: "CertificateFiles") -> str:
    """Where the CA can issue certificates; a host has its certificate, and seldom its key."""
    directory = files.ca.removesuffix(_CA_BELOW_PKI) if files.ca.endswith(_CA_BELOW_PKI) else ""
    return directory if os.path.exists(f"{directory}/{_CA_KEY}") else ""


def _identities(credentials: "Credentials") -> Iterator[str]:
    from proxyd.pki.content import key_kind, public_key, subject_in  # noqa: PLC0415 (see above)

    for pair in credentials.pairs:
        leaf, end = pair.certificate, pair.certificate.not_valid_after_utc
        what = f"{key_kind(public_key(leaf))}, {subject_in(leaf) or 'no subject'}"
        yield f"{pair.certificate_file}: {what}, until {end:%Y-%m-%d}"


def _first_end(credentials: "Credentials") -> str:
    shown = [pair.certificate for pair in credentials.pairs]
    ends = [each.not_valid_after_utc for each in (*shown, *credentials.authorities)]
    return f"{min(ends):%Y-%m-%d}" if ends else ""


def judge(state: HostState) -> Iterator[Finding]:
    tls = state.tls
    if tls is None:
        return
    for problem in tls.problems:
        yield _of_problem(state, tls, problem)
    for identity in tls.identities:
        yield fine("identity", f"TLS clients are shown {identity}.")
    if not tls.problems and not in_the_way(state, tls.files):
        until = f" until {tls.until}" if tls.until else ""
        yield fine("certificates", f"The certificates for TLS are in order{until}.")


def _of_problem(state: HostState, tls: TlsState, problem: Problem) -> Finding:
    if problem.fatal:
        why = f"Until then nobody is served by TLS, which {tls.asked_by} asks for."
    elif problem.path.startswith("tls_"):  # a setting
        why = "It is obeyed, and said at each start."
    else:
        why = "Sooner or later TLS clients are refused, or refuse to connect."
    say = (error if state.as_root else note) if problem.fatal else warning
    made = _CERTS.findall(problem.fix)
    is_command = problem.fix.startswith("chmod ") and "(" not in problem.fix
    command = [problem.fix if is_command else f"# {problem.fix}"]
    if made and tls.directory and (what := _verb(tls, problem, made[0])):
        directory = shlex.quote(tls.directory)
        command += [f"proxyd certs {what} --dir {directory}{_ARGUMENTS[what]}", RELOAD]
    elif made:
        command += [
            "# that takes the key of the CA, which is not here: do it where that is, and"
            " copy the files here by the command that it prints"
        ]
    return say("certificates", sentence(f"{problem.path}: {problem.text}"), why, command)


def _verb(tls: TlsState, problem: Problem, named: str) -> str:
    """What makes such a file; nothing if somebody has to decide. No CA is made in passing."""
    if named == "server" and problem.path in tls.there:
        return "renew"  # with its names, which are more than this host's own
    return named if named in _ARGUMENTS else ""
