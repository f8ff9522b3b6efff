"""Hundreds of sessions of a client that tries everything, through the whole daemon.

Thousands more go through the relay alone (tests/relay/test_guard_mixes.py).
"""

import os
import random
import socket
from collections import Counter

import pytest

from tests.bed.daemon import short_directory
from tests.bed.waiting import wait_until
from tests.fakes import mixes
from tests.fakes.recording_daemon import RecordingDaemon, answer
from tests.relay.seeds import seeds
from tests.system.rpc import opened, send_descriptor

pytestmark = pytest.mark.system

SESSIONS = 400


@pytest.fixture
def recorder():
    with short_directory() as directory, RecordingDaemon(directory / "recorder") as daemon:
        yield daemon


@pytest.mark.parametrize("count", [SESSIONS, pytest.param(10_000, marks=pytest.mark.long)])
def test_no_guarded_call_reaches_the_daemon_and_nothing_else_is_lost(
    make_proxyd, recorder, tmp_path, count
):
    front = make_proxyd(
        {
            "proxyd_routes": [f"test={recorder.path}"],
            "log_level": 4,
            "proxyd_parting_timeout": 0,  # what arrives is the client's alone
        },
        backend_dir=tmp_path,
    )
    before = len(front.descriptors())
    files = [os.open(tmp_path / str(number), os.O_CREAT | os.O_RDWR) for number in range(3)]
    for seed in seeds(count):
        try:
            check_session(random.Random(seed), front, recorder, files)
        except BaseException as error:
            error.add_note(f"PROXYD_TEST_SEED={seed}")
            raise
    for each in files:
        os.close(each)
    # Pipes for long frames are kept by intent.
    wait_until(lambda: len(front.descriptors()) <= before + 16, 10, "descriptors are as before")
    with opened(front.sock):
        pass
    assert "Traceback" not in front.log_text()


def check_session(rng, front, recorder, files):
    readonly = rng.random() < 0.3
    sent = mixes.mix(rng, descriptors=not readonly)
    passed = []
    with opened(front.sock_ro if readonly else front.sock) as client:
        connection = recorder.connections[-1]
        for message in mixes.messages(rng, sent):
            if message is None:
                passed.append(os.fstat(files[rng.randrange(3)]).st_ino)
                send_descriptor(client.sock, by_inode(files, passed[-1]))
            else:
                client.send(message)
        received = [client.receive() for each in sent if each.guarded or each.answered]
        client.sock.shutdown(socket.SHUT_WR)
        assert client.receive() is None
    connection.thread.join(10)
    try:
        check(sent, iter(passed), received, connection)
    except AssertionError as error:
        error.add_note(mixes.without_wire(sent))
        raise


def by_inode(files, inode):
    return next(each for each in files if os.fstat(each).st_ino == inode)


def check(sent, passed, received, connection):
    assert connection.failure is None
    behind = [(each, tuple(next(passed) for _ in range(each.descriptors))) for each in sent]
    expected = [(each.wire, files) for each, files in behind if not each.guarded]
    assert connection.arrived == expected
    assert None not in received, "the session ended early"
    refused = Counter(frame.header.serial for frame in received if mixes.is_refusal(frame))
    assert refused == Counter(at for at, each in enumerate(sent) if each.guarded)
    replies = [frame.pack() for frame in received if not mixes.is_refusal(frame)]
    assert replies == [
        answer(mixes.frame_of(each)).pack() for each in sent if each.answered and not each.guarded
    ]
