"""The pages while the daemon runs: what is on them, and the listener that they are served at.

A page of metrics is read from the daemon in its own thread and written out in another one, once
for all who ask at about the same time. That the port is somebody else's keeps nobody from serving
sessions: it is told, and tried again.
"""

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from proxyd.listen.inherited import Inherited
from proxyd.listen.unix import ListenerError, UnixListener
from proxyd.metrics.address import MetricsAddress, open_metrics_listener
from proxyd.metrics.page import Page
from proxyd.metrics.reading import Reading
from proxyd.process.exit_status import StartFailed

_FIRST_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 60.0
_FRESH_S: Final = 0.5  # a page that is younger is given to the next one who asks
_TURNS_WITHIN_S: Final = 2.0

log = logging.getLogger("proxyd.metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The daemon as these pages see it.

    `relay_answers` returns when each relay thread has taken a turn. `unready` says why sessions
    cannot be served, "" when they can.
    """

    read: Callable[[], Awaitable[Reading]]
    relay_answers: Callable[[], Awaitable[None]]
    unready: Callable[[], Awaitable[str]]


class MetricsService:
    """Serves one daemon's pages."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._one_at_a_time = trio.Lock()
        self._latest = Page(b"")
        self._made_at = -_FRESH_S
        self.trouble = ""  # why nothing is served, for the status
        self.listening: socket.socket | None = None
        self.file: UnixListener | None = None  # of a path

    async def run(self, listen: str, group: Callable[[], int | None], inherited: Inherited) -> None:
        """For ever. `listen` is the setting's text; whose group it is may connect to a path too."""
        from proxyd.metrics.http import HttpServer  # noqa: PLC0415 (for those who want it)

        address = MetricsAddress.parse(listen)
        if not address.is_local:
            log.warning(
                "metrics are served at %s, which other hosts may reach: whoever connects can read"
                " them. Bind to 127.0.0.1 or a path (proxyd_metrics_listen) if that is not meant",
                address,
            )
        opened, self.file = await self._opened(address, group, inherited)
        self.listening = opened
        inherited.close()
        try:
            log.info("metrics are served at %s", _where(opened, address))
            server = HttpServer(
                {"/metrics": self.metrics, "/healthz": self.healthz, "/readyz": self.readyz}
            )
            await server.serve(trio.SocketListener(trio.socket.from_stdlib_socket(opened)))
        finally:
            self.listening = None
            opened.close() if self.file is None else self.file.close()

    async def metrics(self) -> Page:
        """For Prometheus."""
        async with self._one_at_a_time:
            if trio.current_time() - self._made_at >= _FRESH_S:
                reading = await self._observed.read()
                body, content_type = await trio.to_thread.run_sync(_written, reading)
                self._latest = Page(body, content_type=content_type)
                self._made_at = trio.current_time()
        return self._latest

    async def healthz(self) -> Page:
        """Whether it turns: that this is answered shows it of the control plane."""
        with trio.move_on_after(_TURNS_WITHIN_S) as in_time:
            await self._observed.relay_answers()
        if in_time.cancelled_caught:
            return Page(
                f"a relay thread has not turned for {_TURNS_WITHIN_S:g} s\n".encode(), status=503
            )
        return Page(b"ok\n")

    async def readyz(self) -> Page:
        """Whether a client who comes now will be served, as far as can be told without asking."""
        why_not = await self._observed.unready()
        return Page(f"{why_not}\n".encode(), status=503) if why_not else Page(b"ok\n")

    async def _opened(
        self, address: MetricsAddress, group: Callable[[], int | None], inherited: Inherited
    ) -> tuple[socket.socket, UnixListener | None]:
        pause_s, told = _FIRST_RETRY_S, ""
        while True:
            try:
                opened = await trio.to_thread.run_sync(
                    open_metrics_listener, address, group, inherited, abandon_on_cancel=True
                )
            except (ListenerError, StartFailed) as error:
                self.trouble = str(error)
            except OSError as error:
                self.trouble = f"cannot listen on {address}: {os.strerror(error.errno or 0)}"
            else:
                self.trouble = ""
                return opened
            if self.trouble != told:
                told = self.trouble
                log.error("no metrics: %s; it is tried again (proxyd_metrics_listen)", told)
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_RETRY_S)


def _written(reading: Reading) -> tuple[bytes, str]:
    # It takes memory that a host without Prometheus should not have to give.
    from proxyd.metrics.exposition import CONTENT_TYPE, exposition  # noqa: PLC0415

    return exposition(reading), CONTENT_TYPE


def _where(opened: socket.socket, address: MetricsAddress) -> str:
    """With the port that 0 has become."""
    if address.path:
        return address.path
    return str(MetricsAddress(host=address.host, port=opened.getsockname()[1]))
