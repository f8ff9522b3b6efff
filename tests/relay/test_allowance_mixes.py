"""Thousands of sessions of a client that tries everything: a daemon gets what its allowance has.

The daemon keeps what reaches it and sends frames of its own meanwhile; some sessions move to
another loop in the midst, some are recorded. A session is told by its seed, which is in the message
of a failure: PROXYD_TEST_SEED=… repeats that one alone.
"""

import random

import pytest

from proxyd.relay.guards import restricted
from proxyd.wire.frame import HEADER_SIZE, Frame
from tests.fakes import forbidden_mixes, mixes
from tests.relay.moving import Recorder, Travelling
from tests.relay.seeds import seeds
from tests.relay.session import open_descriptors, tcp_pair, unix_pair
from tests.relay.test_guard_mixes import event, passes, push, sends

SESSIONS = 5000
PARTS = 10  # each is a test, so that none takes long
GUARDS = restricted(forbidden_mixes.allowance())


@pytest.mark.parametrize(
    "part", [0, *(pytest.param(part, marks=pytest.mark.long) for part in range(1, PARTS))]
)
def test_a_daemon_gets_all_that_is_allowed_and_nothing_else(files, inodes, part):
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
    sent = forbidden_mixes.mix(rng, descriptors=local)
    down = [event(rng, number) for number in range(rng.randint(0, 4))]
    recorder = Recorder()
    session = Travelling(
        pair=unix_pair if local else tcp_pair,
        guards=GUARDS,
        trail=recorder.trail if rng.random() < 0.5 else lambda: None,
    )
    try:
        passed = play(rng, session, mixes.messages(rng, sent), b"".join(down), files)
        arrive(session, sent, down)
        check(session, sent, down, [inodes[at] for at in passed])
    except AssertionError as error:
        error.add_note(", ".join(each.told for each in sent))
        raise
    finally:
        session.close()


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
        if rng.random() < 0.05:
            session.move()
    session.send(session.daemon, down)
    return passed


def arrive(session, sent, down):
    """Over TCP a turn may come before the bytes."""
    up = sum(each.passes for each in sent)
    answered = sum(each.answered for each in sent)
    session.turn_until(
        lambda: (
            session.relay(),
            session.ended
            or (
                len(session.at_daemon.arrived) >= up
                and len(session.at_client.arrived) >= len(down) + answered
            ),
        )[1]
    )
    session.relay()


def check(session, sent, down, inodes):
    assert not session.ended, session.reason
    descriptors = iter(inodes)
    behind = [(each, tuple(next(descriptors) for _ in range(each.descriptors))) for each in sent]
    expected = [(each.wire, files) for each, files in behind if each.passes]
    assert [(each.wire, each.files) for each in session.at_daemon.arrived] == expected
    received = [Frame(each.header, each.wire[HEADER_SIZE:]) for each in session.at_client.arrived]
    refused = [each.header.serial for each in received if forbidden_mixes.is_refusal(each)]
    assert refused == [at for at, each in enumerate(sent) if each.answered]
    others = [each.pack() for each in received if not forbidden_mixes.is_refusal(each)]
    assert others == down
