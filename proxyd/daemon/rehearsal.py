"""A start short of serving, for `--check-config`: every fault, each with its place.

All that a start does is done: the file is read, names are resolved, files are opened, certificates
tried out, ports bound. Nothing is made, and what a proxyd that runs here holds, or systemd for it,
is taken for what the next one will have. Nobody is connected to: that would wake what sleeps.
"""

import functools
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from proxyd.audit import outputs as audit_outputs
from proxyd.config.agreement import clashes_of
from proxyd.config.grammar import ConfigError
from proxyd.config.kinds import When
from proxyd.config.listeners import (
    admin_listenings,
    network_listening,
    sasl_transports,
    unix_listenings,
)
from proxyd.config.logstrings import parse_outputs
from proxyd.config.settings import SPECS, Settings
from proxyd.config.sources import Examined
from proxyd.config.transports import BY_NETWORK, Transport
from proxyd.daemon.audit_settings import asked_output
from proxyd.daemon.entrances import load_sasl_for, load_tls_for, socket_directory
from proxyd.daemon.in_force import Options
from proxyd.daemon.load_config import demand_what_exists, unloadable
from proxyd.daemon.load_rules import load_rules
from proxyd.daemon.log_settings import absolute
from proxyd.listen.network import try_network_listeners
from proxyd.listen.unix import ListenerError, demand_room
from proxyd.log.outputs import LogOutputError, demand_writable
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.process.pidfile import PidFileError, demand_pid_file
from proxyd.process.sockets import command_line

_SYSTEMD: Final = 1
_WORDS_OF_PROGRAM: Final = 3  # an interpreter, -m, the program
_TLS_FILES: Final = ("key_file", "cert_file", "ca_file", "crl_file", "proxyd_more_certificates")
_SASL: Final = ("proxyd_sasl_mechanisms", "proxyd_keytab", "proxyd_passwords")


@dataclass(frozen=True, slots=True)
class Fault:
    """What keeps a daemon from starting, or a way in from being served.

    `place` is FILE:LINE:COLUMN of the value that is to blame, FILE if there is none, or "" where
    the text has it.
    """

    place: str
    key: str
    text: str
    stops: bool

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        after = "" if self.stops else " (a daemon starts, and serves all other clients)"
        return f"{where}{self.text}{after}"


def rehearse(examined: Examined, options: Options) -> list[Fault]:
    """Everything that is wrong, first what stands in the file. Reads files, tries things out."""
    found = [
        Fault("", error.key, unloadable(error), stops=True)
        for error in sorted(examined.faults, key=_by_place)
    ]
    return [*found, *_Rehearsal(examined, options).faults()]


def _by_place(error: ConfigError) -> tuple[int, int]:
    return error.line, error.column


class _Rehearsal:
    """The parts of a start, one after the other, in its order."""

    def __init__(self, examined: Examined, options: Options) -> None:
        self._loaded = examined.loaded
        self._settings = examined.loaded.settings
        self._options = options
        # What a key says that cannot be read is not known: nothing is said that hangs on it.
        self._unread = {error.key for error in examined.faults}

    def faults(self) -> Iterator[Fault]:
        settings, options = self._settings, self._options
        yield from self._of_start(_try_logs, ("log_outputs",))
        yield from self._of_start(_try_audit, ("proxyd_audit_output",))
        yield from self._of_start(lambda *_: demand_what_exists(settings), ("unix_sock_group",))
        yield from self._of_start(_try_rules, ("proxyd_rules_file",))
        yield from self._of_start(_try_places)
        for transport in BY_NETWORK:
            yield from self._of_network(transport)
        sasl = sasl_transports(settings, privileged=options.places.privileged)
        for transport, key in sasl.items():
            load = functools.partial(load_sasl_for, settings, options.places, transport, key)
            yield from self._of_way(load, (key, *_SASL))
        yield from self._of_start(_try_sockets, ("unix_sock_dir",))

    def _of_network(self, transport: Transport) -> Iterator[Fault]:
        settings = self._settings
        if not getattr(settings, transport.traits.listen):
            return
        clashing = set()
        for clash in clashes_of(settings, transport):
            clashing.add(SPECS[clash.key].effect.when)
            if clash.key not in self._unread:
                yield self._fault(clash.key, f"expected {clash.expected}", stops=False)
        keys = [key for key in SPECS if transport.traits.listen in SPECS[key].use.switches]
        if transport is Transport.TLS and When.RELOAD not in clashing:
            load = functools.partial(load_tls_for, settings, self._options.places)
            yield from self._of_way(load, (*keys, *_TLS_FILES))
        if When.START not in clashing:
            yield from self._of_way(functools.partial(_try_port, settings, transport), keys)

    def _of_start(
        self, act: Callable[[Settings, Options], object], hangs_on: Collection[str] = ()
    ) -> Iterator[Fault]:
        """What keeps a daemon from starting."""
        return self._of(functools.partial(act, self._settings, self._options), hangs_on, stops=True)

    def _of_way(self, act: Callable[[], object], hangs_on: Collection[str]) -> Iterator[Fault]:
        """What one way in is broken by."""
        return self._of(act, hangs_on, stops=False)

    def _of(
        self, act: Callable[[], object], hangs_on: Collection[str], *, stops: bool
    ) -> Iterator[Fault]:
        if self._unread.intersection(hangs_on):
            return
        try:
            act()
        except StartFailed as error:
            for key, text in error.causes:
                yield self._fault(key, text, stops=stops)

    def _fault(self, key: str, text: str, *, stops: bool) -> Fault:
        stops = stops or self._settings.proxyd_strict_start
        return Fault(self._place(key), key, text, stops)

    def _place(self, key: str) -> str:
        """Where its value stands, or that of what makes it count."""
        for each in (key, *(SPECS[key].use.switches if key in SPECS else ())):
            if each in self._loaded.places:
                return self._loaded.places[each]
        return self._options.source.path


