"""The system bus: calls go out as they come, and each answer finds who waits for it.

    connect ─ EXTERNAL ─ Hello ─ calls and answers side by side ─ the end, for all that wait

jeepney packs and unpacks. Its own driver for trio is not used: it takes messages of any length,
spins when the bus hangs up in mid-handshake, and whatever its reader stumbles over is raised in
the nursery, not in the task that asked. Here

* one task of `SystemBus.run` reads, a bounded amount in each turn of the loop; what it cannot
  understand ends the connection and everybody's wait on it, and nothing else;
* what others send to us without being asked passes by (bus_messages.py);
* the connection is opened by the first call that needs it and kept. Deadlines are the caller's.

Descriptors. polkit is given the client's pidfd, and a connection that may send descriptors is sent
them, by any user of the host. Nobody may receive those here: the kernel would close them in this
thread, and a close can wait for as long as their sender likes. So each read is preceded by a look,
which takes nothing and tells (MSG_CTRUNC) whether the bytes bring any. If they do, that connection
is given up, a thread that may wait closes it, and the next one agrees with the bus on no
descriptors at all, which the bus then holds everybody to. (Should the socket refuse them, by
SO_PASSRIGHTS, dbus-daemon would hang up on us, each time that somebody likes.) The time of its
start tells polkit which process is meant as well, as it did before there were pidfds.
"""

import logging
import os
import socket
import threading
from array import array
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import trio
from jeepney.auth import BEGIN, Authenticator
from jeepney.bus import get_connectable_addresses
from jeepney.bus_messages import message_bus
from jeepney.low_level import Message

from proxyd.polkit.bus_messages import Answer, Answers, MalformedMessage

SYSTEM_BUS: Final = "unix:path=/run/dbus/system_bus_socket"
_RECEIVE: Final = 65536  # in one turn of the loop
_LAST_SERIAL: Final = 2**32 - 1
# A bus whose backlog is full offers nothing to wait for.
_FIRST_RETRY_S: Final = 0.005
_LONGEST_RETRY_S: Final = 0.2

log = logging.getLogger("util.gdbus")


class Unreachable(Exception):
    """There is no bus, or it does not want us; the text says which one and why."""


class BusGone(Exception):
    """The connection broke while an answer was awaited; another one may be better."""


class CallFailed(Exception):
    """The answer is an error, `name` being D-Bus's for it, or not what the method answers."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class SentDescriptors(Exception):
    """The bytes that come next bring descriptors, so nothing more may be read."""


class BusSocket:
    """The socket to the bus: what is read never brings a descriptor. Raises OSError, also for the
    end, and ClosedResourceError when it was closed meanwhile."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._scratch = memoryview(bytearray(_RECEIVE))

    async def receive(self) -> memoryview:
        """What is there, in a turn of the loop; valid until the next await. Raises
        SentDescriptors and BusGone."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            with suppress(BlockingIOError):
                return self._read()

    async def send(self, packed: bytes, descriptors: "array[int] | None" = None) -> int:
        """How much was taken; a UNIX socket takes something short whole or not at all."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if descriptors else []
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                return self._sock.sendmsg([packed], rights)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)

    def close(self) -> None:
        """Waits for nobody, whatever has come."""
        trio.lowlevel.notify_closing(self._sock)
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # nothing more comes
        try:
            while self._read():
                pass
        except SentDescriptors:
            # With the last socket of somebody's who lingers, the close would wait for him. That is
            # once in the life of proxyd; should there be no room for a thread, it stays open.
            descriptor = self._sock.detach()
            with suppress(RuntimeError):
                threading.Thread(
                    target=os.close, args=(descriptor,), name="bus closer", daemon=True
                ).start()
        except (OSError, BusGone):
            self._sock.close()

    def _read(self) -> memoryview:
        got, _, flags, _ = self._sock.recvmsg_into((self._scratch,), 0, socket.MSG_PEEK)
        if flags & socket.MSG_CTRUNC:
            raise SentDescriptors
        if not got:
            raise BusGone("it hung up")
        # No more than was looked at: what came in between may bring some.
        return self._scratch[: self._sock.recv_into(self._scratch[:got])]


class BusConnection:
    """One connection, from the handshake to its end. `receive` is the task that reads from it.

    `passes_descriptors` is whether it can send them, which is agreed on in the handshake, and
    `was_sent_some` whether somebody has sent some to us.
    """

    def __init__(self, sock: BusSocket, *, passes_descriptors: bool) -> None:
        self.passes_descriptors = passes_descriptors
        self.was_sent_some = False
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
        machine = Authenticator(enable_fds=self.passes_descriptors)
        try:
            for line in machine:
                await self._send_all(line)
                machine.feed(bytes(await self._sock.receive()))
            await self._send_all(BEGIN)
        except ValueError as error:
            raise BusGone(f"it refuses us: {error}") from error
        except (SentDescriptors, OSError, trio.ClosedResourceError) as error:
            raise BusGone(f"it hung up in the handshake: {error}") from error

    async def receive(self) -> None:
        """Hands out answers until the connection ends, then closes it. Never raises for a bus."""
        answers = Answers()
        try:
            while True:
                for answer in answers.receive_data(await self._sock.receive()):
                    self._hand_out(answer)
        except MalformedMessage as error:
            self.close(f"it sent what is no message: {error}")
        except SentDescriptors:
            self.was_sent_some = True
            log.warning(
                "a user of this host has sent proxyd descriptors over the system bus, which serves"
                " to hold it up: it agrees to none from now on, and tells polkit a client's process"
                " by its number and time of start alone. Find out who that is; a restart undoes it"
            )
            self.close("somebody sent descriptors, which would have to be closed here")
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

    def _hand_out(self, answer: Answer) -> None:
        waiting = self._waiting.pop(answer.serial, None)
        if waiting is not None:
            waiting.send_nowait(answer)

    async def _send_all(self, line: bytes) -> None:
        while line:
            line = line[await self._sock.send(line) :]

    async def _send(self, message: Message, serial: int) -> None:
        descriptors = array("i")
        packed = message.serialise(serial, fds=descriptors)
        async with self._sending:
            if self._end:
                raise BusGone(self._end)
            try:
                sent = await self._sock.send(packed, descriptors)
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
        self._passes_descriptors = True
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
                if self._connection is not None and self._connection.was_sent_some:
                    self._passes_descriptors = False
                self._connection = await self._opened()
            return self._connection

    async def _opened(self) -> BusConnection:
        if self._nursery is None:
            raise Unreachable("proxyd stops")
        sock = BusSocket(await _connected(self.address))
        connection = BusConnection(sock, passes_descriptors=self._passes_descriptors)
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


async def _connected(address: str) -> socket.socket:
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


async def _connected_to(path: str) -> socket.socket:
    sock = socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        pause_s = _FIRST_RETRY_S
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_RETRY_S)
            else:
                return sock
    except BaseException:
        sock.close()
        raise
