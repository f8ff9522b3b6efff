"""The admin socket without a listener: clients on socket pairs, the real server, a fake host."""

import functools
import socket

from proxyd.admin.visit import VisitServices, serve_visitor
from proxyd.admin.visitors import AdminServer
from proxyd.wire import adminrpc, remote
from proxyd.wire.adminrpc import Flags
from proxyd.wire.programs import Admin, Keepalive
from tests.fakes.admin import FakeView
from tests.session.desk import Caller, KnownNames, effective

TIMEOUT_S = 30


class AdminCaller(Caller):
    def frame(self, procedure, payload=b""):
        self.serial += 1
        return adminrpc.call(procedure, self.serial, payload).pack()

    async def open(self):
        return await self.call(Admin.CONNECT_OPEN, Flags().pack())

    def ping(self, count=1):
        self.send(remote.keepalive(Keepalive.PING).pack() * count)


class Desk:
    """Admin clients come in by `visit`; the host is the fake one of root's daemon."""

    def __init__(self, nursery, names=None):
        self.server = AdminServer(max_clients=100)
        self.host = FakeView(self.server)
        self.services = VisitServices(
            server=self.server,
            view=self.host,
            names=names or KnownNames(),
            timeout_s=lambda: TIMEOUT_S,
        )
        self._nursery = nursery
        self._callers = []

    def visit(self, *, uid=0, gid=0):
        """A new client's end; the other one is served."""
        with effective(uid, gid):
            near, far = socket.socketpair()
        caller = AdminCaller(far)
        self._callers.append(caller)
        visitor = self.server.arrived(near)
        self._nursery.start_soon(functools.partial(serve_visitor, visitor, self.services))
        return caller

    def hang_up(self):
        for caller in self._callers:
            caller.close()
