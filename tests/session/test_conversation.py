import contextlib
import os
import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.endpoint.contract import NOTHING, HungUp
from proxyd.endpoint.plain import UnixEndpoint
from proxyd.session.conversation import Conversation
from tests.relay.frames import send_descriptor
from tests.session.desk import open_descriptors


@pytest.fixture
def pair(no_descriptor_leaks):
    """A conversation and the socket at its other end."""
    near, far = socket.socketpair()
    far.setblocking(False)
    with far:
        conversation = Conversation(UnixEndpoint(near))
        yield conversation, far
        conversation.endpoint.close()


async def test_what_is_there_is_received_at_once(pair):
    conversation, far = pair
    far.send(b"hello")

    assert bytes(await conversation.receive(100)) == b"hello"


async def test_no_more_is_taken_than_was_asked_for(pair):
    conversation, far = pair
    far.send(b"hello")

    assert bytes(await conversation.receive(2)) == b"he"

    assert bytes(await conversation.receive(100)) == b"llo"


async def test_bytes_that_come_later_are_waited_for(pair, nursery):
    conversation, far = pair
    received = []

    async def receive():
        received.append(bytes(await conversation.receive(100)))

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    assert received == []

    far.send(b"late")
    await wait_all_tasks_blocked()

    assert received == [b"late"]


async def test_the_end_is_a_hang_up_after_everything_was_received(pair):
    conversation, far = pair
    far.send(b"last")
    far.shutdown(socket.SHUT_WR)

    assert bytes(await conversation.receive(100)) == b"last"

    with pytest.raises(HungUp):
        await conversation.receive(100)


async def test_descriptors_that_nobody_expects_end_it_and_are_not_taken(pair, null):
    conversation, far = pair
    conversation.endpoint.take_descriptors()
    before = open_descriptors()
    far.send(b"bytes")
    send_descriptor(far, null, b"with one")

    assert bytes(await conversation.receive(100)) == b"bytes"
    with pytest.raises(HungUp, match="descriptors that nobody asked for"):
        await conversation.receive(100)

    assert open_descriptors() == before


async def test_everything_is_sent_even_where_little_fits(pair, nursery):
    conversation, far = pair
    whole = os.urandom(1_000_000)
    nursery.start_soon(conversation.send, whole)

    received = b""
    while len(received) < len(whole):
        await trio.lowlevel.wait_readable(far)
        received += far.recv(65536)

    assert received == whole


async def test_a_send_can_be_given_up(pair):
    conversation, _ = pair
    with trio.move_on_after(0.01) as deadline:
        await conversation.send(bytes(10_000_000))
    assert deadline.cancelled_caught


async def test_sending_to_whoever_has_gone_is_a_hang_up(pair):
    conversation, far = pair
    far.close()
    with pytest.raises(HungUp) as hung_up:
        await conversation.send(b"anybody?")
    assert hung_up.value.while_writing


async def test_two_conversations_do_not_mix_their_bytes(nursery):
    heard = {}

    async def listen(conversation, name):
        heard[name] = bytes(await conversation.receive(100))

    pairs = [socket.socketpair() for _ in range(10)]
    endpoints = [UnixEndpoint(near) for near, _ in pairs]
    for number, endpoint in enumerate(endpoints):
        nursery.start_soon(listen, Conversation(endpoint), number)
    await wait_all_tasks_blocked()
    for number, (_, far) in enumerate(pairs):
        far.send(b"%d" % number * 20)
    await wait_all_tasks_blocked()

    assert heard == {number: b"%d" % number * 20 for number in range(10)}
    for endpoint, (_, far) in zip(endpoints, pairs, strict=True):
        endpoint.close()
        far.close()


# ---- nobody else waits


class Turns:
    """Counts the turns of the loop in which somebody else could have been served."""

    def __init__(self):
        self.count = 0

    async def run(self):
        while True:
            await trio.lowlevel.checkpoint()
            self.count += 1


