"""What to do next, with commands to copy: printed after something was made."""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from proxyd.config.grammar import render
from proxyd.config.quoting import one_line
from proxyd.invocation import own_command
from proxyd.pki.fitness import Purpose, spelled

from .authority import Authority, Issued, Revoked
from .options import PROGRAM
from .places import OF_A_USER, SYSTEM, Places

# Under systemd a service that does not run has nothing to reload: the next client's reads it anew.
_RELOAD = "systemctl try-reload-or-restart virtproxyd  # without systemd: a SIGHUP"
# A port is a socket of its own, and systemd opens none for a service that runs.
_LISTEN = (
    "systemctl stop virtproxyd.service",
    "systemctl enable --now virtproxyd-tls.socket",
)


def after_init(authority: Authority) -> Iterator[str]:
    """The CA's own rules, and the first certificate."""
    # To be pasted here, in any directory; what is for another host has the plain name.
    directory, command = _quoted(authority.places.root), f"{own_command()} certs"
    yield f"wrote {authority.places.ca}"
    yield f"wrote {authority.store.key}"
    yield ""
    yield f"{authority.store.private} can issue certificates to anybody:"
    yield "keep it off the servers, and keep a backup."
    yield ""
    yield "next:"
    yield f"    {command} server --dir {directory} HOST"
    yield f"    {command} client --dir {directory} USER --flat ./USER"


def after_issue(issued: Issued) -> Iterator[str]:
    """What was written, what it says, and where it has to go."""
    yield from (f"wrote {path}" for path in issued.written)
    yield ""
    yield f"subject  {one_line(issued.record.subject)}"
    if issued.record.purpose is Purpose.SERVER:
        yield f"names    {', '.join(issued.record.names)}"
    yield f"serial   {issued.record.number}"
    yield f"until    {spelled(issued.record.ends)}"
    yield ""
    yield from _of_server(issued) if issued.record.purpose is Purpose.SERVER else _of_client(issued)


def after_revocation(revoked: Revoked) -> Iterator[str]:
    """Who was shut out, and that the servers have to be told."""
    for record in revoked.now:
        yield f"revoked {record.number}, {one_line(record.subject)}"
    for record in revoked.before:
        if record.revocation:
            when = spelled(record.revocation.at)
            yield f"{record.number}, {one_line(record.subject)}, was revoked on {when} already"
    yield from after_list(revoked.crl_file)


def after_list(crl_file: Path) -> Iterator[str]:
    """Where the list has to go."""
    yield f"wrote {crl_file}"
    yield ""
    yield "next:"
    target = SYSTEM / "CA/cacrl.pem"
    if crl_file == target:
        yield f"    {_RELOAD}"
        return
    yield f"    scp {_quoted(crl_file)} root@HOST:{target}"
    yield "on each HOST:"
    yield f"    {_RELOAD}"


def _of_server(issued: Issued) -> Iterator[str]:
    host = issued.record.names[0]
    yield "next:"
    if issued.places.root != SYSTEM:
        yield f"    {_copy(issued, host if '*' not in host else 'HOST', SYSTEM)}"
        yield "on that host:"
    yield f"    {PROGRAM} check --role server --host {shlex.quote(host)}"
    yield "if that host serves TLS already:"
    yield f"    {_RELOAD}"
    yield "if it does not yet, where systemd makes the sockets (this ends sessions):"
    yield from (f"    {line}" for line in _LISTEN)
    yield "and where proxyd makes them itself: listen_tls = 1 in virtproxyd.conf, and start it anew"


def _of_client(issued: Issued) -> Iterator[str]:
    yield "to let in only whom you name, in virtproxyd.conf:"
    yield f"    {allowed(issued.record.subject)}"
    yield ""
    yield "next:"
    places = issued.places
    if issued.key_file.parent == places.root:  # all in one directory
        yield f"    virsh -c {shlex.quote(_uri(places))} list"
        yield "or, for a user of another host:"
        yield f"    {_copy(issued, 'USER@HOST', OF_A_USER)}"
        yield "    virsh -c qemu+tls://SERVER/system list"
        return
    if places.root != SYSTEM:
        yield f"    {_copy(issued, 'HOST', SYSTEM)}"
    yield "on that host, as root:"
    yield "    virsh -c qemu+tls://SERVER/system list"


def allowed(subject: str) -> str:
    """The line of the configuration that lets this client in and nobody else."""
    return f"tls_allowed_dn_list = {render((subject,))}"


def _uri(places: Places) -> str:
    return f"qemu+tls://SERVER/system?pkipath={quote(str(places.root.absolute()))}"


def _copy(issued: Issued, host: str, to: Path) -> str:
    """One command that takes the files over, with their modes and nothing else of the tree."""
    places = issued.places
    wanted = [places.ca, issued.cert_file, issued.key_file]
    if places.crl.exists():
        wanted.append(places.crl)
    names = shlex.join(_with_directories(path.relative_to(places.root) for path in wanted))
    target = shlex.quote(str(to))
    login = host if "@" in host else f"root@{host}"
    # Without the owner and group that the files have here.
    tar = f"tar -C {_quoted(places.root)} -cf - --owner=0 --group=0 --no-recursion {names}"
    remote = f"umask 077; mkdir -p {target} && tar -C {target} -xpf -"
    if to == SYSTEM:
        remote = f"mkdir -p {target} && tar -C {target} -xpf -"
    return f"{tar} | ssh {login} {shlex.quote(remote)}"


def _with_directories(paths: Iterable[Path]) -> list[str]:
    """The paths, each directory before what is in it."""
    found: dict[str, None] = {}
    for path in paths:
        for parent in reversed(path.parents[:-1]):
            found[str(parent)] = None
        found[str(path)] = None
    return list(found)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path.absolute()))
