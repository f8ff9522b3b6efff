"""The way between two processes of this daemon: whole messages in their order, with descriptors.

A message is its kind, an object (format.py) and some descriptors. It goes through a pair of
SOCK_SEQPACKET sockets: a packet with both lengths, all the descriptors, and as much as it has room
for of the text and the bytes beside it; then the rest of both in as many packets as they need. The
other process may die or be stopped at any point, and may be of another release; whoever waits sets
the time. What it has said before it died is heard to the end.
"""

import array
import functools
import math
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

import trio

from proxyd.upgrade.format import Unreadable, check_lengths, packed, unpacked

MOST_DESCRIPTORS: Final = 128  # the listening sockets of a host with many addresses

_HEAD: Final = struct.Struct(">4sHIQ")  # magic, descriptors, bytes of text, bytes beside it
_MAGIC: Final = b"prxd"
_PACKET: Final = 65536
_ROOM: Final = _PACKET - _HEAD.size
_INT: Final = array.array("i").itemsize
_KIND: Final = "kind"
SLICE_S: Final = 1.0  # of patience

_Got = TypeVar("_Got")


class ChannelBroken(Exception):
    """The other process is gone, or said what cannot be understood."""


class Gone(ChannelBroken):
    """It has ended. Where that is met in hearing, all that it has said was heard."""


