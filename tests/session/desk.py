"""A whole control plane without listeners: clients on socket pairs, a real relay, a fake daemon."""

import logging
import os
import resource
import socket
from contextlib import contextmanager
from dataclasses import replace

import trio

from proxyd.admission.admission import Admission
from proxyd.admission.holder import Holder, Rank
from proxyd.autostart.starter import Starter
from proxyd.config.listeners import Door
from proxyd.config.routes import RoutingTable
from proxyd.endpoint.couriers import COURIERS
from proxyd.log.episodes import Episodes
from proxyd.session.entrance import Entrance
from proxyd.session.handover import Relay
from proxyd.session.opener import Opener
from proxyd.session.opening import OpeningSession, Services, serve_client
from proxyd.session.presence import Presence
from proxyd.session.reception import Reception
from proxyd.session.refusal import Refusals
from proxyd.session.roster import Roster
from proxyd.session.rulings import Rulings
from proxyd.session.unix_greeting import UnixGreeting
from proxyd.wire import failure, remote
from proxyd.wire.failure import Failure
from proxyd.wire.frame import FrameBuffer, Status
from proxyd.wire.programs import AuthMethod, Remote
from proxyd.wire.remote import OpenArguments
from tests.bed.command import effective
from tests.bed.waiting import wait_until

DEADLINE_S = 10
TIMEOUT_S = 30
URI = "test:///default"
# Tests of starting have one of their own.
NO_STARTER = Starter(runtime_dir="/nowhere", environ={}, euid=0)

SOMEBODY = Holder("uid 1000", Rank.LOCAL, 1000)

OPEN_TO_ALL = Door(name="libvirt-sock", method=AuthMethod.NONE, readonly=False, own_uid_only=False)


def seated(roster, door=OPEN_TO_ALL, *, anonymous=False, end=print, holder=SOMEBODY):
    """A client that has a place, if need be beyond the limit, and nobody who serves it."""
    method = AuthMethod.SASL if anonymous else door.method
    place = roster.admission.admit(holder, replace(door, method=method))
    place = place or roster.admission.seat(holder)
    return roster.arrived(door, place, end=end)


def open_descriptors():
    assert COURIERS.dismiss(10)
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def no_more_descriptors():
    """As if this process had opened all that it may."""
    with socket.socket() as lowest:
        first_free = lowest.fileno()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def eventually(condition, what):
    """Waits for what another thread or the kernel does; the trio loop goes on meanwhile."""
    return await trio.to_thread.run_sync(wait_until, condition, DEADLINE_S, what)


class KnownNames:
    """A name service without a thread: on a clock that stands still no answer comes too late."""

    async def names_of(self, uid, gid):
        await trio.lowlevel.checkpoint()
        return f"user{uid}", f"group{gid}"


class Caller:
    """A client's end of a socket pair. `receive` gives None at the end."""

    def __init__(self, sock):
        sock.setblocking(False)
        self.sock = sock
        self.buffer = FrameBuffer()
        self.serial = -1

    def close(self):
        self.sock.close()

    def frame(self, procedure, payload=b""):
        """A call with the next serial, packed."""
        self.serial += 1
        return remote.call(procedure, self.serial, payload).pack()

    def opening(self, uri=URI, flags=0):
        return self.frame(Remote.CONNECT_OPEN, OpenArguments(uri, flags).pack())

    def send(self, wire):
        """All at once; what a test sends fits into the socket's buffer."""
        assert self.sock.send(wire) == len(wire)

    async def receive(self):
        while (frame := self.buffer.next_frame()) is None:
            await trio.lowlevel.wait_readable(self.sock)
            try:
                got = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not got:
                return None
            self.buffer.feed(got)
        return frame

    async def call(self, procedure, payload=b""):
        self.send(self.frame(procedure, payload))
        return await self.receive()

    async def open(self, uri=URI, flags=0):
        self.send(self.opening(uri, flags))
        return await self.receive()

    async def ended(self):
        """Whether nothing comes any more, now or ever."""
        return await self.receive() is None


def failure_of(frame):
    assert frame is not None, "the connection was closed without a word"
    assert frame.header.status == Status.ERROR
    return Failure.unpack(frame.payload)


