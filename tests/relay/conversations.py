"""Conversations between a client and a daemon, and what has to come of them.

Both sides say what they say whatever the other one does, but that the daemon answers a call only
when it has got it.
"""

import os
from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import strategies as st

from proxyd.relay.flow import SPLICE_ABOVE
from proxyd.wire.frame import FrameType, Status
from proxyd.wire.names import NAMES
from proxyd.wire.programs import Keepalive, Program, Remote
from proxyd.wire.remote import keepalive
from proxyd.wire.xdr import Writer
from tests.relay import frames
from tests.relay.test_walk_properties import Direction, Feeder

_number = NAMES[Program.REMOTE].index
UPLOAD, DOWNLOAD = _number("STORAGE_VOL_UPLOAD"), _number("STORAGE_VOL_DOWNLOAD")
DESTROY, DEFINE = _number("DOMAIN_DESTROY"), _number("DOMAIN_DEFINE_XML")
WITH_FILES, GRAPHICS = _number("DOMAIN_CREATE_XML_WITH_FILES"), frames.DOMAIN_OPEN_GRAPHICS_FD
GUEST = Writer().opaque(b"guest").fixed_opaque(bytes(range(16))).i32(-1).take()

SIZES = [0, 1, 100, 4096, SPLICE_ABOVE - 28, SPLICE_ABOVE, 65536, 70_000, 262_120, 300_000]
sizes = st.sampled_from(SIZES)
few = st.integers(1, 3)


