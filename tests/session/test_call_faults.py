"""Every system call of a session's set-up fails once, with everything the kernel can be short of.

Whoever connects then is told so, or is hung up on; everybody else notices nothing.
"""

import errno
import logging
import select
import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxyd.admission.admission import Admission
from proxyd.peer.names import NameService
from proxyd.session.accept_loop import accept_clients
from proxyd.session.presence import Presence
from proxyd.wire.programs import Remote
from tests.fakes.failing_calls import SHORTAGES, failing_calls
from tests.session.desk import (
    OPEN_TO_ALL,
    Desk,
    KnownNames,
    failure_of,
    lines,
    succeeded,
    tracebacks,
)


@pytest.fixture
def calls():
    with failing_calls() as watched:
        yield watched


@pytest.fixture
async def desk(calls, daemon, nursery):
    """Names are known, so that all of a set-up is in this thread."""
    made = Desk(daemon, KnownNames(), nursery)
    nursery.start_soon(made.relay.run)
    nursery.start_soon(made.presence.run)
    yield made
    made.hang_up()


async def visit(desk):
    """A session from its first byte to its last: what it was answered, None for a hang-up."""
    caller = desk.connect()
    answers = []
    try:
        for procedure in (Remote.AUTH_LIST, None, Remote.CONNECT_GET_LIB_VERSION):
            answer = await (caller.call(procedure) if procedure else caller.open())
            answers.append(answer)
            if not succeeded(answer):
                break
    except BrokenPipeError:
        answers.append(None)
    desk.callers.remove(caller)
    caller.close()
    return answers


@pytest.mark.parametrize("number", SHORTAGES, ids=errno.errorcode.get)
async def test_whichever_call_fails_costs_one_client_at_the_most(desk, calls, log, number):
    beside = await desk.opened()
    with calls.active():
        assert succeeded((await visit(desk))[-1])
    made, served = len(calls.made), 0
    assert {"connect", "epoll_ctl", "open", "recvmsg_into", "send", "socket"} <= set(calls.made)
    for nth in range(made):
        with calls.active(nth, number):
            *_, last = await visit(desk)
        served += succeeded(last)
        if last is not None and not succeeded(last):
            assert failure_of(last).message
        assert succeeded(await beside.call(Remote.CONNECT_GET_LIB_VERSION)), calls.failed
        assert not tracebacks(log), calls.failed
    assert served < made
    await desk.is_as_before()


async def test_a_listener_that_cannot_be_watched_says_so_and_is_tried_again(
    calls, directory, other_process, mock_clock, log
):
    accepted = []
    admission = Admission(max_clients=10, max_anonymous=0)
    with (
        other_process.listen(directory / "door") as listener,
        socket.socket(socket.AF_UNIX) as client,
    ):
        async with trio.open_nursery() as nursery:
            # accept finds nobody, then the wait for somebody fails.
            with calls.active(1, errno.ENOSPC):
                nursery.start_soon(
                    accept_clients, listener, OPEN_TO_ALL, admission, accepted.append
                )
                await wait_all_tasks_blocked()
                assert calls.failed.startswith("epoll_ctl")
            client.connect(listener.getsockname())
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    (sock,) = accepted
    sock.close()
    assert [each.levelno for each in log.records] == [logging.WARNING] * 2
    assert lines(log, "cannot accept: No space left on device; new clients wait")
    assert lines(log, "accepting again")


async def test_a_look_at_who_has_gone_that_fails_is_made_again(mock_clock, nursery, monkeypatch):
    class ShortOfMemory:
        def register(self, *_):
            pass

        def poll(self, _):
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

    presence, gone = Presence(), trio.Event()
    nursery.start_soon(presence.run)
    near, far = socket.socketpair()
    with far, presence.watched(far.fileno(), gone.set):
        near.close()
        with monkeypatch.context() as patch:
            patch.setattr(select, "poll", ShortOfMemory)
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
        assert not gone.is_set()
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert gone.is_set()


async def test_without_a_thread_to_ask_for_names_a_client_is_told_so(daemon, nursery, log):
    desk = Desk(daemon, NameService(), nursery)
    nursery.start_soon(desk.relay.run)

    async def none(*_, **__):
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", none)
        told = failure_of(await desk.connect().call(Remote.AUTH_LIST))

    assert "can't start new thread" in told.message
    assert told.int1 == errno.EAGAIN
    assert not tracebacks(log)
    await desk.is_as_before()


async def test_an_end_that_trio_was_not_woken_for_is_heard_of_at_its_next_turn(
    desk, log, monkeypatch
):
    """Trio queues what it is given before it wakes itself, which takes a send."""
    caller = await desk.opened()
    original = trio.lowlevel.TrioToken.run_sync_soon

    def queued(token, *call):
        original(token, *call)
        raise OSError(errno.ENOBUFS, "No buffer space available")

    with monkeypatch.context() as patch:
        patch.setattr(trio.lowlevel.TrioToken, "run_sync_soon", queued)
        caller.close()
        await desk.admission.wait_change()

    assert lines(log, "was not woken: No buffer space available", logging.WARNING)
    assert not tracebacks(log)
    assert not desk.roster.clients
