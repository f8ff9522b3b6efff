"""The system bus: calls go out as they come, and each answer finds who waits for it.

    connect ─ EXTERNAL ─ Hello ─ calls and answers side by side ─ the end, for all that wait

jeepney packs and unpacks. Its own driver for trio is not used: it takes messages of any length,
spins when the bus hangs up in mid-handshake, and whatever its reader stumbles over is raised in
the nursery, not in the task that asked. Here

* one task of `SystemBus.run` reads; what it cannot understand ends the connection and everybody's
  wait on it, and nothing else;
* a message is bounded (MESSAGE_LIMIT), and what it says is unpacked only if its signature is the
  one expected: a signature out of the blue may describe an array of nothing, upon which jeepney
  would count for ever;
* the connection is opened by the first call that needs it and kept. Deadlines are the caller's.

Descriptors can be sent. Those that come are not taken: `recv` leaves them to the kernel, which
closes them.
"""

import os
import socket
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio
from jeepney.auth import BEGIN, Authenticator
from jeepney.bus import get_connectable_addresses
from jeepney.bus_messages import message_bus
from jeepney.low_level import (
    Header,
    HeaderFields,
    Message,
    MessageType,
    calc_msg_size,
    parse_signature,
)

SYSTEM_BUS: Final = "unix:path=/run/dbus/system_bus_socket"
# What proxyd is told are verdicts and errors, of some hundred bytes.
MESSAGE_LIMIT: Final = 65536
_FIXED: Final = 16  # bytes of a message that say how long it is
_RECEIVE: Final = 4096
_LAST_SERIAL: Final = 2**32 - 1
# A bus whose backlog is full offers nothing to wait for.
_FIRST_RETRY_S: Final = 0.005
_LONGEST_RETRY_S: Final = 0.2

# All that jeepney raises for bytes that are no message of D-Bus.
_NONSENSE: Final = (
    ValueError,
    LookupError,
    TypeError,
    AssertionError,
    OverflowError,
    RecursionError,
    struct.error,
)


class Unreachable(Exception):
    """There is no bus, or it does not want us; the text says which one and why."""


class BusGone(Exception):
    """The connection broke while an answer was awaited; another one may be better."""


class CallFailed(Exception):
    """The answer is an error, `name` being D-Bus's for it, or not what the method answers."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class MalformedMessage(Exception):
    """The bytes are no message of D-Bus."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A message that answers a call, its body still packed. `error` is None for a return."""

    serial: int  # of the call
    error: str | None
    signature: str
    _header: Header
    _packed: bytes
    _body_at: int

    def values(self, expected: str) -> tuple[Any, ...]:
        """The body of this signature, which holds no variant. Raises MalformedMessage.

        Booleans come as the number that they are, of which 0 and 1 are right.
        """
        if self.signature != expected:
            raise MalformedMessage(f"its signature is {self.signature!r}, not {expected!r}")
        try:
            # As a number, because jeepney takes any number but 0 for "true".
            body = parse_signature(list(f"({expected.replace('b', 'u')})"))
            values, end = body.parse_data(self._packed, self._body_at, self._header.endianness)
        except _NONSENSE as error:
            raise MalformedMessage(f"its body is broken: {type(error).__name__}") from error
        if end != len(self._packed):
            raise MalformedMessage("its body has another length than its header says")
        return tuple(values)

    def text(self) -> str:
        """What an error says; empty if it says nothing that can be read."""
        try:
            return str(self.values("s")[0])
        except MalformedMessage:
            return ""


def message_size(beginning: bytes | bytearray) -> int:
    """How long the message is that begins so, from its first 16 bytes. Raises MalformedMessage."""
    try:
        size: int = calc_msg_size(bytes(beginning[:_FIXED]))
    except _NONSENSE as error:
        raise MalformedMessage("it has no byte order") from error
    if size > MESSAGE_LIMIT:
        raise MalformedMessage(f"it has {size} bytes, of which {MESSAGE_LIMIT} are allowed")
    return size


def answer_in(packed: bytes) -> Answer | None:
    """Of one whole message; None if that is a call or a signal. Raises MalformedMessage."""
    # An array of an empty structure has as many elements as one likes and no bytes. No field of a
    # header may contain brackets but the signature, and in that these two are never neighbours.
    if b"()" in packed[: len(packed) - _body_size(packed)]:
        raise MalformedMessage("its header contains an empty structure")
    try:
        header, fields_end = Header.from_buffer(packed)
    except _NONSENSE as error:
        raise MalformedMessage(f"its header is broken: {type(error).__name__}") from error
    if header.message_type not in {MessageType.method_return, MessageType.error}:
        return None
    serial = header.fields.get(HeaderFields.reply_serial)
    signature = header.fields.get(HeaderFields.signature, "")
    name = header.fields.get(HeaderFields.error_name, "")
    if not (isinstance(serial, int) and isinstance(signature, str) and isinstance(name, str)):
        raise MalformedMessage("a field of its header has another type than it must have")
    return Answer(
        serial,
        name if header.message_type is MessageType.error else None,
        signature,
        header,
        packed,
        fields_end + -fields_end % 8,
    )


def _body_size(packed: bytes) -> int:
    order = "<" if packed[:1] == b"l" else ">"
    size: int = struct.unpack_from(f"{order}I", packed, 4)[0]
    return size


