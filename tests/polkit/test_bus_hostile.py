"""What any user of the host may send to proxyd on a real bus, with the system bus's own policy."""

import functools
import logging
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import trio
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection
from jeepney.low_level import HeaderFields
from jeepney.wrappers import DBusAddress, new_signal

from proxyd.polkit.bus import BusGone, BusSocket, SentDescriptors
from tests.bed.daemon import short_directory
from tests.bed.polkit import AS_THE_SYSTEMS, NAME, PrivateBus
from tests.fakes.lingering import LINGERS_S, lingering
from tests.polkit.played_bus import ACTION, authority, played, this_process
from tests.session.desk import effective, lines

NOBODY = 65534
DEADLINE_S = 20
WHERE = DBusAddress("/a/b", interface="a.b")


@pytest.fixture(scope="module")
def bus():
    with short_directory(0o711) as directory, PrivateBus(directory, AS_THE_SYSTEMS) as made:
        yield made


@pytest.fixture
async def polkitd(bus):
    async with played(bus) as made:
        yield made


@pytest.fixture(autouse=True)
def nobody_waits(no_descriptor_leaks):
    """The threads that close what might wait have ended before descriptors are counted."""
    yield
    for thread in threading.enumerate():
        if thread.name == "bus closer":
            thread.join(DEADLINE_S)


@pytest.fixture
def me():
    with this_process() as subject:
        yield subject


class Stranger:
    """An unprivileged user on the bus, who sends to proxyd's connection."""

    def __init__(self, bus):
        with effective(NOBODY, NOBODY):
            self.connection = open_dbus_connection(bus.address, enable_fds=True)

    def others(self):
        """All but himself and polkit, which the test plays."""
        names = self._asked(message_bus.ListNames())
        known = {self.connection.unique_name, self._asked(message_bus.GetNameOwner(NAME))}
        return [each for each in names if each[0] == ":" and each not in known]

    def _asked(self, message):
        return self.connection.send_and_get_reply(message).body[0]

    def send(self, signature, *values, times=1):
        for name in self.others():
            signal = new_signal(WHERE, "C", signature, values)
            signal.header.fields[HeaderFields.destination] = name
            for _ in range(times):
                self.connection.send(signal)
        # When the bus answers this, it has gone through all that came before.
        self.connection.send_and_get_reply(message_bus.GetId())

    def close(self):
        self.connection.close()


@pytest.fixture
def stranger(bus, no_descriptor_leaks):
    made = Stranger(bus)
    yield made
    made.close()


class Asking:
    """Questions to a polkit that the test plays: put, and answered when the test says so."""

    def __init__(self, polkit, polkitd, subject, nursery):
        self._polkit = polkit
        self._polkitd = polkitd
        self._subject = subject
        self._nursery = nursery
        self._say, self._said = trio.open_memory_channel(10)

    async def put(self):
        self._nursery.start_soon(self._ask)
        await self.comes()

    async def comes(self):
        """It is put, or put again."""
        self._question = await self._polkitd.question()

    @property
    def with_pidfd(self):
        return "pidfd" in self._question.body[0][1]

    async def answered(self):
        await self._polkitd.says(self._question)
        return await self._said.receive()

    async def _ask(self):
        await self._say.send(await self._polkit.check(self._subject, ACTION))


@pytest.fixture
async def question(bus, polkitd, me, nursery):
    """One that has been put, on a connection of its own to the bus."""
    with trio.fail_after(DEADLINE_S):
        made = Asking(await authority(nursery, bus.address), polkitd, me, nursery)
        await made.put()
        yield made


