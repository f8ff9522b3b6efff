"""Tries again what is broken of a way in: certificates, keytab, port (ways.py decides when).

A reload does so as well, with what the file says by then; here the settings in force count.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from proxyd.config.transports import Transport
from proxyd.daemon.entrances import attempted, load_offerings, load_tls_for, open_ports
from proxyd.daemon.in_force import Current, Options
from proxyd.daemon.reload import Reloader, going_on, tell, tell_of_changes
from proxyd.daemon.ways import Part, Patience, Trouble
from proxyd.listen.listener import Listener

if TYPE_CHECKING:
    from proxyd.sasl.mechanisms import Offering
    from proxyd.tls.server_context import ServerTls

log = logging.getLogger("daemon.virtproxyd")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mended:
    """What there is after one more try."""

    tls: "ServerTls | None"
    offerings: "dict[Transport, Offering]"
    ports: Sequence[Listener]
    troubles: Sequence[Trouble]
    given_back: ExitStack  # closes the ports


class Mender:
    """`run` is a task of the daemon; `look` tells it that there is, or is no longer, a trouble."""

    def __init__(self, current: Current, options: Options, reloader: Reloader) -> None:
        self._current = current
        self._options = options
        self._reloader = reloader
        self._patience = Patience()
        self._looked = trio.Event()
        self._known: Sequence[Trouble] = ()

    def look(self) -> None:
        self._looked.set()
        self._looked = trio.Event()

    async def run(self) -> None:
        """For ever. Whoever starts it has told of what is broken by then."""
        while True:
            looked, troubles = self._looked, self._current.now.troubles
            if not troubles:
                self._known = ()
            elif any(all(not each.is_same_as(known) for known in self._known) for each in troubles):
                self._patience.begin(trio.current_time())
                self._known = troubles
            with trio.move_on_at(self._patience.try_at if troubles else math.inf):
                await looked.wait()
                continue
            async with self._reloader.meanwhile():
                await self._try_again()

    async def _try_again(self) -> None:
        before = self._current.now.troubles
        try:
            new = await trio.to_thread.run_sync(self._tried, before, abandon_on_cancel=True)
        except Exception:  # as around a reload: what is served outlives it
            log.exception("trying again what is broken failed by an error of proxyd's own")
            self._patience.failed(trio.current_time())
            return
        now = self._current.now
        self._current.now = replace(
            now,
            tls=new.tls,
            offerings=new.offerings,
            troubles=new.troubles,
            listeners=(*now.listeners, *new.ports),
        )
        tell_of_changes(before, new.troubles)
        if new.troubles and self._patience.failed(trio.current_time()):
            for each in new.troubles:
                tell(each, logging.WARNING)
        self._known = new.troubles
        self._reloader.opened(new.ports, new.given_back)
        self._reloader.on_change()

    def _tried(self, troubles: Iterable[Trouble]) -> _Mended:
        now, places = self._current.now, self._options.places
        settings, tls, offerings = now.settings, now.tls, dict(now.offerings)
        parts = {each.part for each in troubles}
        found: list[Trouble] = []
        if Part.CERTIFICATES in parts:
            loaded = attempted(
                lambda: load_tls_for(settings, places), Transport.TLS, Part.CERTIFICATES
            )
            if isinstance(loaded, Trouble):
                found.append(loaded)
            else:
                tls = loaded
        if Part.SASL in parts:
            offered, unoffered = load_offerings(settings, places)
            known = {each.transport for each in troubles if each.part is Part.SASL}
            # Of the others, what is in force stays: they may be broken by now.
            offerings |= {key: value for key, value in offered.items() if key in known}
            found += [each for each in unoffered if each.transport in known]
        closed = [each.transport for each in troubles if each.part is Part.PORT]
        with ExitStack() as given_back:
            ports, unopened = open_ports(settings, given_back, closed)
            return _Mended(
                tls=tls,
                offerings=offerings,
                ports=ports,
                troubles=tuple(going_on(troubles, [*found, *unopened])),
                given_back=given_back.pop_all(),
            )
