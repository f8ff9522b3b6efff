"""The states in which nothing moves: the loop waits, and every one of them ends."""

import select
import socket

import pytest

from tests.relay import frames
from tests.relay.session import SMALL_BUFFER, fill_up


def stall(session, direction):
    """Fills one direction until its flow stalls and the sender's socket is full."""
    sender, flow = {
        "up": (session.client, session.up),
        "down": (session.daemon, session.down),
    }[direction]
    stream = frames.packet(400, 1) * 10_000
    sent = 0
    while True:
        more = fill_up(sender, stream[sent:])
        sent += more
        session.come_to_rest()
        if flow.stalled and not select.select([], [sender], [], 0.01)[1]:
            return stream[sent:]


def stalled(session):
    stall(session, "up")


def stalled_down(session):
    stall(session, "down")


def both_stalled(session):
    stall(session, "up")
    stall(session, "down")


def stalled_and_the_sender_gone(session):
    stall(session, "up")
    session.client.close()


def stalled_and_the_sender_ended(session):
    stall(session, "up")
    session.client.shutdown(socket.SHUT_WR)


def stalled_and_the_daemon_ended(session):
    stall(session, "up")
    session.daemon.shutdown(socket.SHUT_WR)


def stalled_down_and_the_daemon_gone(session):
    stall(session, "down")
    session.daemon.close()


def stalled_down_and_the_client_ended(session):
    stall(session, "down")
    session.client.shutdown(socket.SHUT_WR)


def both_stalled_and_both_ended(session):
    both_stalled(session)
    session.client.shutdown(socket.SHUT_WR)
    session.daemon.shutdown(socket.SHUT_WR)


def client_ended(session):
    session.client.shutdown(socket.SHUT_WR)


def daemon_ended(session):
    session.daemon.shutdown(socket.SHUT_WR)


def client_reads_no_more(session):
    session.client.shutdown(socket.SHUT_RD)
    session.daemon.sendall(frames.reply(1))


def daemon_reads_no_more(session):
    session.daemon.shutdown(socket.SHUT_RD)
    session.client.sendall(frames.call(1))


def daemon_reads_no_more_and_the_client_ended(session):
    daemon_reads_no_more(session)
    session.client.shutdown(socket.SHUT_WR)


def paused(session):
    session.daemon.sendall(frames.packet(1000)[:500])
    session.come_to_rest()
    session.client.sendall(frames.set_identity(1))
    session.come_to_rest()
    assert session.up.paused
    session.client.sendall(frames.call(2))


def paused_and_the_client_ended(session):
    paused(session)
    session.client.shutdown(socket.SHUT_WR)


def paused_and_the_client_gone(session):
    paused(session)
    session.client.close()


def paused_and_stalled(session):
    left = stall(session, "down")
    assert left
    session.client.sendall(frames.set_identity(1))
    session.come_to_rest()
    assert session.up.paused
    session.client.sendall(frames.call(2))


def paused_and_stalled_and_the_client_ended(session):
    paused_and_stalled(session)
    session.client.shutdown(socket.SHUT_WR)


def in_a_header(session):
    session.client.sendall(frames.call(1)[:10])


def in_a_spliced_frame(session):
    session.client.sendall(frames.packet(100_000)[:4000])


def waiting_for_a_descriptor(session):
    session.client.sendall(frames.call_with_descriptors(1))


ODD_STATES = [
    stalled,
    stalled_down,
    both_stalled,
    stalled_and_the_sender_gone,
    stalled_and_the_sender_ended,
    stalled_and_the_daemon_ended,
    stalled_down_and_the_daemon_gone,
    stalled_down_and_the_client_ended,
    both_stalled_and_both_ended,
    client_ended,
    daemon_ended,
    client_reads_no_more,
    daemon_reads_no_more,
    daemon_reads_no_more_and_the_client_ended,
    paused,
    paused_and_the_client_ended,
    paused_and_the_client_gone,
    paused_and_stalled,
    paused_and_stalled_and_the_client_ended,
    in_a_header,
    in_a_spliced_frame,
    waiting_for_a_descriptor,
]


@pytest.mark.parametrize("state", ODD_STATES, ids=lambda state: state.__name__)
def test_a_session_in_which_nothing_can_move_lets_the_loop_wait(start, state):
    session = start(buffer=SMALL_BUFFER)
    state(session)
    session.come_to_rest()
    assert session.waits()
    assert session.waits()


@pytest.mark.parametrize("state", ODD_STATES, ids=lambda state: state.__name__)
def test_a_session_in_any_state_ends_when_both_sides_close(start, state):
    session = start(buffer=SMALL_BUFFER)
    state(session)
    session.come_to_rest()
    session.client.close()
    session.daemon.close()
    session.come_to_rest()
    assert session.ended
    assert session.waits()


@pytest.mark.parametrize("state", ODD_STATES, ids=lambda state: state.__name__)
def test_a_session_in_any_state_ends_when_both_sides_read_on_and_end(start, state):
    session = start(buffer=SMALL_BUFFER)
    state(session)
    session.relay()
    for sock in (session.client, session.daemon):
        if sock.fileno() != -1:
            sock.close()
    session.come_to_rest()
    assert session.ended


@pytest.mark.parametrize("state", ODD_STATES, ids=lambda state: state.__name__)
def test_a_session_in_any_state_is_dropped(start, state):
    session = start(buffer=SMALL_BUFFER)
    state(session)
    session.come_to_rest()
    session.loop.drop(session.pair.number, "dropped")
    session.turn()
    assert session.ended


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_receiver_that_is_killed_with_unread_data_ends_the_pair(start, direction):
    session = start(buffer=SMALL_BUFFER)
    stall(session, direction)
    receiver = session.daemon if direction == "up" else session.client
    receiver.close()
    session.come_to_rest()
    sender = session.client if direction == "up" else session.daemon
    sender.close()
    session.come_to_rest()
    assert session.ended
