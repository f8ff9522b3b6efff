"""The admin server on a real socket, in a thread with a trio loop of its own, over a fake host."""

import functools
import socket
import threading
from contextlib import contextmanager

import trio

from proxyd.admin.visit import VisitServices, serve_visitor
from proxyd.admin.visitors import AdminServer
from proxyd.config.listeners import Door
from proxyd.peer.names import NameService
from proxyd.session.accept_loop import accept_clients
from proxyd.wire.programs import AuthMethod
from tests.fakes.admin import FakeView

DEADLINE_S = 10
DOOR = Door(name="admin", method=AuthMethod.NONE, readonly=False, own_uid_only=True)


class LiveAdmin:
    """`host` is its fake one, whose own server is called `name`."""

    def __init__(self, path, name):
        self.path = path
        self.host = FakeView(name=name)
        self.ready = threading.Event()
        self._name = name

    async def serve(self):
        server = AdminServer(max_clients=20)
        self.host.more = (server,)
        self.token = trio.lowlevel.current_trio_token()
        services = VisitServices(
            server=server, view=self.host, names=NameService(), timeout_s=lambda: DEADLINE_S
        )
        with socket.socket(socket.AF_UNIX) as listener, trio.CancelScope() as self.scope:
            listener.setblocking(False)
            listener.bind(str(self.path))
            listener.listen(20)
            self.ready.set()
            async with trio.open_nursery() as nursery:

                def start(sock):
                    visitor = server.arrived(sock)
                    nursery.start_soon(functools.partial(serve_visitor, visitor, services))

                await accept_clients(listener, DOOR, server.admission, start)


@contextmanager
def live_admin(directory, name="virtproxyd"):
    """Serves while the block lasts; the host is read and set up while nobody calls."""
    live = LiveAdmin(directory / "admin", name)
    thread = threading.Thread(target=trio.run, args=(live.serve,))
    thread.start()
    try:
        assert live.ready.wait(DEADLINE_S), "it does not listen"
        yield live
    finally:
        live.token.run_sync_soon(live.scope.cancel)
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
