"""From a client's CONNECT_OPEN to its daemon's connection: where to, whether it may, and open.

The rules are asked when it is known where the name leads, and before anybody is connected to.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from proxyd.autostart.starter import Starter
from proxyd.config.routes import Destination, RoutingTable, Unroutable
from proxyd.endpoint.contract import Endpoint
from proxyd.negotiation.events import WantsOpen
from proxyd.rules.grant import Level
from proxyd.session.backend import open_backend
from proxyd.session.roster import Client
from proxyd.session.rulings import Rulings
from proxyd.wire import failure
from proxyd.wire.remote import OPEN_READONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """`routes` gives what is in force right now."""

    routes: Callable[[], RoutingTable]
    starter: Starter
    rulings: Rulings

    async def open(self, client: Client, wanted: WantsOpen) -> Endpoint:
        """The daemon's connection, and in the client what it is: where, by which rule, how far.

        Raises Unroutable, Forbidden and OpenFailed.
        """
        arguments = wanted.arguments
        readonly = bool(arguments.flags & OPEN_READONLY)
        destination = self._route(arguments.name, readonly=readonly)
        client.uri, client.backend = destination.name, destination.path
        ruling = await self.rulings.decide(client, destination.name)
        self.rulings.demand_room(client, ruling)
        if ruling is not None and ruling.grant.level is Level.READ and not readonly:
            # Whatever it has asked for: then the daemon sees to it, too.
            readonly = True
            destination = self._route(destination.name, readonly=True)
            client.backend = destination.path
        client.ruling, client.readonly = ruling, readonly
        return await open_backend(
            destination,
            arguments.flags | (OPEN_READONLY if readonly else 0),
            client.identity,
            keepalive=wanted.keepalive,
            starter=self.starter,
        )

    def _route(self, name: str | None, *, readonly: bool) -> Destination:
        table = self.routes()
        return table.resolve(name or self._probe(table, readonly=readonly), readonly=readonly)

    def _probe(self, table: RoutingTable, *, readonly: bool) -> str:
        """An empty name: the first daemon whose socket is there, or that could be started."""
        probed = list(table.probed(readonly=readonly))
        for path, name in probed:
            if os.path.exists(path):
                return name
        for _, name in probed:
            if self.starter.can_start(table.resolve(name, readonly=readonly)):
                return name
        raise Unroutable(failure.not_open())