class BusConnection:
    """One connection, from the handshake to its end. `receive` is the task that reads from it."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        self._sending = trio.Lock()
        self._serial = 0
        self._waiting: dict[int, trio.MemorySendChannel[Answer]] = {}
        self._end = ""  # why, once it has ended

    @property
    def ended(self) -> bool:
        return bool(self._end)

    def close(self, why: str) -> None:
        """Whoever waits for an answer gets BusGone. Only the first reason counts."""
        if self._end:
            return
        self._end = why
        self._sock.close()
        for each in self._waiting.values():
            each.close()

    async def authenticate(self) -> None:
        """The handshake, before anything else. Raises BusGone."""
        machine = Authenticator(enable_fds=True)
        try:
            for line in machine:
                await self._send_all(line)
                machine.feed(await self._received())
            await self._send_all(BEGIN)
        except ValueError as error:
            raise BusGone(f"it refuses us: {error}") from error
        except (OSError, trio.ClosedResourceError) as error:
            raise BusGone(f"it hung up in the handshake: {error}") from error

    async def receive(self) -> None:
        """Hands out answers until the connection ends, then closes it. Never raises for a bus."""
        buffer = bytearray()
        try:
            while True:
                buffer += await self._received()
                while len(buffer) >= _FIXED and len(buffer) >= (size := message_size(buffer)):
                    packed = bytes(buffer[:size])
                    del buffer[:size]
                    self._hand_out(answer_in(packed))
        except MalformedMessage as error:
            self.close(f"it sent what is no message: {error}")
        except (BusGone, OSError, trio.ClosedResourceError) as error:
            self.close(str(error))
        finally:
            self.close("proxyd stops")

    async def call(self, message: Message, returns: str) -> tuple[Any, ...]:
        """What the method returns, which has this signature. Raises CallFailed and BusGone."""
        serial = self._next_serial()
        sender, receiver = trio.open_memory_channel[Answer](1)
        with sender, receiver:
            self._waiting[serial] = sender
            try:
                await self._send(message, serial)
                answer = await receiver.receive()
            except trio.EndOfChannel:
                raise BusGone(self._end) from None
            finally:
                # What comes for it later is nobody's.
                self._waiting.pop(serial, None)
        if answer.error is not None:
            raise CallFailed(answer.error, answer.text())
        try:
            return answer.values(returns)
        except MalformedMessage as error:
            raise CallFailed("", f"the answer cannot be understood: {error}") from error

    async def tell(self, message: Message) -> None:
        """Sends a call whose answer nobody waits for. Raises BusGone."""
        await self._send(message, self._next_serial())

    def _next_serial(self) -> int:
        self._serial = self._serial % _LAST_SERIAL + 1
        return self._serial

    def _hand_out(self, answer: Answer | None) -> None:
        waiting = None if answer is None else self._waiting.pop(answer.serial, None)
        if waiting is not None and answer is not None:
            waiting.send_nowait(answer)

    async def _received(self) -> bytes:
        received = await self._sock.recv(_RECEIVE)
        if not received:
            raise BusGone("it hung up")
        return received

    async def _send_all(self, line: bytes) -> None:
        while line:
            line = line[await self._sock.send(line) :]

    async def _send(self, message: Message, serial: int) -> None:
        descriptors = array("i")
        packed = message.serialise(serial, fds=descriptors)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if descriptors else []
        async with self._sending:
            if self._end:
                raise BusGone(self._end)
            try:
                sent = await self._sock.sendmsg([packed], rights)
            except (OSError, trio.ClosedResourceError) as error:
                self.close(f"it takes nothing: {error}")
                raise BusGone(self._end) from error
        # A UNIX socket takes so short a message whole or not at all, so that a caller who is
        # cancelled never leaves half a message behind.
        if sent != len(packed):
            self.close("it took a part of a message")
            raise BusGone(self._end)


class SystemBus:
    """Opens the bus when it is needed and again after it broke. `run` is the task that reads.

    `address` is in D-Bus's own syntax; None: what DBUS_SYSTEM_BUS_ADDRESS says, or the usual one.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._opening = trio.Lock()
        self._connection: BusConnection | None = None
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as self._nursery:
                await trio.sleep_forever()
        finally:
            self._nursery = None

    @property
    def address(self) -> str:
        return self._address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS

    async def connection(self) -> BusConnection:
        """One that has not ended as far as is known. Raises Unreachable."""
        async with self._opening:
            if self._connection is None or self._connection.ended:
                self._connection = await self._opened()
            return self._connection

    async def _opened(self) -> BusConnection:
        if self._nursery is None:
            raise Unreachable("proxyd stops")
        connection = BusConnection(await _connected(self.address))
        try:
            await connection.authenticate()
            self._nursery.start_soon(connection.receive)
            await connection.call(message_bus.Hello(), "s")
        except (BusGone, CallFailed) as error:
            connection.close("it did not greet us")
            raise Unreachable(f"'{self.address}': {error}") from error
        except BaseException:
            connection.close("proxyd did not wait for its greeting")
            raise
        return connection


async def _connected(address: str) -> trio.socket.SocketType:
    """A socket to the first of these addresses where somebody listens. Raises Unreachable."""
    said = "no address that can be used"
    for path in _paths(address):
        try:
            return await _connected_to(path)
        except OSError as error:
            said = os.strerror(error.errno) if error.errno else str(error)
    raise Unreachable(f"'{address}': {said}")


def _paths(address: str) -> Sequence[str]:
    try:
        return list(get_connectable_addresses(address))
    except (ValueError, RuntimeError) as error:
        raise Unreachable(f"'{address}': no address that can be used") from error


async def _connected_to(path: str) -> trio.socket.SocketType:
    sock = socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        pause_s = _FIRST_RETRY_S
        while True:
            try:
                sock.connect(path)
                return trio.socket.from_stdlib_socket(sock)
            except BlockingIOError:
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_RETRY_S)
    except BaseException:
        sock.close()
        raise