@contextmanager
def never_held_up():
    """Whoever is kept from running for as long as a descriptor lingers fails."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < LINGERS_S


@pytest.mark.parametrize("size", [70_000, 5_000_000])
async def test_signals_longer_than_any_answer_disturb_no_question(question, stranger, size):
    for _ in range(5):
        await trio.to_thread.run_sync(stranger.send, "ay", bytes(size))

    assert await question.answered() is None


async def test_thousands_of_signals_disturb_no_question(question, stranger, nursery):
    over = trio.Event()

    async def flood():
        await trio.to_thread.run_sync(functools.partial(stranger.send, "s", "x", times=20_000))
        over.set()

    nursery.start_soon(flood)
    answers = [await question.answered()]
    while not over.is_set():
        await question.put()
        answers.append(await question.answered())

    assert set(answers) == {None}


@pytest.fixture
def lingerers(nobody_waits):
    """Sockets that are passed on and given up; they let go at the end of the test."""
    made = [lingering() for _ in range(3)]
    yield [sock for _, sock in made]
    for reader, sock in made:
        reader.close()
        sock.close()


def pass_on(stranger, socks):
    """Such that nobody has them but what waits in proxyd's socket.

    Runs in the loop's own thread, so that proxyd reads nothing meanwhile. All go in one message,
    for the bus itself would drop those behind it, and wait.
    """
    stranger.send("ah", socks)
    for sock in socks:
        sock.close()


async def test_descriptors_hold_up_nobody_and_the_question_is_put_again(
    question, stranger, lingerers, log
):
    assert question.with_pidfd
    with never_held_up():
        pass_on(stranger, lingerers)
        await question.comes()
        assert await question.answered() is None

    assert not question.with_pidfd
    assert len(lines(log, "has sent proxyd descriptors over the system bus", logging.WARNING)) == 1


async def test_whoever_sends_descriptors_again_is_refused_by_the_bus_and_disturbs_nobody(
    question, stranger, null, log
):
    await trio.to_thread.run_sync(stranger.send, "h", null)
    await question.comes()
    for _ in range(100):
        await trio.to_thread.run_sync(stranger.send, "h", null)

    assert await question.answered() is None

    assert len(lines(log, "has sent proxyd descriptors")) == 1


async def test_the_end_does_not_wait_for_descriptors_that_came_unread(
    bus, polkitd, me, stranger, lingerers
):
    with never_held_up(), trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            question = Asking(await authority(nursery, bus.address), polkitd, me, nursery)
            await question.put()
            assert await question.answered() is None
            pass_on(stranger, lingerers)
            nursery.cancel_scope.cancel()


# ---- the socket by itself


@pytest.fixture
async def pair(no_descriptor_leaks):
    near, far = socket.socketpair()
    near.setblocking(False)
    with far:
        made = BusSocket(near)
        yield made, far
        made.close()


async def test_what_came_before_descriptors_is_not_read_with_them(pair, null):
    bus, far = pair
    far.send(b"before")
    socket.send_fds(far, [b"with"], [null])

    with pytest.raises(SentDescriptors):
        await bus.receive()


async def test_what_comes_between_the_look_and_the_read_is_not_read(pair, null, monkeypatch):
    bus, far = pair
    far.send(b"before")
    look = socket.socket.recvmsg_into

    def look_and_then_it_comes(*arguments):
        seen = look(*arguments)
        socket.send_fds(far, [b"with"], [null])
        return seen

    with monkeypatch.context() as patched:
        patched.setattr("socket.socket.recvmsg_into", look_and_then_it_comes)
        assert bytes(await bus.receive()) == b"before"

    with pytest.raises(SentDescriptors):
        await bus.receive()


async def test_the_end_of_a_bus_is_no_empty_message(pair):
    bus, far = pair
    far.close()
    with pytest.raises(BusGone):
        await bus.receive()


async def test_what_is_closed_with_nothing_of_a_strangers_is_closed_at_once(pair):
    bus, far = pair
    far.send(bytes(100_000))
    threads = threading.active_count()

    bus.close()

    assert threading.active_count() == threads
    with pytest.raises(BrokenPipeError):
        far.send(b"more")


async def test_a_close_does_not_wait_for_a_socket_that_lingers(pair, lingerers):
    bus, far = pair
    far.send(bytes(1000))
    socket.send_fds(far, [b"with"], [sock.fileno() for sock in lingerers])
    for sock in lingerers:
        sock.close()

    with never_held_up():
        bus.close()
