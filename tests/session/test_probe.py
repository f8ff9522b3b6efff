"""Asking a daemon whether it is there: whatever stands behind the socket, an answer comes soon."""

import errno
import os
import socket

import pytest
from trio.testing import wait_all_tasks_blocked

from proxyd.config.routes import Destination
from proxyd.session import probe as probing
from proxyd.session.probe import Answered, probe
from proxyd.wire import failure
from proxyd.wire.programs import Remote
from tests.session.desk import eventually
from tests.session.scripted_daemon import HANG_UP, SILENCE, Raw

PATIENCE_S = 2.0


def at(path, unit=None):
    return Destination(name="test:///default", daemon="virttestd", path=str(path), unit=unit)


async def test_a_daemon_that_answers_is_told_with_its_milliseconds(daemon):
    said = await probe(at(daemon.path))

    assert said.trouble == ""
    assert 0 < said.ms < PATIENCE_S * 1000
    await eventually(lambda: daemon.line.closed, "the connection is closed again")
    assert daemon.line.calls == [Remote.AUTH_LIST, Remote.CONNECT_CLOSE]


async def test_an_error_is_an_answer_too(daemon):
    daemon.script[Remote.AUTH_LIST] = failure.internal("not now")
    assert (await probe(at(daemon.path))).trouble == ""


async def test_an_answer_may_come_in_two_halves(daemon, nursery):
    daemon.script[Remote.AUTH_LIST] = Raw(bytes.fromhex("0000001c 20008086 00000001"))
    said = []

    async def ask():
        said.append(await probe(at(daemon.path)))

    nursery.start_soon(ask)
    await eventually(lambda: daemon.lines and daemon.line.calls, "the first half")
    await wait_all_tasks_blocked()
    assert said == []
    daemon.line.sock.send(bytes.fromhex("00000042 00000001 00000000 00000000"))
    await eventually(lambda: said, "the answer")
    assert said[0].trouble == ""


@pytest.mark.parametrize("unit", [None, "virttestd.socket"])
async def test_a_socket_that_is_not_there_is_told_with_what_would_start_it(directory, unit):
    said = await probe(at(directory / "none", unit))

    assert said.ms is None
    assert said.trouble.startswith(f"Failed to connect socket to '{directory}/none': No such file")
    assert ("systemctl start virttestd.socket" in said.trouble) == (unit is not None)


async def test_a_socket_that_nobody_listens_at_is_told_as_refused(directory):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(directory / "dead"))
        said = await probe(at(directory / "dead"))

    assert said.ms is None
    assert os.strerror(errno.ECONNREFUSED) in said.trouble


async def test_this_proxy_does_not_ask_itself(directory):
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(directory / "own"))
        own.listen()
        assert "leads back to this proxy" in (await probe(at(directory / "own"))).trouble


async def test_a_daemon_that_hangs_up_is_told_so(daemon):
    daemon.script[Remote.AUTH_LIST] = HANG_UP
    assert await probe(at(daemon.path)) == Answered(None, "it hung up: closed")


async def test_a_daemon_that_resets_the_connection_is_told_so(directory, other_process, nursery):
    said = []

    async def ask():
        said.append(await probe(at(directory / "sock")))

    with other_process.listen(directory / "sock") as listener:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        listener.accept()[0].close()  # it has not read the call
        await eventually(lambda: said, "the answer")

    assert said == [Answered(None, f"it hung up: {os.strerror(errno.ECONNRESET)}")]


@pytest.mark.parametrize(
    "garbage", [b"220 mail.example.org ESMTP\r\n", b"\0\0\0\x03", b"\xff" * 40, bytes(40)]
)
async def test_what_is_no_libvirt_is_told_so(daemon, garbage):
    daemon.script[Remote.AUTH_LIST] = Raw(garbage)

    said = await probe(at(daemon.path))

    assert said.ms is None
    assert said.trouble.startswith("what it says is no libvirt: a frame length of ")


async def test_a_daemon_that_is_silent_is_asked_for_two_seconds_at_most(
    mock_clock, nursery, daemon
):
    daemon.script[Remote.AUTH_LIST] = SILENCE
    said = []

    async def ask():
        said.append(await probe(at(daemon.path)))

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    mock_clock.jump(PATIENCE_S - 0.01)
    await wait_all_tasks_blocked()
    assert said == []
    mock_clock.jump(0.02)
    await wait_all_tasks_blocked()

    assert said == [Answered(None, "no answer within 2 s")]
    assert daemon.line.closed


async def test_a_daemon_that_is_silent_is_given_up_on_the_systems_clock_too(daemon, monkeypatch):
    monkeypatch.setattr(probing, "_PATIENCE_S", 0.05)
    daemon.script[Remote.AUTH_LIST] = SILENCE
    assert (await probe(at(daemon.path))).trouble == "no answer within 0.05 s"


async def test_a_backlog_that_stays_full_takes_no_longer(directory, other_process, monkeypatch):
    monkeypatch.setattr(probing, "_PATIENCE_S", 0.05)
    listener = other_process.listen(directory / "full", backlog=0)
    with listener, socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(directory / "full"))
        assert (await probe(at(directory / "full"))).ms is None
