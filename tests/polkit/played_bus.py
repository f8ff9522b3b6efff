"""A system bus that is played, with a polkit behind it."""

import os
import socket
import struct
from contextlib import asynccontextmanager, contextmanager

import trio
from jeepney.bus_messages import message_bus
from jeepney.fds import FileDescriptor
from jeepney.io.trio import open_dbus_connection
from jeepney.low_level import HeaderFields
from jeepney.wrappers import new_error, new_method_return

from proxyd.peer.credentials import Subject, credentials_of, peer_pidfd
from proxyd.polkit.authority import PolkitAuthority
from tests.bed.polkit import NAME

ACTION = "org.libvirt.unix.manage"
VERDICT = "(bba{ss})"
YES = (True, False, {})


@contextmanager
def this_process(**different):
    """Us, as the kernel shows us to somebody whom we connect to."""
    near, far = socket.socketpair()
    with near, far:
        peer = credentials_of(near)
        pidfd = peer_pidfd(near)
    known = {"pid": peer.pid, "start_ticks": peer.start_ticks, "uid": peer.uid, "pidfd": pidfd}
    try:
        yield Subject(**{**known, **different})
    finally:
        os.close(pidfd)


class Played:
    """polkit, as the test wants it. The first to play it is asked first; the next waits."""

    def __init__(self, connection):
        self.connection = connection

    async def call(self, method):
        """The next call of this method; what else comes is passed over."""
        while True:
            message = await self.connection.receive()
            if message.header.fields.get(HeaderFields.member) == method:
                return message

    async def question(self):
        asked = await self.call("CheckAuthorization")
        for _, value in asked.body[0][1].values():
            if isinstance(value, FileDescriptor):
                value.close()
        return asked

    async def says(self, question, values=YES, signature=VERDICT):
        await self.connection.send(new_method_return(question, signature, (values,)))

    async def answers(self, values=YES, signature=VERDICT):
        await self.says(await self.question(), values, signature)

    async def fails(self, name, text):
        await self.connection.send(new_error(await self.question(), name, "s", (text,)))

    async def ends(self):
        await self.connection.aclose()

    async def ends_when_asked(self):
        await self.question()
        await self.ends()


@asynccontextmanager
async def played(bus):
    connection = await open_dbus_connection(bus.address, enable_fds=True)
    async with connection:
        async with connection.router() as router:
            await router.send_and_get_reply(message_bus.RequestName(NAME))
        yield Played(connection)


async def authority(nursery, address, **limits):
    made = PolkitAuthority(address, **limits)
    nursery.start_soon(made.run)
    await trio.testing.wait_all_tasks_blocked()
    return made


def message(kind, fields, body=b"", *, serial=7, order="<"):
    """A message packed by hand: fields are (code, signature, packed value)."""
    packed = b""
    for code, signature, value in fields:
        packed += bytes(-len(packed) % 8)
        packed += bytes([code, len(signature)]) + signature.encode() + b"\0"
        if signature[0] in "usa":
            packed += bytes(-len(packed) % 4)
        packed += value
    letter = b"l" if order == "<" else b"B"
    head = struct.pack(f"{order}cBBBIII", letter, kind, 0, 1, len(body), serial, len(packed))
    return head + packed + bytes(-len(packed) % 8) + body
