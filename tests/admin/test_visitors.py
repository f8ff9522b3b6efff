"""The server `admin`: who counts, what is limited, what cannot be changed."""

import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.admin.view import CallRefused, Limits, PoolBounds
from proxyd.admin.visitors import AdminServer
from proxyd.config.transports import Transport

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


@pytest.fixture
def server():
    return AdminServer(max_clients=2)


@pytest.fixture
def arrive(server):
    made = []

    def arrive():
        near, far = socket.socketpair()
        visitor = server.arrived(near)
        made.append((visitor, far))
        return visitor

    yield arrive
    for visitor, far in made:
        visitor.endpoint.close()
        far.close()


def test_visitors_count_from_their_arrival_to_their_end(server, arrive):
    first, second = arrive(), arrive()
    assert server.clients() == [first, second]
    assert not server.admission.has_room(Transport.UNIX)
    server.left(first)
    assert server.clients() == [second]
    assert server.admission.has_room(Transport.UNIX)


def test_a_number_is_never_given_twice(server, arrive):
    server.left(arrive())
    again = arrive()
    assert again.number == 2
    assert (server.find(1), server.find(2)) == (None, again)


async def test_a_new_limit_lets_those_in_who_wait(server, arrive, nursery):
    arrive(), arrive()
    let_in = trio.Event()

    async def wait():
        await server.admission.room(Transport.UNIX)
        let_in.set()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert not let_in.is_set()

    server.set_limits(Limits(max_clients=3, max_anonymous=1))

    await let_in.wait()
    assert server.limits == Limits(max_clients=3, max_anonymous=1)


def test_a_limit_that_would_lock_everybody_out_is_refused(server):
    with pytest.raises(CallRefused, match="lock everybody out") as no:
        server.set_limits(Limits(max_clients=0, max_anonymous=0))
    assert (no.value.failure.code, no.value.failure.domain) == (8, 0)
    assert server.limits == Limits(max_clients=2, max_anonymous=0)


def test_the_pool_is_the_one_thread_that_answers(server):
    assert (server.pool.workers, server.pool.free_workers) == (1, 0)
    server.set_pool(PoolBounds(min_workers=1, max_workers=1, prio_workers=0))
    with pytest.raises(CallRefused, match="minWorkers and maxWorkers are 1"):
        server.set_pool(PoolBounds(min_workers=1, max_workers=2, prio_workers=0))


async def test_there_are_no_certificates_to_load(server):
    with pytest.raises(CallRefused, match="no TLS listener") as no:
        await server.update_tls()
    assert (no.value.failure.code, no.value.failure.domain) == (1, 7)


@pytest.mark.parametrize("change", ["arrival", "end"])
async def test_a_change_can_be_waited_for(server, arrive, nursery, change):
    visitor = arrive()
    changed = trio.Event()

    async def wait():
        await server.admission.wait_change()
        changed.set()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert not changed.is_set()
    if change == "arrival":
        arrive()
    else:
        server.left(visitor)
    await changed.wait()