@dataclass(slots=True)
class Message:
    """`descriptors` are the receiver's. `lost` is how many there was no room for here."""

    kind: str
    document: dict[str, Any]
    descriptors: list[int] = field(default_factory=list)
    lost: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up the descriptors that nobody took."""
        while self.descriptors:
            os.close(self.descriptors.pop())


@dataclass(slots=True)
class _Begun:
    """A message of which the head has come. Whoever is cancelled over it goes on with it later."""

    message: Message
    text: bytearray
    beside: bytearray
    filled: int = 0

    def fill(self, content: bytes) -> None:
        """Raises Unreadable."""
        while content:
            with self.missing as missing:
                fits = min(len(missing), len(content))
                if not fits:
                    raise Unreadable("a message is longer than it says")
                missing[:fits] = content[:fits]
            self.filled, content = self.filled + fits, content[fits:]

    @property
    def missing(self) -> memoryview:
        """Where the next of its bytes belong; empty when it is whole."""
        at, text = self.filled, len(self.text)
        return memoryview(self.text)[at:] if at < text else memoryview(self.beside)[at - text :]


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
        self.patience_s = math.inf  # with whoever takes nothing
        self._unsaid = ""  # why nothing more can be said
        self._unheard = ""  # and nothing more heard
        self._begun: _Begun | None = None
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
        if self._begun is not None:
            self._begun.message.close()
        self._sock.close()

    def detached(self) -> socket.socket:
        """The socket, for another loop's channel. This one is over."""
        descriptor = self._sock.detach()
        return socket.socket(fileno=descriptor)

    async def send(
        self, kind: str, document: Mapping[str, Any] | None = None, descriptors: Sequence[int] = ()
    ) -> None:
        """Raises ChannelBroken, and Gone where that is why. What was begun and not ended is the
        last."""
        text, beside = _packed({**(document or {}), _KIND: kind})
        head = _HEAD.pack(_MAGIC, len(descriptors), len(text), len(beside))
        rights = array.array("i", descriptors).tobytes()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        async with self._sending:
            if self._unsaid:
                raise ChannelBroken(self._unsaid)
            self._unsaid = "a message was broken off"
            try:
                with memoryview(text) as first, memoryview(beside) as second:
                    # Each packet is a turn of the loop on both sides: a small message takes one.
                    of_first = min(len(first), _ROOM)
                    of_second = min(len(second), _ROOM - of_first)
                    begun = (head, first[:of_first], second[:of_second])
                    await self._out(lambda: self._sock.sendmsg(begun, ancillary))
                    for part, given in ((first, of_first), (second, of_second)):
                        for at in range(given, len(part), _PACKET):
                            packet = part[at : at + _PACKET]
                            await self._out(functools.partial(self._sock.send, packet))
            except (OSError, trio.ClosedResourceError) as error:
                self._unsaid = f"nothing can be said to the other process: {_said(error)}"
                is_gone = isinstance(error, BrokenPipeError | ConnectionResetError)
                raise (Gone if is_gone else ChannelBroken)(self._unsaid) from error
            self._unsaid = ""

    async def _out(self, send: Callable[[], Awaitable[int]]) -> None:
        """One packet, which goes whole or not at all, so that it may be tried anew each second: a
        time in which this process was stopped itself counts for one."""
        waited_s = 0.0
        while waited_s < self.patience_s:
            with trio.move_on_after(min(self.patience_s, SLICE_S)):
                await send()
                return
            waited_s += SLICE_S
        raise ChannelBroken(f"the other process took nothing for {self.patience_s:g} s")

    async def receive(self) -> Message | None:
        """The next message, or None behind `stop_waiting`. Raises ChannelBroken, and Gone when the
        other process has ended in order or died between two messages.

        Whoever is cancelled has missed nothing.
        """
        async with self._receiving:
            if self._unheard:
                raise ChannelBroken(self._unheard)
            try:
                return await self._received()
            except (OSError, trio.ClosedResourceError) as error:
                raise ChannelBroken(f"the other process is gone: {_said(error)}") from error
            except (Unreadable, MemoryError) as error:
                self._unheard = str(error) or "no memory for a message"
                raise ChannelBroken(self._unheard) from error

    def stop_waiting(self) -> None:
        """From now on `receive` returns None where no message has begun."""
        self._stopped = True
        if self._idle is not None:
            self._idle.cancel()

    async def _received(self) -> Message | None:
        if self._begun is None:
            if self._stopped:
                return None
            with trio.CancelScope() as self._idle:
                self._begun = await self._beginning()
            if self._begun is None:
                return None
        begun = self._begun
        try:
            await self._fill(begun)
            self._begun = None
            begun.message.document = unpacked(bytes(begun.text), bytes(begun.beside))
            begun.message.kind = str(begun.message.document.pop(_KIND, ""))
        except Exception:
            self._begun = None
            begun.message.close()
            raise
        return begun.message

    async def _beginning(self) -> _Begun:
        first, descriptors, lost = await self._first_packet()
        message = Message("", {}, descriptors, lost)
        try:
            _, announced, text, beside = _HEAD.unpack_from(first)
            check_lengths(text, beside)
            message.lost += max(0, announced - len(descriptors) - lost)
            begun = _Begun(message, bytearray(text), bytearray(beside))
            begun.fill(first[_HEAD.size :])
        except Exception:
            message.close()
            raise
        return begun

    async def _first_packet(self) -> tuple[bytes, list[int], int]:
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * _INT)
        first, ancillary, flags, _ = await self._heard(
            lambda: self._sock.recvmsg(_PACKET, room, socket.MSG_CMSG_CLOEXEC)
        )
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(content[: len(content) // _INT * _INT])
        if len(first) < _HEAD.size or not first.startswith(_MAGIC):
            for each in descriptors:
                os.close(each)
            if not first:
                raise Gone("the other process has ended")
            self._unheard = "that is no message"
            raise ChannelBroken(self._unheard)
        return first, list(descriptors), 1 if flags & socket.MSG_CTRUNC else 0

    async def _fill(self, begun: _Begun) -> None:
        while missing := begun.missing:
            with missing, missing[:_PACKET] as part:
                got = await self._heard(lambda part=part: self._sock.recv_into(part))  # type: ignore[misc]
            if not got:
                self._unheard = "the other process has ended in the midst of a message"
                raise ChannelBroken(self._unheard)
            begun.filled += got

    async def _heard(self, receive: Callable[[], Awaitable[_Got]]) -> _Got:
        try:
            return await receive()
        except ConnectionResetError:
            # It has ended without reading all, of which the kernel tells once, and before it gives
            # out what is left of its words.
            return await receive()


def _packed(document: Mapping[str, Any]) -> tuple[bytes, bytes]:
    try:
        return packed(document)
    except MemoryError as error:
        raise Unreadable("no memory for a message") from error


def _said(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or "closed"
