"""proxyd install and proxyd uninstall: a host gets the files of the service, and is rid of them.

What belongs to an administrator or to a package is never changed. What an installation wrote is in
its manifest, and whatever of that is still as it was written goes away with an uninstallation.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from proxyd.deploy import layout
from proxyd.deploy.account import Account
from proxyd.deploy.completion import bash_completion
from proxyd.deploy.former import former, gave_way, giving_back
from proxyd.deploy.host import Host
from proxyd.deploy.layout import ShippedMissing
from proxyd.deploy.manifest import BadManifest, Manifest, below
from proxyd.deploy.manpage import man_page
from proxyd.deploy.plan import Action, Step, installing, uninstalling
from proxyd.deploy.program import (
    Program,
    UnfitProgram,
    command_line,
    named_program,
    this_program,
)
from proxyd.deploy.putting import carry_out_installation, carry_out_removal
from proxyd.deploy.unitfile import fitted

_PREFIX: Final = "/usr/local"
# systemd takes a unit from the first of these that has it.
_BEFORE_OURS: Final = ("/etc/systemd/system", "/run/systemd/system")
_BEHIND_OURS: Final = ("/usr/lib/systemd/system", "/lib/systemd/system")
_ALSO_OF_THE_PACKAGE: Final = ("/etc/default/", "/etc/libvirt/", "/etc/logrotate.d/")
_DAEMON_RELOAD: Final = ("systemctl", "daemon-reload")

INSTALL_DESCRIPTION: Final = (
    "Puts in place what a host needs to have proxyd as its virtproxyd service: systemd units,"
    " polkit policy, configuration, man page and shell completion. Nothing is enabled or started."
)
INSTALL_EPILOG: Final = """\
examples:
  proxyd install --dry-run             what would be written, and what is in the way
  proxyd install                       for this host; again after each upgrade of proxyd
  proxyd install --prefix /usr --destdir ./root --program /usr/sbin/proxyd
                                       for a package

A file in /etc that is not as proxyd has put it there is left alone; the new one gets the ending
.proxyd-new and lies beside it. Any other file that is in the way ends the installation before it
has begun. Units lie below the prefix, and so units of the same name that a libvirt package has
brought stay as they are: systemd prefers those of /usr/local. What is left to do depends on who
serves on the host now, and is printed at the end.
"""
UNINSTALL_DESCRIPTION: Final = (
    "Stops and disables the service, which ends its sessions, and removes what proxyd install has"
    " put in place, but for what has been changed since."
)
UNINSTALL_EPILOG: Final = """\
examples:
  proxyd uninstall --dry-run           what would be removed, and what stays
  proxyd uninstall

The group libvirt stays, as do logs, passwords and certificates. Where libvirt's own virtproxyd was
enabled or ran before the installation, it is and does so again.
"""


class InstallRefused(Exception):
    """Nothing was done; the text says why and what to do."""


def add_install_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `proxyd install`."""
    _add_common_arguments(parser)
    parser.add_argument(
        "--prefix",
        metavar="DIR",
        default=_PREFIX,
        help=f"what lies neither in /etc nor in /var goes below this (default {_PREFIX})",
    )
    parser.add_argument(
        "--program",
        metavar="FILE",
        help="the program that the units start (default: the proxyd that runs this)",
    )


def add_uninstall_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `proxyd uninstall`."""
    _add_common_arguments(parser)


def install(arguments: argparse.Namespace, whole: argparse.ArgumentParser, host: Host) -> int:
    """Installs; `whole` is the parser of all of proxyd's command line. Returns the exit status."""
    return _told(arguments, lambda: _install(arguments, whole, host))


def uninstall(arguments: argparse.Namespace, host: Host) -> int:
    """Takes everything away again. Returns the exit status."""
    return _told(arguments, lambda: _uninstall(arguments, host))


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--destdir",
        metavar="DIR",
        help="a host's root directory, or one that a package is made of (default: this host's)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    parser.add_argument("--json", action="store_true", help="print it for machines")


def _told(arguments: argparse.Namespace, do: Callable[[], Account]) -> int:
    try:
        account = do()
    except (InstallRefused, BadManifest, ShippedMissing, UnfitProgram) as error:
        account = Account(failed=str(error))
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        remedy = "; try it as root" if isinstance(error, PermissionError) else ""
        account = Account(failed=f"{what}{error.strerror}{remedy}")
    return account.tell(as_json=arguments.json)


def _install(arguments: argparse.Namespace, whole: argparse.ArgumentParser, host: Host) -> Account:
    root, elsewhere = _root(arguments, host)
    if host.package and not elsewhere:
        done = f"the package proxyd {host.package} has put all of it in place (dpkg -L proxyd)"
        return Account(notes=[done], then=_next(host, elsewhere=False))
    prefix = _prefix(arguments.prefix)
    program = named_program(arguments.program) if arguments.program else this_program()
    manifest = Manifest.load(root)
    wanted = _wanted(whole, program, root=root, prefix=prefix)
    steps = installing(wanted, manifest, root)
    refused = [step for step in steps if step.action is Action.REFUSE]
    if refused:
        return Account(steps=refused, failed="nothing was installed: see above what is in the way")
    account = Account(
        steps=steps,
        commands=[] if elsewhere else _commands_after(prefix),
        notes=[*_notes_on_program(program), *_notes_on_units(root, prefix)],
    )
    if not elsewhere and not manifest.files:
        manifest.former = dict(former(root, host))
    if not arguments.dry_run:
        root.mkdir(parents=True, exist_ok=True)
        carry_out_installation(steps, manifest, root)
        _run_all(account.commands, account, host)
    account.then = _next(host, elsewhere=elsewhere)
    return account


