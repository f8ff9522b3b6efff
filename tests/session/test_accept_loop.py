import errno
import logging
import os
import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.admission.admission import Admission
from proxyd.session.accept_loop import accept_clients
from tests.session.desk import OPEN_TO_ALL, SOMEBODY, lines, no_more_descriptors


class Listener:
    """A real listener; `troubles` are errors that its next accepts raise instead."""

    def __init__(self, sock):
        self.sock = sock
        self.troubles = []
        self.accepts = 0

    def fileno(self):
        return self.sock.fileno()

    def accept(self):
        self.accepts += 1
        if self.troubles:
            number = self.troubles.pop(0)
            raise OSError(number, os.strerror(number))
        return self.sock.accept()


class Bench:
    """An accept loop with its listener, its limits, and the connections that it gave away."""

    def __init__(self, directory):
        self.path = str(directory / "door")
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        sock.bind(self.path)
        sock.listen(100)
        self.listener = Listener(sock)
        self.admission = Admission(max_clients=100, max_anonymous=0)
        self.started, self.places = [], []
        self.callers = []

    def call(self, count=1):
        for _ in range(count):
            caller = socket.socket(socket.AF_UNIX)
            caller.connect(self.path)
            self.callers.append(caller)

    def start(self, sock):
        self.started.append(sock)
        self.places.append(self.admission.seat(SOMEBODY))

    def leave(self):
        self.admission.left(self.places.pop())

    async def run(self):
        await accept_clients(self.listener, OPEN_TO_ALL, self.admission, self.start)

    def close(self):
        for sock in (self.listener.sock, *self.started, *self.callers):
            sock.close()


@pytest.fixture
def bench(directory):
    made = Bench(directory)
    yield made
    made.close()


async def test_whoever_waits_and_whoever_comes_later_is_accepted(bench, nursery):
    bench.call(3)
    nursery.start_soon(bench.run)
    await wait_all_tasks_blocked()
    assert len(bench.started) == 3

    bench.call()
    await wait_all_tasks_blocked()

    assert len(bench.started) == 4
    assert not any(sock.get_inheritable() for sock in bench.started)


async def test_nobody_is_accepted_beyond_the_limit(bench, nursery):
    bench.admission.change(max_clients=2, max_anonymous=0)
    bench.call(5)

    nursery.start_soon(bench.run)
    await wait_all_tasks_blocked()
    assert len(bench.started) == 2

    bench.leave()
    await wait_all_tasks_blocked()
    assert len(bench.started) == 3


async def test_while_others_wait_a_client_that_leaves_is_no_news(bench, nursery, log):
    bench.admission.change(max_clients=2, max_anonymous=0)
    bench.call(5)
    nursery.start_soon(bench.run)
    await wait_all_tasks_blocked()

    for _ in range(2):
        bench.leave()
        await wait_all_tasks_blocked()

    assert len(bench.started) == 4
    assert len(lines(log, "no room for more clients")) == 1
    assert len(lines(log, "there is room again")) == 0


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_out_of_descriptors_the_loop_backs_off_says_so_once_and_recovers(
    bench, nursery, mock_clock, log, number
):
    bench.listener.troubles = [number] * 5
    bench.call()
    nursery.start_soon(bench.run)
    for turn in range(1, 6):
        await wait_all_tasks_blocked()
        assert (bench.listener.accepts, bench.started) == (turn, [])
        mock_clock.jump(0.5)

    await wait_all_tasks_blocked()

    assert len(bench.started) == 1
    assert [record.levelno for record in log.records] == [logging.WARNING] * 2
    assert log.messages == [
        f"libvirt-sock: cannot accept: {os.strerror(number)};"
        " new clients wait until something is freed",
        "libvirt-sock: accepting again",
    ]


async def test_a_real_shortage_of_descriptors_is_survived(bench, nursery, mock_clock, log):
    bench.call()
    with no_more_descriptors():
        nursery.start_soon(bench.run)
        for _ in range(3):
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
    assert bench.started == []

    mock_clock.jump(1)
    await wait_all_tasks_blocked()

    assert len(bench.started) == 1
    assert len(lines(log, "cannot accept")) == 1


