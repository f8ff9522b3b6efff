"""Reads the configuration file and finds out what it says, for start, reload and check."""

import grp
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proxyd.config.grammar import MAX_FILE_BYTES, ConfigError
from proxyd.config.loading import Loaded, load, with_environment, with_verbose
from proxyd.config.settings import Settings
from proxyd.daemon.exits import Exit, StartFailed
from proxyd.daemon.places import Places


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
        try:
            loaded = load(self._text(), self.path, privileged=self.privileged)
            loaded = with_environment(loaded, self.environ)
        except ConfigError as error:
            raise StartFailed(Exit.FAILED, f"cannot load the configuration: {error}") from error
        return with_verbose(loaded) if self.verbose else loaded

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
            f'unix_sock_group = "{group}": there is no such group; run: groupadd --system {group}',
        ) from error
