"""How a client is met, before its first frame: on which endpoint, and who it is.

Each kind of listener has its own way: `local.py` asks the kernel, `securing.py` makes a TLS
handshake.
"""

from collections.abc import Mapping
from typing import Protocol

from proxyd.endpoint.contract import Endpoint
from proxyd.session.roster import Client
from proxyd.wire.failure import Failure


class Untrusted(Exception):
    """Who connected may not come in; the text says why, for the log."""


class Greeting(Protocol):
    """One accepted connection. `step` is what is going on, for the log if it takes too long."""

    step: str
    bindings: Mapping[str, bytes]  # what tells a TLS connection from others (RFC 5929), once met

    @property
    def endpoint(self) -> Endpoint:
        """The same from the beginning; closing it ends the connection."""

    async def meet(self, client: Client) -> Failure | None:
        """Finds out who it is and writes that down in `client`.

        Returns what its calls are answered with if that is known and has no name here. Raises
        Untrusted and HungUp.
        """