@pytest.mark.parametrize(
    "number", [errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.ETIMEDOUT]
)
async def test_a_client_that_was_gone_before_it_was_accepted_costs_no_other_a_wait(
    bench, nursery, mock_clock, log, number
):
    bench.listener.troubles = [number, number]
    bench.call(2)

    nursery.start_soon(bench.run)
    await wait_all_tasks_blocked()

    assert len(bench.started) == 2
    assert {record.levelno for record in log.records} == {logging.DEBUG}


async def spans_in(bench, clock, seconds):
    """How often the loop asked within each second, for as many as these."""
    counts = []
    for _ in range(seconds):
        before = bench.listener.accepts
        for _ in range(100):
            clock.jump(0.01)
            await wait_all_tasks_blocked()
        counts.append(bench.listener.accepts - before)
    return counts


@pytest.mark.parametrize(
    "number", [errno.EINVAL, errno.EBADF, errno.EACCES, errno.EIO, errno.ECONNABORTED, errno.EPERM]
)
async def test_an_error_that_may_last_for_ever_is_told_once_and_tried_ever_more_seldom(
    bench, nursery, mock_clock, log, number
):
    bench.listener.troubles = [number] * 1000
    bench.call()

    nursery.start_soon(bench.run)
    await wait_all_tasks_blocked()
    *_, last = counts = await spans_in(bench, mock_clock, 12)

    assert counts[0] <= 10
    assert last <= 1
    told = [record for record in log.records if record.levelno > logging.DEBUG]
    assert [record.levelno for record in told] == [logging.ERROR]
    assert told[0].getMessage() == (
        f"libvirt-sock: cannot accept: {os.strerror(number)};"
        " it is tried again; if that does not help soon, restart proxyd"
    )


async def test_when_it_works_again_after_such_an_error_that_is_said_and_nothing_is_slow(
    bench, nursery, mock_clock, log
):
    bench.listener.troubles = [errno.EINVAL] * 20
    bench.call()
    nursery.start_soon(bench.run)
    await wait_all_tasks_blocked()
    while not bench.started:
        mock_clock.jump(5)
        await wait_all_tasks_blocked()
    assert len(lines(log, "accepting again", logging.WARNING)) == 1

    bench.listener.troubles = [errno.EINVAL]
    bench.call()
    await wait_all_tasks_blocked()
    mock_clock.jump(0.01)
    await wait_all_tasks_blocked()

    assert len(bench.started) == 2
    assert len(lines(log, "accepting again", logging.WARNING)) == 2


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
async def test_a_real_listener_that_was_shut_down_keeps_nobody_busy(
    bench, nursery, mock_clock, log, family
):
    if family is socket.AF_INET:
        bench.listener.sock.close()
        bench.listener.sock = socket.create_server(("127.0.0.1", 0))
        bench.listener.sock.setblocking(False)
    bench.listener.sock.shutdown(socket.SHUT_RDWR)

    nursery.start_soon(bench.run)
    await spans_in(bench, mock_clock, 10)

    assert bench.listener.accepts < 150
    assert len(lines(log, "cannot accept", logging.ERROR)) == 1


async def test_many_who_come_one_after_the_other_are_no_trouble(bench, nursery, log):
    nursery.start_soon(bench.run)
    for count in range(1, 300):
        bench.admission.change(max_clients=1000, max_anonymous=0)
        bench.call()
        await wait_all_tasks_blocked()
        assert len(bench.started) == count

    assert not lines(log, "cannot accept")


async def test_a_burst_does_not_keep_the_loop_from_others(bench, nursery):
    bench.call(50)
    seen = []

    async def other():
        while len(bench.started) < 50:
            seen.append(len(bench.started))
            await trio.lowlevel.checkpoint()

    nursery.start_soon(bench.run)
    nursery.start_soon(other)
    await wait_all_tasks_blocked()

    assert len(seen) >= 40
