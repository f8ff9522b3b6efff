"""What the daemon was asked for, and what of it is in force right now."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxyd.config.listening import Door, Transport
from proxyd.config.routes import RoutingTable
from proxyd.config.settings import Settings
from proxyd.daemon.loaded import Source
from proxyd.daemon.places import Places

if TYPE_CHECKING:  # these bring libraries with them that not every host need carry
    from proxyd.auth.offering import Offering
    from proxyd.auth.server_tls import ServerTls


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


@dataclass(slots=True, kw_only=True)
class InForce:
    """What a reload replaces: read where it is needed, swapped as a whole."""

    settings: Settings
    at_start: Settings  # what the file said then, where systemd has the last word
    routes: RoutingTable
    tls: "ServerTls | None"
    offerings: "Mapping[Transport, Offering]"
    descriptor_room: int  # sessions that the limit of open descriptors allows
    doors: Sequence[tuple[socket.socket, Door]] = ()
    admin_doors: Sequence[tuple[socket.socket, Door]] = ()