@dataclass
class Conversation:
    """`gates` says of a place in what the daemon sends which call it must have got before."""

    carries: bool
    up: Direction = field(default_factory=Direction)
    down: Direction = field(default_factory=Direction)
    gates: dict = field(default_factory=dict)
    at_daemon: list = field(default_factory=list)
    at_client: list = field(default_factory=list)
    refused: list = field(default_factory=list)
    serial: int = 0
    ends: dict = field(default_factory=lambda: defaultdict(list))

    def rest_of_frame(self, feeder):
        """How many bytes are missing until a frame ends, without its descriptors."""
        ends = self.ends[id(feeder.direction)]
        return next((end - feeder.at for end in ends if end > feeder.at), 1)

    def next(self):
        self.serial += 1
        return self.serial

    def say(self, direction, expected, wire, files=()):
        direction.add(wire)
        self.ends[id(direction)].append(len(direction.stream))
        for each in files:
            direction.add_descriptor(each)
        if expected is not None:
            expected.append((wire, tuple(files)))

    def ask(self, wire, files=()):
        self.say(self.up, self.at_daemon, wire, files)

    def answer(self, wire, files=(), *, to=None):
        if to is not None:
            self.gates[len(self.down.stream)] = to
        self.say(self.down, self.at_client, wire, files)

    def call(self, size, procedure=frames.NODE_GET_INFO, status=Status.OK, payload=b""):
        serial = self.next()
        about = {"procedure": procedure}
        self.ask(frames.call(serial, payload + frames.noise(size, serial), **about))
        reply = frames.reply(serial, GUEST if procedure == DEFINE else b"", status=status, **about)
        self.answer(reply, to=serial)

    def change(self, size):
        self.call(size, DESTROY, payload=GUEST)

    def define(self, size):
        self.call(size, DEFINE)

    def fail(self, size):
        self.call(size, status=Status.ERROR)

    def big_answer(self, size):
        serial = self.next()
        self.ask(frames.call(serial))
        self.answer(frames.reply(serial, frames.noise(size, serial)), to=serial)

    def upload(self, size, packets, *, refused=False):
        serial = self.next()
        self.ask(frames.call(serial, procedure=UPLOAD))
        status = Status.ERROR if refused else Status.OK
        self.answer(frames.reply(serial, procedure=UPLOAD, status=status), to=serial)
        about = {"procedure": UPLOAD}
        for _ in range(packets):
            wire = frames.noise(size, serial)
            self.ask(frames.frame(FrameType.STREAM, serial, wire, status=Status.CONTINUE, **about))
        self.ask(frames.frame(FrameType.STREAM, serial, **about))
        if not refused:
            self.answer(frames.frame(FrameType.STREAM, serial, **about), to=serial)

    def refused_upload(self, size, packets):
        self.upload(size, packets, refused=True)

    def download(self, size, packets):
        serial = self.next()
        about = {"procedure": DOWNLOAD}
        self.ask(frames.call(serial, **about))
        self.answer(frames.reply(serial, **about), to=serial)
        for _ in range(packets):
            for content in (frames.noise(size, serial), b""):
                wire = frames.frame(
                    FrameType.STREAM, serial, content, status=Status.CONTINUE, **about
                )
                self.answer(wire)
        self.answer(frames.frame(FrameType.STREAM, serial, **about))

    def event(self, size):
        self.answer(frames.frame(FrameType.MESSAGE, 0, frames.noise(size, size), procedure=107))

    def ping(self, _size):
        self.ask(keepalive(Keepalive.PING).pack())
        self.answer(keepalive(Keepalive.PONG).pack())

    def crowd(self, _size):
        for _ in range(150):
            self.ping(0)

    def other_program(self, size):
        serial = self.next()
        about = {"program": Program.QEMU, "procedure": 1}
        self.ask(frames.call(serial, frames.noise(size, serial), **about))
        self.answer(frames.reply(serial, **about), to=serial)

    def forbidden(self, size):
        serial = self.next()
        self.say(self.up, None, frames.set_identity(serial, size=max(size, 200)))
        self.refused.append(serial)

    def forbidden_with_files(self, _size, count):
        if self.carries:
            serial = self.next()
            wire = frames.set_identity_with_descriptors(count, serial)
            self.say(self.up, None, wire, range(count))
            self.refused.append(serial)

    def give_files(self, size, count):
        if self.carries:
            serial = self.next()
            payload, about = frames.noise(size, serial), {"procedure": WITH_FILES}
            self.ask(frames.call_with_descriptors(count, serial, payload, **about), range(count))
            self.answer(frames.reply(serial, **about), to=serial)

    def get_files(self, size, count):
        if self.carries:
            serial = self.next()
            self.ask(frames.call(serial, procedure=GRAPHICS))
            payload, about = frames.noise(size, serial), {"procedure": GRAPHICS}
            reply = frames.reply_with_descriptors(count, serial, payload, **about)
            self.answer(reply, range(count), to=serial)


topics = st.one_of(
    st.tuples(
        st.sampled_from(
            [
                Conversation.call,
                Conversation.change,
                Conversation.define,
                Conversation.fail,
                Conversation.big_answer,
                Conversation.event,
                Conversation.ping,
                Conversation.crowd,
                Conversation.other_program,
                Conversation.forbidden,
            ]
        ),
        sizes,
    ),
    st.tuples(
        st.sampled_from(
            [
                Conversation.upload,
                Conversation.refused_upload,
                Conversation.download,
                Conversation.forbidden_with_files,
                Conversation.give_files,
                Conversation.get_files,
            ]
        ),
        sizes,
        few,
    ),
)
conversations = st.lists(topics, min_size=1, max_size=8)


def made(topics, *, carries):
    conversation = Conversation(carries)
    for topic, *arguments in topics:
        topic(conversation, *arguments)
    return conversation


class Daemon(Feeder):
    """Sends what it has to say as far as it has been asked for it."""

    def __init__(self, session, conversation, files):
        super().__init__(session.daemon, conversation.down, files)
        self.session, self.gates = session, dict(conversation.gates)
        self.looked, self.asked = 0, set()

    def feed(self, limit):
        fed = 0
        while limit > 0 and not self.done:
            stop = self._open_up_to()
            if stop <= self.at:
                break
            more = super().feed(min(limit, stop - self.at))
            if not more:
                break
            fed, limit = fed + more, limit - more
        return fed

    def _open_up_to(self):
        for each in self.session.at_daemon.arrived[self.looked :]:
            self.looked += 1
            if each.header.type in (FrameType.CALL, FrameType.CALL_WITH_FDS):
                self.asked.add(each.serial)
        shut = [at for at, serial in self.gates.items() if serial not in self.asked]
        return min([len(self.direction.stream), *shut])


