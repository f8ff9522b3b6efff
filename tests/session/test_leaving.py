"""Who has been told all that there is to say is closed when it has closed, or after a second."""

import socket
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from proxyd.admission.holder import Holder, Rank
from proxyd.endpoint.plain import PlainEndpoint, UnixEndpoint
from proxyd.session.leaving import MOST_BYTES, PATIENCE_S, Leaving
from tests.relay.frames import send_descriptor

JOE = Holder("10.0.0.1", Rank.NETWORK)
ANN = Holder("10.0.0.2", Rank.NETWORK)


@pytest.fixture
async def leaving(nursery):
    return await running(nursery, 4)


async def running(nursery, most):
    made = Leaving(most)
    nursery.start_soon(made.run)
    await trio.testing.wait_all_tasks_blocked()
    return made


@pytest.fixture
def pair():
    """Two ends: an endpoint of ours, and the client's socket."""
    with ExitStack() as stack:

        def make(kind=PlainEndpoint):
            ours, theirs = socket.socketpair()
            stack.callback(theirs.close)
            theirs.setblocking(False)
            return kind(ours), theirs

        yield make


def is_open(theirs):
    """Whether a write still reaches somebody: the next one of a client would kill it."""
    try:
        theirs.send(b"x", socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


async def test_it_hears_the_end_and_may_go_on_writing_until_it_closes(leaving, pair):
    endpoint, theirs = pair()
    endpoint.write(memoryview(b"no"))
    leaving.part(endpoint, JOE)

    assert theirs.recv(9) == b"no"
    assert theirs.recv(9) == b""
    assert is_open(theirs)
    theirs.shutdown(socket.SHUT_WR)
    with trio.fail_after(0.5):
        await leaving.gone()


@pytest.mark.parametrize("kind", [PlainEndpoint, UnixEndpoint])
async def test_one_that_never_closes_is_closed_after_a_second(leaving, pair, kind, autojump_clock):
    endpoint, theirs = pair(kind)
    leaving.part(endpoint, JOE)
    began = trio.current_time()
    await leaving.gone()
    assert trio.current_time() - began == pytest.approx(PATIENCE_S, abs=0.01)
    assert not is_open(theirs)


async def test_one_that_goes_on_writing_is_closed_after_so_many_bytes(leaving, pair):
    endpoint, theirs = pair()
    leaving.part(endpoint, JOE)
    sent = 0
    with trio.fail_after(PATIENCE_S / 2):
        while True:
            try:
                sent += theirs.send(bytes(4096), socket.MSG_NOSIGNAL)
            except BlockingIOError:
                await trio.lowlevel.checkpoint()
            except OSError:
                break
            await trio.lowlevel.checkpoint()
    assert sent >= MOST_BYTES


async def test_what_is_unread_does_not_cost_it_the_last_word(leaving, pair):
    endpoint, theirs = pair(UnixEndpoint)
    theirs.send(bytes(8192))
    endpoint.write(memoryview(b"no"))
    leaving.part(endpoint, JOE)
    await trio.sleep(0.05)
    assert theirs.recv(9) == b"no"
    assert is_open(theirs)


async def test_descriptors_that_it_sends_are_nobodys(leaving, pair):
    endpoint, theirs = pair(UnixEndpoint)
    endpoint.take_descriptors()
    leaving.part(endpoint, JOE)
    send_descriptor(theirs, theirs.fileno())
    with trio.fail_after(0.5):
        await leaving.gone()


async def test_there_are_so_many_at_one_time_and_who_has_most_makes_way(leaving, pair):
    joes = [pair() for _ in range(4)]
    for endpoint, _ in joes:
        leaving.part(endpoint, JOE)
    anns, anns_end = pair()
    leaving.part(anns, ANN)
    assert [is_open(theirs) for _, theirs in joes] == [False, True, True, True]
    assert is_open(anns_end)


async def test_where_nobody_may_stay_it_is_closed_at_once(pair, nursery):
    leaving = await running(nursery, 0)
    endpoint, theirs = pair()
    leaving.part(endpoint, JOE)
    assert not is_open(theirs)


async def test_at_the_end_all_of_them_are_closed(pair):
    leaving = Leaving(4)
    endpoint, theirs = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leaving.run)
        await trio.testing.wait_all_tasks_blocked()
        leaving.part(endpoint, JOE)
        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert not is_open(theirs)
    late, late_end = pair()
    leaving.part(late, JOE)
    assert not is_open(late_end)