@pytest.fixture
async def turns(nursery):
    made = Turns()
    nursery.start_soon(made.run)
    await trio.lowlevel.checkpoint()
    return made


async def test_who_has_sent_a_thousand_things_at_once_lets_others_in_between(pair, turns):
    conversation, far = pair
    far.send(bytes(1000))

    for _ in range(1000):
        await conversation.receive(1)

    assert turns.count >= 1000 // 4 - 1


async def test_a_call_as_libvirt_writes_it_costs_the_turn_in_which_it_came(pair, turns):
    conversation, far = pair
    for _ in range(20):
        await conversation.send(b"a reply")
        far.recv(100)
        far.send(b"a header" + b"what is behind it")
        before = turns.count
        assert bytes(await conversation.receive(8)) == b"a header"
        came = turns.count

        assert bytes(await conversation.receive(17)) == b"what is behind it"

        assert turns.count == came <= before + 2


async def test_a_cancellation_is_noticed_although_there_is_more_to_receive(pair):
    conversation, far = pair
    far.send(bytes(100))
    received = 0
    with trio.CancelScope() as scope:
        while True:
            await conversation.receive(1)
            received += 1
            if received == 10:
                scope.cancel()

    assert received == 10


async def test_a_deadline_is_noticed_although_there_is_always_more_to_receive(pair):
    conversation, far = pair
    with trio.fail_after(10), trio.move_on_after(0.01) as deadline:
        while True:
            far.send(bytes(10))
            for _ in range(10):
                await conversation.receive(1)

    assert deadline.cancelled_caught


async def in_crumbs(far, what, pause_s):
    for each in what:
        await trio.sleep(pause_s)
        far.send(bytes([each]))


async def whole(conversation, count):
    """That many bytes, and in how many parts they came."""
    received, parts = b"", 0
    while len(received) < count:
        received += await conversation.receive(count - len(received))
        parts += 1
    return received, parts


async def test_who_writes_byte_by_byte_is_heard_ever_more_seldom(autojump_clock, pair, nursery):
    conversation, far = pair
    sent = os.urandom(30_000)
    nursery.start_soon(in_crumbs, far, sent, 0.001)  # as long as a client may take to come in

    received, parts = await whole(conversation, len(sent))

    assert received == sent
    assert parts < 350


async def test_what_came_in_few_parts_is_not_waited_for_longer(autojump_clock, pair, nursery):
    conversation, far = pair
    began = trio.current_time()
    for _ in range(100):
        nursery.start_soon(in_crumbs, far, b"frame", 0.001)
        await whole(conversation, 5)

    assert trio.current_time() - began == pytest.approx(100 * 0.005)


async def test_who_wrote_in_crumbs_and_then_does_no_more_is_heard_at_once(
    autojump_clock, pair, nursery
):
    conversation, far = pair
    nursery.start_soon(in_crumbs, far, bytes(100), 0.001)
    await whole(conversation, 100)
    began = trio.current_time()

    for _ in range(100):
        far.send(b"frame")
        assert bytes(await conversation.receive(5)) == b"frame"

    assert trio.current_time() == began


class Sealed:
    """An endpoint that understands nothing before `size` bytes are there, as TLS and SASL are."""

    pending = False
    reads_when_writable = False

    def __init__(self, sock, size):
        self.sock = sock
        self.size = size
        self.held = b""
        self.reads = 0

    def fileno(self):
        return self.sock.fileno()

    def read_into(self, view):
        self.reads += 1
        with contextlib.suppress(BlockingIOError):
            self.held += self.sock.recv(65536)
        if len(self.held) < self.size:
            return NOTHING
        got = min(len(view), len(self.held))
        view[:got], self.held = self.held[:got], self.held[got:]
        return got


async def test_crumbs_of_what_is_encrypted_are_crumbs_too(autojump_clock, nursery):
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        sealed = Sealed(near, 30_000)
        nursery.start_soon(in_crumbs, far, bytes(30_000), 0.001)

        await Conversation(sealed).receive(100)

        assert sealed.reads < 350