def _next(host: Host, *, elsewhere: bool) -> list[str]:
    if elsewhere:
        return ["# on that host, once it runs: proxyd install says what is to be done there"]
    lines = host.next_lines() if host.booted else []
    return lines or ["proxyd doctor"]


def _uninstall(arguments: argparse.Namespace, host: Host) -> Account:
    root, elsewhere = _root(arguments, host)
    manifest = Manifest.load(root)
    if not manifest.files:
        notes = ["nothing is there that proxyd install has put in place"]
        if host.package:
            notes.append(
                "what the package proxyd has put there goes with it (apt-get remove proxyd)"
            )
        return Account(notes=notes)
    steps = uninstalling(manifest, root)
    if host.package and not elsewhere:
        steps = [_left_to_the_package(step) for step in steps]
    units = [name for name in layout.SYSTEM_UNITS if any(_is_unit(step, name) for step in steps)]
    stop = ("systemctl", "disable", "--now", *units)
    account = Account(steps=steps)
    back: list[Sequence[str]] = []
    if units and not elsewhere:
        if manifest.former and host.booted and gave_way(host):
            account.notes.append("libvirtd serves here, so libvirt's own virtproxyd stays off")
        elif manifest.former:
            back = list(giving_back(manifest.former))
        account.commands = [stop, *(back or [_DAEMON_RELOAD])]
    if arguments.dry_run:
        return account
    # First of all: a service must not lose its unit file while it runs.
    if stop in account.commands and host.booted and (complaint := host.run(stop)) is not None:
        raise InstallRefused(f"nothing was removed, for `{' '.join(stop)}` has failed: {complaint}")
    carry_out_removal(steps, manifest, root)
    _run_all(account.commands[1:], account, host)
    return account


def _left_to_the_package(step: Step) -> Step:
    """The same, but for what the package has in /etc under the same name."""
    if step.action is Action.REMOVE and step.path.startswith(_ALSO_OF_THE_PACKAGE):
        return Step(Action.KEEP, step.path, "it is the package's as well")
    return step


def _root(arguments: argparse.Namespace, host: Host) -> tuple[Path, bool]:
    """Where the host's files are, and whether that is another place than this host's own."""
    if arguments.destdir == "":
        raise InstallRefused("--destdir is empty: name a directory, or leave it out for this host")
    root = Path(os.path.abspath(arguments.destdir or host.root))
    elsewhere = root != host.root
    if not elsewhere and not arguments.dry_run and host.euid != 0:
        raise InstallRefused(
            "this host's files are root's: use sudo, look with --dry-run, or give a directory of"
            " your own with --destdir"
        )
    return root, elsewhere


def _prefix(given: str) -> str:
    if not given.startswith("/") or os.path.normpath(given) == "/" or ".." in given.split("/"):
        raise InstallRefused(
            f"--prefix {given}: an absolute path is wanted, like /usr/local or /usr"
        )
    return os.path.normpath(given)


def _wanted(
    whole: argparse.ArgumentParser,
    program: Program,
    *,
    root: Path,
    prefix: str,
) -> list[layout.Item]:
    shipped = layout.shipped_directory()
    units = {
        name: fitted(
            (shipped / name).read_text(encoding="utf-8"),
            command=command_line(program),
            in_a_home=program.in_a_home is not None,
        )
        for name in layout.unit_names(shipped)
    }
    generated = {
        "share/man/man8/proxyd.8": man_page(whole),
        "share/bash-completion/completions/proxyd": bash_completion(whole),
    }
    return layout.items(shipped, units=units, generated=generated, root=root, prefix=prefix)


def _commands_after(prefix: str) -> list[Sequence[str]]:
    return [
        ("systemd-sysusers", f"{prefix}/{layout.SYSUSERS}"),
        ("systemd-tmpfiles", "--create", f"{prefix}/{layout.TMPFILES}"),
        _DAEMON_RELOAD,
    ]


def _run_all(commands: Sequence[Sequence[str]], account: Account, host: Host) -> None:
    """Run the commands, each whatever became of the others, and note what went wrong."""
    if commands and not host.booted:
        account.notes.append("systemd does not run here, so none of the commands was run")
        return
    complaints = [(command, host.run(command)) for command in commands]
    failed = [f"`{' '.join(each)}` has failed: {said}" for each, said in complaints if said]
    if failed:
        account.failed = "; ".join(failed)


def _notes_on_program(program: Program) -> Iterator[str]:
    if program.in_a_home is not None:
        yield (
            f"{program.in_a_home} is in a home directory, so the service may read them"
            " (ProtectHome=read-only); from /opt or /usr/local it need not"
        )
    changeable = program.changeable()
    if changeable is not None:
        yield f"{changeable}: who can write there decides what root runs here; let it be root alone"


def _notes_on_units(root: Path, prefix: str) -> Iterator[str]:
    ours = f"{prefix}/lib/systemd/system"
    seen = {below(root, ours).resolve()}
    for directory in (*_BEFORE_OURS, *_BEHIND_OURS):
        there = [name for name in layout.SYSTEM_UNITS if _exists(root, f"{directory}/{name}")]
        real = below(root, directory).resolve()  # /lib may be /usr/lib
        if not there or real in seen:
            continue
        seen.add(real)
        names = ", ".join(there)
        if directory in _BEFORE_OURS:
            yield f"{directory} has {names}, which systemd prefers to proxyd's: remove them"
        else:
            yield f"{directory} has {names} of a package; systemd prefers proxyd's in {ours}"


def _exists(root: Path, path: str) -> bool:
    return os.path.lexists(below(root, path))


def _is_unit(step: Step, name: str) -> bool:
    return step.path.endswith(f"/systemd/system/{name}")
