"""The process that has started this one, to hand over to it: its offer, before the loop runs."""

import os
import socket
from collections.abc import MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import trio

from proxyd.listen.inherited import Inherited, Offered
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.upgrade.channel import Channel, ChannelBroken, Message
from proxyd.upgrade.format import READS
from proxyd.upgrade.relaunch import CHANNEL, STDERR, speak_for_ourselves

_OFFER_S: Final = 10.0
_MOST_DIGITS: Final = 9


@dataclass(slots=True)
class Predecessor:
    """What this process was started for. Before the loop runs, `learn` is called once."""

    sock: socket.socket
    stderr: int
    pid: int = 0

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> "Predecessor | None":
        """None of a daemon that was started by itself. Raises StartFailed."""
        channel, stderr = (environ.pop(each, "") for each in (CHANNEL, STDERR))
        if not channel:
            return None
        try:
            sock = Channel.of(_descriptor(channel)).detached()
            sock.set_inheritable(False)
            os.set_inheritable(_descriptor(stderr), False)
        except (OSError, ValueError) as error:
            text = f"{CHANNEL} names no channel of a daemon's that is upgraded: leave it out"
            raise StartFailed(Exit.FAILED, text) from error
        return cls(sock, _descriptor(stderr))

    def learn(self, given_back: ExitStack) -> Inherited:
        """Takes the offer. Raises StartFailed. `given_back` closes the sockets."""
        message = trio.run(self._first)
        document = message.document
        known = document.get("format")
        if message.kind != "offer" or known not in READS:
            message.close()
            raise StartFailed(
                Exit.FAILED,
                f"the running daemon speaks format {known!r} of the hand-over, this release"
                f" {sorted(READS)}: restart it once (systemctl restart virtproxyd)",
            )
        listening = document.get("listening")
        if not isinstance(listening, list) or len(listening) != len(message.descriptors):
            message.close()
            raise StartFailed(
                Exit.FAILED,
                f"{len(message.descriptors)} of the running daemon's listening sockets came over:"
                " is LimitNOFILE large enough?",
            )
        offered = []
        for each in listening:
            sock = socket.socket(fileno=message.descriptors.pop(0))
            sock.setblocking(False)
            offered.append(_offered(sock, each))
        pid = document.get("pid")
        self.pid = pid if type(pid) is int else os.getppid()
        inherited = Inherited(offered)
        given_back.callback(inherited.close)
        return inherited

    async def _first(self) -> Message:
        channel = Channel(self.sock)
        try:
            with trio.move_on_after(_OFFER_S):
                message = await channel.receive()
                if message is not None:
                    return message
        except ChannelBroken as error:
            raise StartFailed(Exit.FAILED, f"cannot take over: {error}") from error
        finally:
            self.sock = channel.detached()
        raise StartFailed(Exit.FAILED, "the running daemon offered nothing")

    def channel(self) -> Channel:
        """Within the loop that goes on with it."""
        return Channel(self.sock)

    def speak(self) -> None:
        """It serves: what it says on stderr is its own again."""
        if self.stderr >= 0:
            speak_for_ourselves(self.stderr)
            self.stderr = -1


def _descriptor(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise ValueError(f"{text!r} is no descriptor")
    return int(text)


def _offered(sock: socket.socket, told: Any) -> Offered:
    """Whatever of it is not understood is left out: then nobody claims the socket."""
    match told:
        case {"transport": str(transport), "service": str(service), "file": [int(dev), int(ino)]}:
            return Offered(sock, transport, service, (dev, ino))
        case {"transport": str(transport), "service": str(service)}:
            return Offered(sock, transport, service)
    return Offered(sock, "")
