"""A session moves from one relay loop to another, and nobody outside can tell."""

import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.relay import moving
from proxyd.relay.figures import Stopwatch
from proxyd.relay.flow import Flow
from proxyd.relay.ledger import Ledger
from proxyd.relay.pair import RelayedPair
from proxyd.relay.trail import Trail
from tests.bed.examples import examples
from tests.fakes.endpoints import HesitantEndpoint
from tests.relay.conversations import Talk, conversations, made, moments, steps
from tests.relay.moving import Recorder, Travelling
from tests.relay.session import open_descriptors

SMALL = 8192
BUFFERS = st.sampled_from([None, SMALL])
PARTING = st.sampled_from([0, 30])


@pytest.fixture(scope="module")
def three_files():
    with (
        tempfile.TemporaryFile() as one,
        tempfile.TemporaryFile() as two,
        tempfile.TemporaryFile() as three,
    ):
        yield [each.fileno() for each in (one, two, three)]


TABLES = {
    Flow: moving.FLOW,
    Stopwatch: moving.STOPWATCH,
    RelayedPair: moving.PAIR,
    Ledger: {},
    Trail: {},
}


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_of_every_attribute_it_is_said_how_it_moves(kind):
    table, derived = TABLES[kind], moving.DERIVED[kind]
    assert not table.keys() & derived.keys()
    assert sorted(table.keys() | derived.keys()) == sorted(kind.__slots__)


takes = st.lists(st.sampled_from([0, 1, 10, 28, 33, 1000, 1 << 30]), max_size=12)


def talk(topics, steps, moments, files, recorder, **kind):
    session = Travelling(trail=recorder.trail, **kind)
    talk = Talk(made(topics, carries=True), session, files)
    try:
        talk.take_steps(steps)
        talk.run_out(moments)
        assert not session.ended, session.reason
        assert talk.at_daemon == talk.expected_up
        assert talk.at_client == talk.expected_down
        assert talk.refused == talk.conversation.refused
        assert not any(loop.bugs for loop in session.loops)
        said = session.counted, session.figures, sorted(recorder.calls, key=repr)
        session.client.close()
        session.come_to_rest()
        assert session.ended
        assert session.reported == [session.pair]
        for loop in session.loops:
            assert not loop.pipes._bytes
            assert not loop.pipes._held
    finally:
        session.close()
    return said


@given(conversations, steps, moments, BUFFERS, takes, takes, PARTING)
@examples(300)
def test_nobody_outside_can_tell_that_a_session_moves(
    three_files, topics, steps, moments, buffer, client_takes, daemon_takes, parting_s
):
    before = open_descriptors()
    kind = {"buffer": buffer, "parting_s": parting_s}
    moved = talk(
        topics,
        steps,
        moments,
        three_files,
        Recorder(),
        client_end=lambda sock: HesitantEndpoint(sock, client_takes),
        daemon_end=lambda sock: HesitantEndpoint(sock, daemon_takes),
        **kind,
    )
    stayed = talk(topics, [], [], three_files, Recorder(), **kind)
    assert moved == stayed
    assert open_descriptors() == before
