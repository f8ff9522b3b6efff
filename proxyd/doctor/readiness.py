"""Judges the configuration, certificates, SASL and polkit."""

import re
import shlex
from collections.abc import Iterator
from itertools import chain
from typing import Final

from proxyd.auth.problems import Problem
from proxyd.doctor.findings import Finding, error, fine, note, sentence, warning
from proxyd.doctor.reading import RELOAD, in_the_way
from proxyd.doctor.state import HostState, PolkitState, SaslState, TlsState

# What `certs` makes, and the arguments that it needs for that.
_CERTS: Final = re.compile(r"python -m certs (init|server|crl)")
_ARGUMENTS: Final = {"init": "", "server": ' "$(hostname -f)"', "crl": ""}


def judge(state: HostState) -> Iterator[Finding]:
    return chain(_tls(state), *(_sasl(state, each) for each in state.sasl), _polkit(state))


def of_configuration(state: HostState) -> Iterator[Finding]:
    """What is wrong with the file, or odd in it."""
    configuration = state.configuration
    if configuration.trouble:
        check = f"proxyd --check-config -f {shlex.quote(configuration.path)}"
        yield (
            error(
                "configuration",
                sentence(configuration.trouble),
                "With this file proxyd does not start, and a reload changes nothing. The rest was"
                " looked at with the defaults.",
                ["# correct it, then", check],
            )
            if state.as_root
            else note(
                "configuration",
                sentence(configuration.trouble),
                "It may be that root can read it. The rest was looked at with the defaults.",
                [f"sudo {check}"],
            )
        )
        return
    for doubt in configuration.doubts:
        yield warning(
            "configuration-doubt",
            sentence(doubt),
            "What is written there does nothing.",
            [f"# correct {configuration.path}, then", RELOAD],
        )
    if not configuration.doubts and not in_the_way(state, configuration.files):
        yield fine("configuration", f"The configuration ({configuration.path}) is in order.")


def _tls(state: HostState) -> Iterator[Finding]:
    tls = state.tls
    if tls is None:
        return
    for problem in tls.problems:
        yield _of_problem(state, tls, problem)
    if not tls.problems and not in_the_way(state, tls.files):
        until = f" until {tls.until}" if tls.until else ""
        yield fine("certificates", f"The certificates for TLS are in order{until}.")


def _of_problem(state: HostState, tls: TlsState, problem: Problem) -> Finding:
    if problem.fatal:
        why = f"proxyd does not start while {tls.asked_by} asks for TLS."
    else:
        why = "Sooner or later TLS clients are refused, or refuse to connect."
    say = (error if state.as_root else note) if problem.fatal else warning
    made = _CERTS.findall(problem.fix)
    is_command = problem.fix.startswith("chmod ") and "(" not in problem.fix
    command = [problem.fix if is_command else f"# {problem.fix}"]
    if made and tls.directory:
        what = made[0]
        directory = shlex.quote(tls.directory)
        command += [f"python -m certs {what} --dir {directory}{_ARGUMENTS[what]}", RELOAD]
    return say("certificates", sentence(f"{problem.path}: {problem.text}"), why, command)


def _sasl(state: HostState, sasl: SaslState) -> Iterator[Finding]:
    if not sasl.trouble:
        if not in_the_way(state, sasl.files):
            names = ", ".join(sasl.offered)
            yield fine("sasl", f"Clients by {sasl.transport} are offered {names}.")
        if sasl.kerberos_missing:
            yield note(
                "no-kerberos",
                f"Kerberos is not offered by {sasl.transport}: {sasl.kerberos_missing}.",
                "Where it is not wanted, proxyd_sasl_mechanisms says so and ends this note.",
                _new_key(sasl),
            )
        return
    fix = _new_key(sasl) if sasl.kerberos_missing else []
    if sasl.passwords:
        fix += ["# for users with a password", "proxyd passwd NAME"]
    say = error if state.as_root else note
    yield say(
        "sasl",
        sentence(f"{sasl.asked_by}: {sasl.trouble}"),
        "proxyd does not start while nobody could come in this way.",
        fix,
    )


def _new_key(sasl: SaslState) -> list[str]:
    keytab = f" -k {shlex.quote(sasl.keytab)}" if sasl.keytab else ""
    return [
        "# as an administrator of the realm",
        'kadmin -q "addprinc -randkey libvirt/$(hostname -f)"',
        f'kadmin -q "ktadd{keytab} libvirt/$(hostname -f)"',
    ]


def _polkit(state: HostState) -> Iterator[Finding]:
    polkit = state.polkit
    if polkit is None:
        return
    if polkit.trouble:
        yield _without_polkit(polkit)
    elif polkit.missing:
        names = ", ".join(polkit.missing)
        yield error(
            "polkit-actions",
            f"polkit does not know {names}.",
            f"{polkit.asked_by} asks it about everybody but root, and it refuses what it does not"
            " know.",
            ["proxyd install"],
        )
    else:
        yield fine("polkit", "polkit answers and knows libvirt's actions.")


def _without_polkit(polkit: PolkitState) -> Finding:
    return error(
        "polkit",
        sentence(polkit.trouble),
        f"{polkit.asked_by} asks polkit about everybody but root; without an answer all of them"
        " are refused.",
        [
            "systemctl start dbus.socket polkit.service",
            '# or, without polkit: auth_unix_rw = "none" and a group in unix_sock_group',
        ],
    )
