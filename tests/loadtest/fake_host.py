"""A fake daemon with a domain, large replies and events, that stalls or hangs up once."""

import threading
from contextlib import contextmanager

from loadtest.mix import Large
from proxyd.wire.frame import Frame, FrameType, Header
from proxyd.wire.programs import VERSION, Program
from proxyd.wire.remote import pack_int, reply
from proxyd.wire.xdr import Reader, Writer
from tests.loadtest.fake_daemon import Connection, FakeDaemon, Script

LIFECYCLE = 318
DOMAIN = Writer().string("test").fixed_opaque(bytes(range(16))).i32(1).take()
XML = "<x>" + "a" * 100_000 + "</x>"  # more than one receive takes


class Stall:
    """All replies wait while it lasts, which begins with the call of that number."""

    def __init__(self, at: int, seconds: float):
        self._at, self._seconds = at, seconds
        self._calls = 0
        self._lock = threading.Lock()

    def pass_by(self):
        with self._lock:
            self._calls += 1
            if self._calls == self._at:
                threading.Event().wait(self._seconds)


class HostConnection(Connection):
    def small_reply(self, header, script):
        if self.server.stall:
            self.server.stall.pass_by()
        if len(script.callers) == self.server.hang_up_at - 1:
            script.callers.append("hung up")
            return False
        return super().small_reply(header, script)

    def answer(self, frame, script):
        header, payload = frame.header, frame.payload
        if header.type != FrameType.CALL or header.program != Program.REMOTE:
            return super().answer(frame, script)
        match header.procedure:
            case Large.CONNECT_LIST_ALL_DOMAINS:
                self.send(reply(header, Writer().u32(1).take() + DOMAIN + pack_int(1)))
            case Large.CONNECT_GET_CAPABILITIES:
                self.send(reply(header, Writer().string(XML).take()))
            case Large.DOMAIN_GET_XML_DESC:
                assert payload == DOMAIN + Writer().u32(0).take()
                self.send(reply(header, Writer().string(XML).take()))
            case Large.CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY:
                assert Reader(payload).i32() == 0
                event = Header(Program.REMOTE, VERSION, LIFECYCLE, FrameType.MESSAGE, 0)
                self.send(reply(header, pack_int(1)), Frame(event, DOMAIN))
                self.server.registered += 1
            case _:
                return super().answer(frame, script)
        return True


class FakeHost(FakeDaemon):
    def __init__(self, path, script, stall, hang_up_at):
        self.stall, self.hang_up_at, self.registered = stall, hang_up_at, 0
        super().__init__(path, script)
        self.RequestHandlerClass = HostConnection


@contextmanager
def fake_host(path, *, stall=None, hang_up_at=0, **behaviour):
    with FakeHost(path, Script(**behaviour), stall, hang_up_at) as host:
        yield host