def succeeded(frame):
    return frame is not None and frame.header.status == Status.OK


class FakePolkit:
    """Says no until it is told otherwise; `event` holds the answer up."""

    def __init__(self):
        self.asked = []
        self.denial = failure.polkit_denied("org.libvirt.unix.manage")
        self.event = None
        self.taken_back = 0

    async def check(self, subject, action):
        self.asked.append((subject, action))
        try:
            if self.event is not None:
                await self.event.wait()
        except trio.Cancelled:
            self.taken_back += 1
            raise
        return self.denial


class Desk:
    """`serve` starts a client's session; `is_as_before` is how each test of abuse ends."""

    def __init__(self, daemon, names, nursery):
        self.daemon = daemon
        self.admission = Admission(max_clients=100, max_anonymous=20)
        episodes = Episodes()
        self.roster = Roster(self.admission)
        self.relay = Relay(self.roster.relay_ended)
        self.timeout_s = TIMEOUT_S
        self.presence = Presence()
        self.polkit = FakePolkit()
        self.routes = {"test": daemon.path}
        directory = os.path.dirname(daemon.path)
        self.names = names
        self.rules = None  # a RuleTable
        self.services = Services(
            roster=self.roster,
            relay=self.relay,
            timeout_s=lambda: self.timeout_s,
            proof=lambda _: self.proof,
            refusals=Refusals(8, episodes),
            episodes=episodes,
            presence=self.presence,
            polkit=self.polkit,
            opener=Opener(
                routes=lambda: RoutingTable(
                    privileged=True, system_dir=directory, session_dir=directory, routes=self.routes
                ),
                starter=NO_STARTER,
                rulings=Rulings(lambda: self.rules, names, self.roster.clients),
            ),
        )
        self.proof = None  # for a door that asks for SASL
        self.reception = Reception(self.services, nursery)
        nursery.start_soon(self.reception.run)
        self.callers = []
        self.descriptors = open_descriptors()

    @property
    def nursery(self):
        """Where sessions run."""
        return self.reception._nursery

    @nursery.setter
    def nursery(self, nursery):
        self.reception._nursery = nursery

    def _greet(self, sock):
        return UnixGreeting(sock, self.names)

    def serve(self, sock, door=OPEN_TO_ALL):
        """What an accept loop does with a connection."""
        self.reception.arrived(Entrance(None, door, self._greet), sock)

    def begin(self, greeting, door, holder):
        """One that has got a place."""
        place = self.admission.admit(holder, door)
        session = OpeningSession(greeting, door, self.services, place)
        self.nursery.start_soon(serve_client, session)
        return session.client

    def connect(self, door=OPEN_TO_ALL, *, uid=0, gid=0):
        with effective(uid, gid):
            near, far = socket.socketpair()
        self.serve(far, door)
        caller = Caller(near)
        self.callers.append(caller)
        return caller

    async def opened(self, **connecting):
        caller = self.connect(**connecting)
        assert succeeded(await caller.open())
        return caller

    def hang_up(self):
        """All clients go."""
        for caller in self.callers:
            caller.close()
        self.callers.clear()

    async def is_empty(self):
        """Every client has gone and left nothing behind."""
        self.hang_up()
        await eventually(lambda: not self.roster.clients, "the roster is empty")
        assert (self.admission.clients, self.admission.anonymous) == (0, 0)
        await eventually(
            lambda: open_descriptors() == self.descriptors, "descriptors are as many as before"
        )

    async def is_as_before(self):
        """Nothing is left of the clients that were here, and a normal one works."""
        await self.is_empty()
        self.daemon.script.clear()
        self.routes["test"] = self.daemon.path
        normal = await self.opened()
        assert succeeded(await normal.call(Remote.CONNECT_GET_LIB_VERSION))
        await self.is_empty()


def lines(caplog, part, level=None):
    """The log lines in which this occurs."""
    return [
        record.getMessage()
        for record in caplog.records
        if part in record.getMessage() and level in {None, record.levelno}
    ]


def tracebacks(caplog):
    return [
        record for record in caplog.records if record.exc_info or record.levelno > logging.WARNING
    ]
