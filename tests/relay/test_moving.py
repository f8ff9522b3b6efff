"""A session moves from one relay loop to another, and nobody outside can tell."""

import socket
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.endpoint.sasl import SaslEndpoint
from proxyd.relay import moving
from proxyd.relay.figures import Stopwatch
from proxyd.relay.flow import Flow
from proxyd.relay.ledger import Ledger
from proxyd.relay.pair import CLIENT_CLOSED, RelayedPair
from proxyd.relay.trail import Outcome, Trail
from tests.bed.examples import examples
from tests.fakes.endpoints import HesitantEndpoint
from tests.fakes.layer import FakeLayer
from tests.relay.conversations import Talk, conversations, made, moments, steps
from tests.relay.moving import Recorder, SaslSocket, Travelling
from tests.relay.session import endpoint_on, open_descriptors, tcp_pair
from tests.relay.test_walk_properties import is_prefix

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
    Flow: {**moving.FLOW, **moving.FLOW_AT_TIMES},
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
            assert not loop.pipes.memory._of
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


def is_beginning(got, expected):
    """The last frame may be a stream packet that was filled up with zeros."""
    if got and got[-1] != expected[len(got) - 1]:
        (filled, _), (wire, _) = got.pop(), expected[len(got)]
        sent = len(filled.rstrip(b"\0"))
        if len(filled) != len(wire) or filled[:sent] != wire[:sent]:
            return False
    return is_prefix(got, expected)


@given(conversations, steps, moments, BUFFERS, PARTING, st.sampled_from(["client", "daemon"]))
@examples(200)
def test_what_arrives_before_an_end_is_a_part_of_what_was_sent(
    three_files, topics, steps, moments, buffer, parting_s, side
):
    before = open_descriptors()
    session = Travelling(buffer=buffer, parting_s=parting_s)
    talk = Talk(made(topics, carries=True), session, three_files)
    try:
        talk.take_steps(steps)
        (session.client if side == "client" else session.daemon).close()
        for moves in moments:
            if moves and not session.ended:
                session.move()
            session.turn()
            session.at_client.take()
            session.at_daemon.take()
        session.relay()
        assert is_beginning(talk.before_farewell, talk.expected_up)
        assert is_prefix(talk.at_client, talk.expected_down)
        assert is_prefix(talk.refused, talk.conversation.refused)
        (session.daemon if side == "client" else session.client).close()
        session.come_to_rest()
        assert session.ended
        assert session.reported == [session.pair]
        assert not any(loop.bugs or loop.partings.bugs for loop in session.loops)
        assert session.waits(0.005)
    finally:
        session.close()
    assert open_descriptors() == before


@given(conversations, steps, moments, BUFFERS)
@examples(100)
def test_a_client_that_has_ended_its_half_gets_all_that_it_has_asked_for(
    three_files, topics, steps, moments, buffer
):
    before = open_descriptors()
    session = Travelling(buffer=buffer, trail=(recorder := Recorder()).trail)
    talk = Talk(made(topics, carries=True), session, three_files)
    try:
        talk.take_steps(steps)
        while not talk.client.done:
            talk.run_out([])
        session.client.shutdown(socket.SHUT_WR)
        talk.run_out(moments)
        assert talk.at_daemon == talk.expected_up
        assert talk.at_client == talk.expected_down
        assert session.at_daemon.ended
        session.daemon.close()
        session.relay()
        assert session.ended
        assert session.reason == CLIENT_CLOSED
        assert not [each for each in recorder.calls if each[-1] is Outcome.UNANSWERED]
    finally:
        session.close()
    assert open_descriptors() == before


LONGEST_TOKENS = st.sampled_from([2000, 65536])


@given(conversations, steps, moments, BUFFERS, LONGEST_TOKENS)
@examples(150)
def test_a_security_layer_moves_along(three_files, topics, steps, moments, buffer, longest):
    before = open_descriptors()
    peers = []

    def ends():
        # Of TCP a small buffer is a slow one: its window opens by timers.
        near, far = tcp_pair() if buffer is None else socket.socketpair()
        if not peers:
            near = SaslSocket(near, longest)
        peers.append(near)
        return near, far

    session = Travelling(
        pair=ends,
        client_end=lambda sock: SaslEndpoint(endpoint_on(sock), FakeLayer(longest)),
        buffer=buffer,
    )
    talk = Talk(made(topics, carries=False), session, three_files)
    try:
        talk.take_steps(steps)
        talk.run_out(moments)
        session.turn_until(
            lambda: (
                talk.run_out([]),
                len(talk.at_client) == len(talk.expected_down)
                and len(talk.at_daemon) == len(talk.expected_up)
                and len(talk.refused) == len(talk.conversation.refused),
            )[1]
        )
        assert talk.at_daemon == talk.expected_up
        assert talk.at_client == talk.expected_down
        assert talk.refused == talk.conversation.refused
    finally:
        session.close()
    assert open_descriptors() == before
