"""Messages between two processes: whole, in order, with their descriptors, or not at all."""

import os
import resource
import socket
import struct

import pytest
import trio
import trio.testing

from proxyd.upgrade.channel import Channel, ChannelBroken, Gone, channel_pair


@pytest.fixture
def ends():
    ours, theirs = channel_pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


async def test_messages_come_whole_and_in_order(ends):
    here, there = map(Channel, ends)
    sent = [{"number": at, "content": bytes([at]) * at * 5000} for at in range(40)]

    async def send():
        for each in sent:
            await here.send("session", each)
        here.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        received = [await there.receive() for _ in sent]
        with pytest.raises(ChannelBroken, match="ended"):
            await there.receive()
    assert [each.document for each in received] == sent
    assert {each.kind for each in received} == {"session"}


@pytest.mark.parametrize("text", [0, 65_000, 65_501, 65_518, 70_000, 200_000])
@pytest.mark.parametrize("beside", [0, 1, 65_000, 200_000])
async def test_a_message_of_any_length_comes_whole(ends, text, beside):
    here, there = map(Channel, ends)
    document = {"text": "x" * text, "beside": os.urandom(beside)}

    async def send():
        await here.send("a", document)
        await here.send("b")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        first, second = await there.receive(), await there.receive()
    assert first.document == document
    assert (first.kind, second.kind) == ("a", "b")


async def test_descriptors_come_with_their_message(ends):
    here, there = map(Channel, ends)
    first, second = os.pipe()
    await here.send("a", {"x": b"1"}, [first, second])
    await here.send("b")
    message = await there.receive()
    assert len(message.descriptors) == 2
    os.write(message.descriptors[1], b"through")
    assert os.read(first, 10) == b"through"
    assert not os.get_inheritable(message.descriptors[0])
    held = list(message.descriptors)
    message.close()
    assert not any(map(is_open, held))
    assert (await there.receive()).descriptors == []
    os.close(first)
    os.close(second)


async def test_descriptors_that_find_no_room_are_missed(ends):
    here, there = map(Channel, ends)
    count = 4
    await here.send("session", {}, [0] * count)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 2, hard))
    try:
        message = await there.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(message.descriptors) < count
    assert message.lost
    message.close()


@pytest.mark.parametrize(
    "wire",
    [
        b"hello",
        b"x" * 18,
        struct.pack(">4sHIQ", b"prxd", 0, 1 << 30, 0),
        struct.pack(">4sHIQ", b"prxd", 0, 2, 1 << 60),
        struct.pack(">4sHIQ", b"prxd", 0, 2, 0) + b"too long",
    ],
)
async def test_nonsense_breaks_it(ends, wire):
    there = Channel(ends[1])
    socket.send_fds(ends[0], [wire], [0, 0])
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ChannelBroken):
        await there.receive()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_an_end_in_the_midst_of_a_message_breaks_it(ends):
    there = Channel(ends[1])
    ends[0].send(struct.pack(">4sHIQ", b"prxd", 0, 10, 0))
    ends[0].send(b"12345")
    ends[0].close()
    for _ in range(2):
        with pytest.raises(ChannelBroken, match="midst"):
            await there.receive()


async def test_a_message_that_was_broken_off_is_the_last(ends):
    here = Channel(ends[0])
    with trio.move_on_after(0.05) as scope:
        await here.send("session", {"content": bytes(8 << 20)})  # which nobody reads
    assert scope.cancelled_caught
    with pytest.raises(ChannelBroken, match="broken off"):
        await here.send("a")


async def test_who_waits_for_a_message_can_be_told_to_stop(ends):
    here, there = map(Channel, ends)
    await here.send("a", {"content": bytes(200_000)})
    there.stop_waiting()
    found = []
    async with trio.open_nursery() as nursery:

        async def hear():
            found.append(await there.receive())

        nursery.start_soon(hear)
    assert found in ([None], [found[0]])
    another = Channel(there.detached())
    if found == [None]:
        assert (await another.receive()).kind == "a"
    await here.send("b")
    assert (await another.receive()).kind == "b"
    another.close()


def test_a_descriptor_that_is_no_channel_is_told():
    read, write = os.pipe()
    with pytest.raises(OSError, match=r"no channel|socket"):
        Channel.of(read)
    os.close(read)
    os.close(write)


async def test_what_a_process_said_before_it_died_is_heard(ends):
    """The kernel first tells that it has not read all, and gives out its words behind that."""
    here, there = map(Channel, ends)
    await here.send("session", {"content": bytes(200_000)})
    await there.send("has", {"number": 1})
    await there.send("has", {"number": 2})
    there.close()
    with pytest.raises(ChannelBroken):
        await here.send("session")
    heard = [(await here.receive()).document["number"] for _ in range(2)]
    assert heard == [1, 2]
    for _ in range(2):
        with pytest.raises(Gone):
            await here.receive()


async def test_whoever_is_cancelled_over_a_message_hears_it_later(ends):
    here, there = map(Channel, ends)
    content = bytes(range(256)) * 1000
    text = b'{"kind":"session","content":{"bytes":[0,256000]}}'
    head = struct.pack(">4sHIQ", b"prxd", 1, len(text), len(content))
    socket.send_fds(ends[0], [head], [0])
    with trio.move_on_after(0.01) as scope:
        await there.receive()
    assert scope.cancelled_caught
    ends[0].send(text)
    with trio.move_on_after(0.01) as scope:
        await there.receive()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:

        async def send():
            for at in range(0, len(content), 65536):
                await here._sock.send(content[at : at + 65536])

        nursery.start_soon(send)
        message = await there.receive()
    assert message.document == {"content": content}
    assert len(message.descriptors) == 1
    message.close()


async def test_a_channel_that_is_closed_over_a_message_closes_its_descriptors(ends):
    there = Channel(ends[1])
    socket.send_fds(ends[0], [struct.pack(">4sHIQ", b"prxd", 2, 10, 0)], [0, 0])
    before = len(os.listdir("/proc/self/fd"))
    with trio.move_on_after(0.01):
        await there.receive()
    assert len(os.listdir("/proc/self/fd")) == before + 2
    there.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


async def test_what_is_under_way_in_one_direction_does_not_concern_the_other(ends):
    here, there = map(Channel, ends)
    large = {"content": bytes(8 << 20)}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send, "session", large)
        await trio.testing.wait_all_tasks_blocked()  # nobody reads it
        await there.send("has", {"number": 1})
        answer = await here.receive()
        assert answer.document == {"number": 1}
        nursery.start_soon(there.receive)
        await trio.testing.wait_all_tasks_blocked()
        await there.send("has", {"number": 2})
    assert (await here.receive()).document == {"number": 2}
