"""A few pages over HTTP/1.1, for Prometheus and health checks: framed by h11, served by trio.

Whoever can connect may ask, so everybody is bounded: in number, in bytes and in time. Nobody can
keep others out by holding connections: the one that has been idle for longest makes way for a
newcomer. A page is made by its function, and whoever asks while it is being made gets the same one.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

import h11
import trio

from proxyd import __version__
from proxyd.metrics.page import Page

MOST_CONNECTIONS: Final = 16
_LONGEST_HEAD: Final = 8192  # of a request: its line and its headers
_LONGEST_BODY: Final = 8192  # nobody has a reason to send one; it is read and dropped
_RECEIVE: Final = 4096
_REQUEST_S: Final = 10.0  # from a request's first byte to the last byte of its answer
_IDLE_S: Final = 120.0  # longer than Prometheus' usual interval
_LINGER_S: Final = 1.0  # a socket that is closed over unread bytes takes its last answer back

log = logging.getLogger("proxyd.metrics")

Pages = Mapping[str, Callable[[], Awaitable[Page]]]


class HttpServer:
    """Serves the pages to whoever connects to a listener, which others own.

    `pages` is by path: what makes each of them. An error of theirs is answered with 500.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._connections: dict[_Connection, None] = {}  # the one that was heard last comes last

    async def serve(self, listener: trio.SocketListener) -> None:
        """For ever; connections end with it."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:  # a shortage, which is told where clients come in
                    log.debug("cannot accept: %s", error.strerror)
                    await trio.sleep(0.5)
                    continue
                self._make_room()
                connection = _Connection(stream, self._answer)
                self.heard(connection)
                nursery.start_soon(self._live, connection)

    def heard(self, connection: "_Connection") -> None:
        self._connections.pop(connection, None)
        self._connections[connection] = None

    def _make_room(self) -> None:
        if len(self._connections) >= MOST_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.scope.cancel()

    async def _live(self, connection: "_Connection") -> None:
        try:
            with connection.scope:
                while await connection.exchange():
                    self.heard(connection)
        finally:
            self._connections.pop(connection, None)
            await connection.close()

    async def _answer(self, request: h11.Request) -> Page:
        if request.method not in {b"GET", b"HEAD"}:
            return Page(b"GET and HEAD alone are answered here\n", status=405)
        path = request.target.partition(b"?")[0].decode("ascii")
        make = self._pages.get(path)
        if make is None:
            there = " ".join(self._pages)
            return Page(f"there is no such page; there are: {there}\n".encode(), status=404)
        try:
            return await make()
        except Exception:
            log.exception("cannot make the page %s", path)
            return Page(b"an error of proxyd's own, see its log\n", status=500)


class _Connection:
    """One client's: requests and answers one after the other. `scope` is around its life."""

    def __init__(
        self, stream: trio.SocketStream, answer: Callable[[h11.Request], Awaitable[Page]]
    ) -> None:
        self.scope = trio.CancelScope()
        self._stream = stream
        self._answer = answer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST_HEAD)

    async def exchange(self) -> bool:
        """A request and its answer. False when there is none, or shall be none behind it."""
        with trio.move_on_after(_IDLE_S) as patience:
            try:
                await self._respond(patience)
            except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
                await self._refuse()
        done = {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
        if patience.cancelled_caught or self._http.states != done:
            return False
        self._http.start_next_cycle()
        return True

    async def close(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)

    async def _respond(self, patience: trio.CancelScope) -> None:
        request: h11.Request | None = None
        dropped = 0
        while True:
            match self._http.next_event():
                case h11.NEED_DATA:
                    begun = bool(self._http.trailing_data[0]) or request is not None
                    await self._receive(patience, begun=begun)
                case h11.Request() as event:
                    request = event
                case h11.Data(data=data):
                    dropped += len(data)
                    if dropped > _LONGEST_BODY:
                        await self._send(Page(b"too long\n", status=413), last=True)
                        return
                case h11.EndOfMessage():
                    assert request is not None
                    page = await self._answer(request)
                    await self._send(page, whole=request.method != b"HEAD")
                    return
                case _:  # the end of the connection
                    return

    async def _receive(self, patience: trio.CancelScope, *, begun: bool) -> None:
        if self._http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await self._stream.send_all(self._http.send(go_on) or b"")
        received = await self._stream.receive_some(_RECEIVE)
        if not begun:
            patience.deadline = trio.current_time() + _REQUEST_S
        self._http.receive_data(received)

    async def _refuse(self) -> None:
        """Whatever that was, it was no HTTP."""
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            with trio.move_on_after(2 * _LINGER_S), suppress(trio.BrokenResourceError):
                await self._send(Page(b"no HTTP request\n", status=400), last=True)

    async def _send(self, page: Page, *, whole: bool = True, last: bool = False) -> None:
        headers = [
            ("Content-Type", page.content_type),
            ("Content-Length", str(len(page.body))),
            ("Server", f"proxyd/{__version__}"),
            ("Cache-Control", "no-store"),
        ]
        if page.status == 405:
            headers.append(("Allow", "GET, HEAD"))
        if last:
            headers.append(("Connection", "close"))
        head = self._http.send(h11.Response(status_code=page.status, headers=headers))
        assert head is not None
        body = self._http.send(h11.Data(page.body)) if whole else b""
        end = self._http.send(h11.EndOfMessage())
        await self._stream.send_all(head + (body or b"") + (end or b""))
        if last:
            await self._stream.send_eof()
            with trio.move_on_after(_LINGER_S):
                while await self._stream.receive_some(_RECEIVE):
                    pass
