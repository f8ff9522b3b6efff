"""An entrance for clients: where they come in, what is asked of them there, how they are met."""

import socket
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from proxyd.config.listeners import Door
from proxyd.session.greeting import Greeting

# Raises OSError for a client of the network that has gone already. The greeting owns the socket.
Greet: TypeAlias = Callable[[socket.socket], Greeting]


class Entrance(NamedTuple):
    """Made once, at the start (daemon/entrances.py); what a reload changes `greet` looks up."""

    listener: socket.socket
    door: Door
    greet: Greet