ACTIONS = [
    "client sends",
    "client ends a frame",
    "daemon sends",
    "daemon ends a frame",
    "turn",
    "client takes",
    "daemon takes",
    "move",
    "move",
]
AMOUNTS = [1, 3, 27, 28, 29, 31, 32, 33, 60, 1000, 40_000, 300_000]
steps = st.lists(st.tuples(st.sampled_from(ACTIONS), st.sampled_from(AMOUNTS)), max_size=60)
# Of the moments at which nobody holds anything back: before which of them it moves.
moments = st.lists(st.booleans(), max_size=30)


class Talk:
    """A conversation over a session that may move."""

    def __init__(self, conversation, session, files):
        self.session, self.conversation = session, conversation
        self.client = Feeder(session.client, conversation.up, files)
        self.daemon = Daemon(session, conversation, files)
        inodes = [os.fstat(each).st_ino for each in files]
        self.expected_up, self.expected_down = (
            [(wire, tuple(inodes[each] for each in behind)) for wire, behind in expected]
            for expected in (conversation.at_daemon, conversation.at_client)
        )

    def take_steps(self, steps):
        session = self.session
        actions = {
            "client sends": self.client.feed,
            "client ends a frame": lambda _: self._end_frame(self.client),
            "daemon sends": self.daemon.feed,
            "daemon ends a frame": lambda _: self._end_frame(self.daemon),
            "turn": lambda times: session.turn(min(times, 5)),
            "client takes": session.at_client.take,
            "daemon takes": session.at_daemon.take,
            "move": lambda amount: session.move(early=amount % 2 == 0),
        }
        for action, amount in steps:
            actions[action](amount)

    def _end_frame(self, feeder):
        feeder.feed(self.conversation.rest_of_frame(feeder))
        self.session.turn()

    def run_out(self, moments):
        """Says all that is left, and moves now and then, for as long as anything moves."""
        session, idle, moments = self.session, 0, list(moments)
        while idle < 20 and not session.ended:
            if moments and moments.pop():
                session.move()
            moved = self.client.feed(100_000) + self.daemon.feed(100_000)
            session.turn()
            if not moments:
                session.relay()
            session.at_client.take()
            session.at_daemon.take()
            idle = 0 if moved or moments else idle + 1
            if idle:
                session.loop.turn(0.001)
        session.relay()

    @property
    def at_daemon(self):
        return [(each.wire, each.files) for each in self.session.at_daemon.arrived]

    @property
    def before_farewell(self):
        """What the daemon got of the client's own."""
        arrived = self.session.at_daemon.arrived
        return [(each.wire, each.files) for each in arrived if not is_farewell(each)]

    @property
    def at_client(self):
        arrived = self.session.at_client.arrived
        return [(each.wire, each.files) for each in arrived if not is_refusal(each)]

    @property
    def refused(self):
        return [each.serial for each in self.session.at_client.arrived if is_refusal(each)]


def is_refusal(arrived):
    return (
        arrived.header.procedure == Remote.CONNECT_SET_IDENTITY
        and b"cannot be replaced" in arrived.wire
    )


def is_farewell(arrived):
    """Who says what the client would have had to say (relay/farewell.py)."""
    header = arrived.header
    if header.program == Program.KEEPALIVE:
        return header.procedure == Keepalive.PONG
    aborted = header.type == FrameType.STREAM and header.status == Status.ERROR
    return aborted or header.procedure == Remote.CONNECT_CLOSE
