"""A socket that listens, whoever opened it: this daemon or systemd."""

import socket
from typing import NamedTuple

from proxyd.config.listeners import Door


class Listener(NamedTuple):
    """Non-blocking. `door` says what is asked of whoever comes in by it."""

    sock: socket.socket
    door: Door
