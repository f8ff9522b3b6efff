"""The way between two processes of this daemon: whole messages in their order, with descriptors.

A message is its kind, an object (format.py) and some descriptors. It goes through a pair of
SOCK_SEQPACKET sockets: a packet with both lengths and all the descriptors, then the text and the
bytes beside it in as many packets as they need. The other process may die or be stopped at any
point, and may be of another release; whoever waits sets the time.
"""

import array
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import trio

from proxyd.upgrade.format import Unreadable, check_lengths, packed, unpacked

MOST_DESCRIPTORS: Final = 128  # the listening sockets of a host with many addresses

_HEAD: Final = struct.Struct(">4sHIQ")  # magic, descriptors, bytes of text, bytes beside it
_MAGIC: Final = b"prxd"
_PACKET: Final = 65536
_INT: Final = array.array("i").itemsize
_KIND: Final = "kind"


class ChannelBroken(Exception):
    """The other process is gone, or said what cannot be understood."""


@dataclass(slots=True)
class Message:
    """`descriptors` are the receiver's. `lost` is how many there was no room for here."""

    kind: str
    document: dict[str, Any]
    descriptors: list[int] = field(default_factory=list)
    lost: int = 0

    def close(self) -> None:
        """Gives up the descriptors that nobody took."""
        while self.descriptors:
            os.close(self.descriptors.pop())


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends. Raises OSError."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end. Any task may send, one at a time receives."""

    def __init__(self, sock: socket.socket) -> None:
        self._plain = sock
        self._sock = trio.socket.from_stdlib_socket(sock)
        self._sending = trio.Lock()
        self._receiving = trio.Lock()
        self._broken = ""
        self._idle: trio.CancelScope | None = None  # while no message has begun
        self._stopped = False

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """The end that is this descriptor. Raises OSError where it is none."""
        sock = socket.socket(fileno=descriptor)
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
            sock.detach()
            raise OSError("no channel of proxyd's")
        return cls(sock)

    def fileno(self) -> int:
        return self._plain.fileno()

    def close(self) -> None:
        self._sock.close()

    def detached(self) -> socket.socket:
        """The socket, for another loop's channel. This one is over."""
        descriptor = self._sock.detach()
        return socket.socket(fileno=descriptor)

    async def send(
        self, kind: str, document: Mapping[str, Any] | None = None, descriptors: Sequence[int] = ()
    ) -> None:
        """Raises ChannelBroken. What was begun and not ended breaks it for good."""
        text, beside = packed({**(document or {}), _KIND: kind})
        head = _HEAD.pack(_MAGIC, len(descriptors), len(text), len(beside))
        rights = array.array("i", descriptors).tobytes()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        async with self._sending:
            self._demand_whole()
            self._broken = "a message was broken off"
            try:
                await self._sock.sendmsg([head], ancillary)
                for part in (text, beside):
                    with memoryview(part) as view:
                        for at in range(0, len(view), _PACKET):
                            await self._sock.send(view[at : at + _PACKET])
            except (OSError, trio.ClosedResourceError) as error:
                self._broken = f"the other process is gone: {_said(error)}"
                raise ChannelBroken(self._broken) from error
            self._broken = ""

    async def receive(self) -> Message | None:
        """The next message, or None behind `stop_waiting`. Raises ChannelBroken."""
        async with self._receiving:
            self._demand_whole()
            try:
                return await self._received()
            except (OSError, trio.ClosedResourceError) as error:
                raise ChannelBroken(f"the other process is gone: {_said(error)}") from error
            except Unreadable as error:
                raise ChannelBroken(str(error)) from error

    def stop_waiting(self) -> None:
        """From now on `receive` returns None where no message has begun."""
        self._stopped = True
        if self._idle is not None:
            self._idle.cancel()

    async def _received(self) -> Message | None:
        if self._stopped:
            return None
        with trio.CancelScope() as self._idle:
            head, descriptors, lost = await self._head()
        if self._idle.cancelled_caught:
            return None
        message = Message("", {}, descriptors, lost)
        try:
            _, announced, *lengths = _HEAD.unpack(head)
            check_lengths(*lengths)
            message.lost += max(0, announced - len(descriptors) - lost)
            # Once begun, a message is read to its end, or the next could not be found.
            self._broken = "a message was broken off"
            text, beside = [await self._exactly(length) for length in lengths]
            self._broken = ""
            message.document = unpacked(text, beside)
            message.kind = str(message.document.pop(_KIND, ""))
        except BaseException:
            message.close()
            raise
        return message

    async def _head(self) -> tuple[bytes, list[int], int]:
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * _INT)
        head, ancillary, flags, _ = await self._sock.recvmsg(
            _HEAD.size + 1, room, socket.MSG_CMSG_CLOEXEC
        )
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(content[: len(content) // _INT * _INT])
        if len(head) != _HEAD.size or not head.startswith(_MAGIC):
            for each in descriptors:
                os.close(each)
            what = "the other process has ended" if not head else "that is no message"
            raise ChannelBroken(what)
        return head, list(descriptors), 1 if flags & socket.MSG_CTRUNC else 0

    async def _exactly(self, length: int) -> bytes:
        content = bytearray(length)
        with memoryview(content) as view:
            at = 0
            while at < length:
                got = await self._sock.recv_into(view[at:], min(length - at, _PACKET))
                if not got:
                    raise ChannelBroken("the other process has ended in the midst of a message")
                at += got
        return bytes(content)

    def _demand_whole(self) -> None:
        if self._broken:
            raise ChannelBroken(self._broken)


def _said(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or "closed"
