import os
import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.endpoint.contract import HungUp
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
