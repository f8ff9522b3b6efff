"""Meets a client of the network that comes without TLS: it has an address and no name yet.

Who it is, and what keeps its bytes secret, comes of SASL; with `auth_tcp = "none"` nothing does.
"""

import socket
from collections.abc import Mapping
from types import MappingProxyType

import trio

from proxyd.endpoint.plain import PlainEndpoint
from proxyd.session.greeting import no_process
from proxyd.session.roster import Client


class TcpGreeting:
    """An accepted TCP connection. Owns the socket."""

    step = "learning its address"
    bindings: Mapping[str, bytes] = MappingProxyType({})
    process = no_process

    def __init__(self, sock: socket.socket, address: str) -> None:
        self.endpoint = PlainEndpoint(sock)
        self._address = address

    async def meet(self, client: Client) -> None:
        client.address = self._address
        await trio.lowlevel.checkpoint()
