"""Reads the configuration file and finds out what it says, for start, reload and check."""

import grp
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from proxyd.config.grammar import MAX_FILE_BYTES, ConfigError
from proxyd.config.quoting import excerpt
from proxyd.config.settings import Settings
from proxyd.config.sources import (
    Doubt,
    Examined,
    Loaded,
    examine,
    examine_environment,
    with_doubts_of_logging,
    with_verbose,
)
from proxyd.daemon.places import Places
from proxyd.process.exit_status import Exit, StartFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where settings come from. A default file may be missing, a named one may not."""

    path: str
    named: bool
    verbose: bool
    privileged: bool
    environ: Mapping[str, str]

    def load(self) -> Loaded:
        """What is in force now. Raises StartFailed; reads a file."""
        examined = self.examine()
        if examined.faults:
            raise StartFailed(Exit.FAILED, unloadable(examined.faults[0]))
        return examined.loaded

    def examine(self) -> Examined:
        """The same with everything in it that cannot be obeyed. Raises StartFailed."""
        file = examine(self._text(), self.path, privileged=self.privileged)
        examined = examine_environment(file.loaded, self.environ)
        loaded = with_verbose(examined.loaded) if self.verbose else examined.loaded
        loaded = with_doubts_of_logging(_with_doubt_of_directory(loaded))
        return Examined(loaded=loaded, faults=(*file.faults, *examined.faults))

    def _text(self) -> str:
        try:
            with Path(self.path).open("rb") as file:
                # One byte more than allowed, so that the grammar can say that it is too much.
                raw = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError as error:
            if not self.named:
                return ""
            raise StartFailed(
                Exit.FAILED, f"cannot load the configuration: there is no file {self.path}"
            ) from error
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise StartFailed(
                Exit.FAILED,
                f"cannot load the configuration: {self.path}: {reason}; let this user read it or"
                " name another file with --config",
            ) from error
        return raw.decode("utf-8", "surrogateescape")


def _with_doubt_of_directory(loaded: Loaded) -> Loaded:
    """It may be made later, so it is no fault; until then no daemon is found."""
    directory = loaded.settings.proxyd_backend_dir
    path, _, line = loaded.origins["proxyd_backend_dir"].rpartition(":")
    if directory is None or os.path.isdir(directory) or not line.isdecimal():
        return loaded
    text = (
        f"proxyd_backend_dir = {excerpt(directory)}: there is no such directory, so no daemon is"
        " found; make it, or leave the key out"
    )
    doubt = Doubt(path, int(line), 1, "proxyd_backend_dir", text)
    doubts = sorted([*loaded.doubts, doubt], key=lambda each: (each.line, each.column))
    return replace(loaded, doubts=tuple(doubts))


def unloadable(fault: ConfigError) -> str:
    """What is said of something in a file that cannot be obeyed."""
    return f"cannot load the configuration: {fault}"


def source_of(
    named: str | None, places: Places, environ: Mapping[str, str], *, verbose: bool = False
) -> Source:
    """The file that somebody named on the command line, or the usual one of the place."""
    return Source(
        path=os.path.abspath(named or places.config_file),
        named=named is not None,
        verbose=verbose,
        privileged=places.privileged,
        environ=dict(environ),
    )


def load_checked(source: Source) -> Loaded:
    """Settings that a daemon can start with. Raises StartFailed; may block."""
    loaded = source.load()
    demand_what_exists(loaded.settings)
    return loaded


def demand_what_exists(settings: Settings) -> None:
    """Raises StartFailed for a group that is missing."""
    group_id(settings.unix_sock_group)


def group_id(group: str | None) -> int | None:
    """The gid of `unix_sock_group`; root's, the default, needs no chown."""
    if group is None:
        return None
    number = group.removeprefix("+")
    if number.isdecimal() and number.isascii():
        return int(number)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise StartFailed(
            Exit.NETWORK,
            f"unix_sock_group = {excerpt(group)}: there is no such group; run: groupadd --system"
            f" {shlex.quote(group)}",
            key="unix_sock_group",
        ) from error
