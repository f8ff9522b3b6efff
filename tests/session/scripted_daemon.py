"""A daemon on a UNIX socket that answers as its script says, in the test's own trio run.

`script` maps a procedure to what happens instead of an ordinary reply: a Failure or a payload is
sent as the reply, Raw bytes as they are, HANG_UP closes, SILENCE waits for more, a trio.Event
answers ordinarily once it is set.
"""

from dataclasses import dataclass

import trio

from proxyd.wire import remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import HEADER_SIZE
from proxyd.wire.programs import AuthMethod, Program, Remote
from tests.relay.receiver import Receiver

HANG_UP = "hang up"
SILENCE = "silence"

ORDINARY = {
    Remote.AUTH_LIST: remote.pack_auth_methods([AuthMethod.NONE]),
    Remote.CONNECT_SUPPORTS_FEATURE: remote.pack_int(1),
    Remote.CONNECT_GET_LIB_VERSION: bytes.fromhex("00000000 00acd840"),
}


class Raw(bytes):
    """Bytes that go out as they are, whatever was asked."""


@dataclass
class Line:
    """One connection to the daemon: what arrived on it, and whether it was closed."""

    sock: object
    receiver: Receiver
    closed: bool = False

    @property
    def wire(self):
        """Every byte that arrived, but for a frame that is not complete."""
        return b"".join(each.wire for each in self.receiver.arrived)

    @property
    def calls(self):
        """The procedures that were called, in their order."""
        return [each.header.procedure for each in self.receiver.arrived]

    @property
    def frames(self):
        return self.receiver.arrived

    def arguments(self, procedure):
        """The payload of the first call of a procedure."""
        return next(
            each.wire[HEADER_SIZE:]
            for each in self.receiver.arrived
            if each.header.procedure == procedure
        )


class ScriptedDaemon:
    """Owns its listener. Serve it in a nursery; cancelling that closes everything."""

    def __init__(self, listener, path):
        self.listener = listener
        self.path = str(path)
        self.script = {}
        self.lines = []

    @property
    def line(self):
        """The one connection that was made."""
        (line,) = self.lines
        return line

    def close(self):
        self.listener.close()

    async def serve(self):
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self.listener)
                sock, _ = self.listener.accept()
                sock.setblocking(False)
                line = Line(sock, Receiver.at_daemon(sock))
                self.lines.append(line)
                nursery.start_soon(self._attend, line)

    async def _attend(self, line):
        receiver, answered = line.receiver, 0
        try:
            while not (receiver.ended or receiver.reset):
                await trio.lowlevel.wait_readable(line.sock)
                receiver.take()
                for arrived in receiver.arrived[answered:]:
                    answered += 1
                    if not await self._answer(line, arrived.header):
                        return
        except (BrokenPipeError, ConnectionResetError):
            pass  # whoever asked has gone
        finally:
            line.closed = True
            line.sock.close()

    async def _answer(self, line, header):
        """False ends the connection."""
        if header.program == Program.KEEPALIVE:
            return True
        ordinary = ORDINARY.get(header.procedure, b"")
        match self.script.get(header.procedure, ordinary):
            case "hang up":
                return False
            case "silence":
                return True
            case Failure() as failure:
                wire = failure.reply_to(header).pack()
            case Raw() as wire:
                pass
            case trio.Event() as event:
                await event.wait()
                wire = remote.reply(header, ordinary).pack()
            case payload:
                wire = remote.reply(header, payload).pack()
        line.sock.sendall(wire)  # small: it always fits
        return True
