"""How a client is met, before its first frame: on which endpoint, and who it is.

Each kind of listener has its own way: `unix_greeting.py` asks the kernel, `tls_greeting.py` makes
a TLS handshake.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from proxyd.endpoint.contract import Endpoint
from proxyd.negotiation.identity import ClientIdentity
from proxyd.peer.credentials import Denied, Subject
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

    def process(self, identity: ClientIdentity) -> AbstractContextManager[Subject]:
        """The process that connected, for polkit, while the block lasts. Raises Denied."""


def no_process(_: Greeting, _identity: ClientIdentity) -> AbstractContextManager[Subject]:
    """Of a client of the network. No listener there may ask polkit (config/checks.py)."""
    raise Denied("who connected is on another host")