def _try_logs(settings: Settings, options: Options) -> None:
    for output in absolute(parse_outputs(settings.log_outputs or ""), options.directory):
        if output.kind == "file" and output.target:
            try:
                demand_writable(output.target)
            except LogOutputError as error:
                text = f"cannot log: {error}"
                raise StartFailed(Exit.FAILED, text, key="log_outputs") from error


def _try_places(_: Settings, options: Options) -> None:
    if not options.pid_file:
        return
    if os.path.dirname(options.pid_file) == options.places.runtime_dir:
        return  # which is made
    try:
        demand_pid_file(options.pid_file)
    except PidFileError as error:
        raise StartFailed(Exit.FAILED, str(error)) from error


def _try_audit(settings: Settings, options: Options) -> None:
    asked = asked_output(settings, options.places, options.directory)
    if not settings.proxyd_audit or settings.proxyd_audit_output is None or not asked.target:
        return
    if asked.kind != "file":
        return
    try:
        audit_outputs.demand_writable(asked.target)
    except audit_outputs.AuditOutputError as error:
        text = f"cannot record: {error}"
        raise StartFailed(Exit.FAILED, text, key="proxyd_audit_output") from error


def _try_rules(settings: Settings, _: Options) -> None:
    load_rules(settings)


def _try_port(settings: Settings, transport: Transport) -> None:
    asked = network_listening(settings, transport)
    assert asked is not None
    try:
        try_network_listeners(asked, _is_own)
    except ListenerError as error:
        raise StartFailed(Exit.NETWORK, str(error), key=asked.key) from error


def _try_sockets(settings: Settings, options: Options) -> None:
    directory = socket_directory(settings, options)
    if not settings.unix_sock_dir and not os.path.lexists(directory):
        _demand_creatable(directory)
        return
    asked = [
        *unix_listenings(settings, privileged=options.places.privileged, directory=directory),
        *admin_listenings(settings, directory=directory),
    ]
    causes = []
    for each in asked:
        try:
            demand_room(each.path, _is_own)
        except ListenerError as error:
            causes.append(("unix_sock_dir", str(error)))
            if not os.path.isdir(directory):
                break  # the same is true of all
    if causes:
        raise StartFailed(Exit.NETWORK, causes[0][1], key="unix_sock_dir", causes=causes)


def _demand_creatable(directory: str) -> None:
    above = os.path.dirname(directory)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above) or not os.access(above, os.W_OK | os.X_OK):
        raise StartFailed(
            Exit.RUN_DIR,
            f"cannot make the run-time directory {directory}: {above} cannot be written to; let"
            " this user write there, or set unix_sock_dir or XDG_RUNTIME_DIR",
            key="unix_sock_dir",
        )


def _is_own(pid: int) -> bool:
    """Whether it is a proxyd, or systemd, which holds sockets for others."""
    if pid == _SYSTEMD:
        return True
    words = command_line(pid)[:_WORDS_OF_PROGRAM]
    return any(os.path.basename(word) == "proxyd" for word in words)
