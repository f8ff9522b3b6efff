"""Thousands of sessions of a client that tries everything: no guarded call reaches a daemon.

The daemon keeps what reaches it and sends frames of its own meanwhile. A session is told by its
seed, which is in the message of a failure: PROXYD_TEST_SEED=… repeats that one alone.
"""

import random
from collections import Counter

import pytest

from proxyd.wire.frame import HEADER_SIZE, Frame, FrameType
from tests.fakes import mixes
from tests.relay import frames
from tests.relay.seeds import seeds
from tests.relay.session import HandTurned, fill, open_descriptors, tcp_pair, unix_pair

SESSIONS = 5000
PARTS = 5  # each is a test, so that none takes long


@pytest.mark.parametrize(
    "part", [0, *(pytest.param(part, marks=pytest.mark.long) for part in range(1, PARTS))]
)
def test_no_guarded_call_reaches_the_daemon_and_nothing_else_is_lost(files, inodes, part):
    before = open_descriptors()
    for seed in seeds(SESSIONS // PARTS):
        try:
            check_session(random.Random(seed), files, inodes)
        except BaseException as error:
            error.add_note(f"PROXYD_TEST_SEED={seed}")
            raise
    assert open_descriptors() == before


def check_session(rng, files, inodes):
    local = rng.random() < 0.8
    sent = mixes.mix(rng, descriptors=local)
    down = [event(rng, number) for number in range(rng.randint(0, 4))]
    session = HandTurned(pair=unix_pair if local else tcp_pair)
    try:
        passed = play(rng, session, mixes.messages(rng, sent), b"".join(down), files)
        arrive(session, len(sent), len(down), sum(each.guarded for each in sent))
        check(session, sent, down, [inodes[at] for at in passed])
    except AssertionError as error:
        error.add_note(mixes.without_wire(sent))
        raise
    finally:
        session.close()


def event(rng, number):
    size = rng.choice((0, 5, 100, 5000, 70_000))
    return frames.frame(FrameType.MESSAGE, number, rng.randbytes(size), procedure=318)


def play(rng, session, messages, down, files):
    """Sends everything, now one side and now the other; which files went, in order."""
    passed = []
    for message in messages:
        if message is None:
            passed.append(rng.randrange(3))
            down = push(session, passes(session, files[passed[-1]]), down)
        else:
            down = push(session, sends(session, message), down)
        if down and rng.random() < 0.3:
            cut = rng.randint(1, len(down))
            session.send(session.daemon, down[:cut])
            down = down[cut:]
        elif rng.random() < 0.1:
            session.relay()
    session.send(session.daemon, down)
    return passed


def push(session, steps, down):
    """All of it from the client. What is left of `down` ends a frame that a refusal waits for."""
    for _ in steps:
        session.turn()
        session.at_client.take()
        session.at_daemon.take()
        if session.up.paused and down:
            session.send(session.daemon, down)
            down = b""
    return down


def sends(session, wire):
    """Ends when all of it has been taken; others go on meanwhile."""
    while wire:
        wire = wire[fill(session.client, wire) :]
        yield


def passes(session, file):
    while True:
        try:
            frames.send_descriptor(session.client, file)
        except BlockingIOError:
            yield
        else:
            return


def arrive(session, up, down, guarded):
    """Over TCP a turn may come before the bytes."""
    session.turn_until(
        lambda: (
            session.relay(),
            session.ended
            or (
                len(session.at_daemon.arrived) >= up - guarded
                and len(session.at_client.arrived) >= down + guarded
            ),
        )[1]
    )
    session.relay()


def check(session, sent, down, inodes):
    assert not session.ended, session.reason
    passed = iter(inodes)
    behind = [(each, tuple(next(passed) for _ in range(each.descriptors))) for each in sent]
    expected = [(each.wire, files) for each, files in behind if not each.guarded]
    assert [(each.wire, each.files) for each in session.at_daemon.arrived] == expected
    received = [Frame(each.header, each.wire[HEADER_SIZE:]) for each in session.at_client.arrived]
    refused = Counter(each.header.serial for each in received if mixes.is_refusal(each))
    assert refused == Counter(at for at, each in enumerate(sent) if each.guarded)
    assert [each.pack() for each in received if not mixes.is_refusal(each)] == down
