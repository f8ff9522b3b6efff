"""What the daemon was asked for, and what of it is in force right now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxyd.config.listeners import Door
from proxyd.config.routes import RoutingTable
from proxyd.config.settings import Settings
from proxyd.config.transports import Transport
from proxyd.daemon.load_config import Source
from proxyd.daemon.places import Places
from proxyd.daemon.ways import Trouble
from proxyd.listen.activation import Recognised
from proxyd.listen.listener import Listener
from proxyd.listen.unix import UnixListener
from proxyd.rules.table import RuleTable

if TYPE_CHECKING:  # these bring libraries with them that not every host need carry
    from proxyd.sasl.mechanisms import Offering
    from proxyd.tls.server_context import ServerTls


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line, understood. `idle_exit_s` 0 means never; `pid_file` "" means none.

    `directory` is where relative paths in the settings start from.
    """

    source: Source
    places: Places
    pid_file: str
    directory: str
    background: bool
    idle_exit_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """What holds at one time. A reload makes another one; nothing ever changes within."""

    settings: Settings
    at_start: Settings  # what the file said then, where systemd has the last word
    routes: RoutingTable
    rules: RuleTable | None  # None: whoever is let in may do everything
    tls: "ServerTls | None"
    offerings: "Mapping[Transport, Offering]"
    descriptor_room: int  # sessions that the limit of open descriptors allows
    troubles: Sequence[Trouble] = ()  # ways in that are not served
    listeners: Sequence[Listener] = ()
    admin_listeners: Sequence[Listener] = ()
    services: Sequence[Recognised] = ()  # the sockets among them that systemd made
    files: Sequence[UnixListener] = ()  # and those that this daemon made at a path


@dataclass(slots=True)
class Current:
    """The one reference to what is in force: read where it is needed, swapped by a reload.

    The control plane's thread alone does either.
    """

    now: InForce

    def trouble_of(self, door: Door) -> Trouble | None:
        """Why nobody can be let in there at present."""
        return next((each for each in self.now.troubles if each.concerns(door)), None)
