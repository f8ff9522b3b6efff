"""The loop: who is watched for what, how pairs end, and what one pair's end costs the others."""

import os
import select
import socket
import struct
import threading

import pytest

from proxyd.relay.flow import SPLICE_ABOVE
from proxyd.relay.loop import EVENTS_A_TURN, RelayLoop
from proxyd.relay.pair import CLIENT_CLOSED, DAEMON_CLOSED, RelayedPair
from proxyd.wire.programs import Remote
from tests.fakes.endpoints import HesitantEndpoint
from tests.relay import frames
from tests.relay.receiver import Receiver
from tests.relay.session import (
    DEADLINE_S,
    SMALL_BUFFER,
    endpoint_on,
    fill,
    open_descriptors,
    tcp_pair,
    unix_pair,
)

PAIRS = [unix_pair, tcp_pair]


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# With its own thread.


class Running:
    """A loop in its thread, and what it reported."""

    def __init__(self):
        self.reported = []
        self._one_more = threading.Semaphore(0)
        self.loop = RelayLoop(report=self._report)
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()
        self.sockets = []

    def _report(self, pair):
        self.reported.append(pair)
        self._one_more.release()

    def adopt(self, number):
        client, near = unix_pair()
        daemon, far = unix_pair()
        self.sockets += [client, daemon]
        client.settimeout(DEADLINE_S)
        daemon.settimeout(DEADLINE_S)
        pair = RelayedPair(
            number,
            endpoint_on(near),
            endpoint_on(far),
            pipes=self.loop.pipes,
            figures=self.loop.figures,
            now_ns=0,
        )
        self.loop.adopt(pair)
        return client, daemon, pair

    def wait_for_report(self):
        assert self._one_more.acquire(timeout=DEADLINE_S)
        return self.reported[-1]

    def stop(self):
        if self.thread.is_alive():
            self.loop.stop("the test is over")
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def running(no_descriptor_leaks):
    running = Running()
    yield running
    running.stop()


def test_another_thread_adopts_and_drops(running):
    client, daemon, pair = running.adopt(7)
    client.sendall(frames.call(1))
    assert daemon.recv(100) == frames.call(1)
    daemon.sendall(frames.reply(1))
    assert client.recv(100) == frames.reply(1)
    running.loop.drop(7, "an administrator said so")
    assert running.wait_for_report() is pair
    assert pair.reason == "an administrator said so"
    assert client.recv(1) == daemon.recv(1) == b""


def test_what_came_before_the_adoption_is_relayed(running):
    client, near = unix_pair()
    daemon, far = unix_pair()
    running.sockets += [client, daemon]
    client.sendall(frames.call(1))
    client.shutdown(socket.SHUT_WR)
    daemon.settimeout(DEADLINE_S)
    running.loop.adopt(
        RelayedPair(
            1,
            endpoint_on(near),
            endpoint_on(far),
            pipes=running.loop.pipes,
            figures=running.loop.figures,
            now_ns=0,
        )
    )
    assert daemon.recv(100) == frames.call(1)
    assert daemon.recv(100) == b""


def test_dropping_who_has_ended_or_never_was_is_fine(running):
    client, _, pair = running.adopt(1)
    running.loop.drop(1, "first")
    running.loop.drop(1, "second")
    running.loop.drop(99, "nobody")
    assert running.wait_for_report() is pair
    assert client.recv(1) == b""
    client, daemon, _ = running.adopt(2)
    client.sendall(frames.call(1))
    assert daemon.recv(100) == frames.call(1)
    assert running.reported == [pair]
    assert pair.reason == "first"


def test_stopping_ends_every_pair_and_then_the_thread(running):
    sessions = [running.adopt(number) for number in range(5)]
    running.loop.stop("proxyd is going")
    running.thread.join(DEADLINE_S)
    assert not running.thread.is_alive()
    assert {pair.reason for _, _, pair in sessions} == {"proxyd is going"}
    assert len(running.reported) == 5
    for client, daemon, _ in sessions:
        assert client.recv(1) == daemon.recv(1) == b""


def test_adopting_dropping_and_traffic_at_the_same_time_end_well(running):
    def some(first):
        for number in range(first, first + 50):
            client, daemon, _ = running.adopt(number)
            client.sendall(frames.call(number))
            assert daemon.recv(100) == frames.call(number)
            running.loop.drop(number, "done")

    threads = [threading.Thread(target=some, args=(first,)) for first in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    for _ in range(150):
        running.wait_for_report()
    assert len({pair.number for pair in running.reported}) == 150
    assert running.loop.bugs == 0


def test_bulk_in_both_directions_of_many_pairs_arrives(running):
    wires = [frames.packet(size, size) for size in (100_000, 50, 262_144, 33_000, 1_500_000)]
    sessions = [running.adopt(number) for number in range(8)]
    senders = [
        threading.Thread(target=sock.sendall, args=(b"".join(wires),))
        for client, daemon, _ in sessions
        for sock in (client, daemon)
    ]
    for sender in senders:
        sender.start()
    receivers = [
        receiver
        for client, daemon, _ in sessions
        for receiver in (Receiver.at_client(client.dup()), Receiver.at_daemon(daemon.dup()))
    ]
    open_ones = {receiver.sock: receiver for receiver in receivers}
    while open_ones:
        readable = select.select(open_ones, [], [], DEADLINE_S)[0]
        assert readable
        for sock in readable:
            open_ones[sock].take()
            if len(open_ones[sock].arrived) == len(wires):
                del open_ones[sock]
    for sender in senders:
        sender.join(DEADLINE_S)
    assert all(receiver.wires == wires for receiver in receivers)
    for receiver in receivers:
        receiver.sock.close()


def test_orders_to_a_loop_that_has_stopped_raise_nothing_and_touch_no_foreign_descriptor(running):
    """Its eventfd is closed by then, and the number may be somebody's socket already."""
    running.stop()
    inherited = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(8)]
    try:
        running.loop.drop(1, "too late")
        running.loop.stop("twice")
        assert not select.select(inherited, [], [], 0)[0]
    finally:
        for each in inherited:
            os.close(each)


def test_a_pair_that_is_adopted_by_a_loop_that_has_stopped_is_ended_and_reported(running):
    running.stop()
    client, daemon, pair = running.adopt(1)
    try:
        assert running.reported == [pair]
        assert client.recv(1) == daemon.recv(1) == b""
    finally:
        pair.close()


# How pairs end.


@pytest.mark.parametrize("pair", PAIRS)
def test_a_pair_whose_sides_both_ended_is_closed_and_reported_once(start, pair):
    session = start(pair=pair)
    session.client.shutdown(socket.SHUT_WR)
    session.turn_until(lambda: session.up.done)
    assert not session.ended
    session.daemon.shutdown(socket.SHUT_WR)
    session.turn_until(lambda: session.ended)
    session.turn(3)
    assert session.reported == [session.pair]
    assert session.reason == CLIENT_CLOSED


def test_a_daemon_that_ends_first_is_the_reason(session):
    session.daemon.shutdown(socket.SHUT_WR)
    session.relay()
    session.client.shutdown(socket.SHUT_WR)
    session.relay()
    assert session.reason == DAEMON_CLOSED


def test_a_daemon_that_ends_because_it_was_asked_to_is_not_the_reason(session):
    session.send(session.client, frames.call(1, procedure=Remote.CONNECT_CLOSE))
    session.daemon.sendall(frames.reply(1, procedure=Remote.CONNECT_CLOSE))
    session.daemon.close()
    session.relay()
    assert session.ended
    assert session.reason == CLIENT_CLOSED


def test_a_client_that_closed_in_front_of_a_daemon_that_sleeps_ends_at_once(session):
    session.client.sendall(frames.call(1))
    session.client.close()
    session.come_to_rest()
    assert session.ended
    assert session.reason == CLIENT_CLOSED
    session.at_daemon.take()
    assert session.at_daemon.serials == [1]
    assert session.at_daemon.ended


def test_a_daemon_that_closed_in_front_of_a_client_that_sleeps_ends_at_once(session):
    session.daemon.sendall(frames.reply(1))
    session.daemon.close()
    session.come_to_rest()
    assert session.ended
    assert session.reason == DAEMON_CLOSED
    session.at_client.take()
    assert session.at_client.serials == [1]


@pytest.mark.parametrize("pair", PAIRS)
def test_a_client_that_ended_its_half_gets_the_answer_that_comes_later(start, pair):
    session = start(pair=pair)
    session.client.sendall(frames.call(1))
    session.client.shutdown(socket.SHUT_WR)
    session.turn_until(lambda: (session.at_daemon.take(), session.at_daemon.ended)[1])
    assert session.at_daemon.serials == [1]
    assert session.waits()
    session.send(session.daemon, frames.packet(200_000, 1))
    session.daemon.close()
    session.turn_until(lambda: session.ended)
    session.relay()
    assert session.at_client.serials == [1]
    assert session.at_client.ended


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("side", ["client", "daemon"])
def test_a_reset_ends_both_sides_after_what_came_before_it(start, pair, side):
    session = start(pair=pair)
    one, other = session.client, session.at_daemon
    if side == "daemon":
        one, other = session.daemon, session.at_client
    session.send(one, frames.call(1))
    if pair is unix_pair:
        session.send(other.sock, frames.call(2))  # closed with this unread, if it is not taken
        other.sock.sendall(frames.call(3))
        session.come_to_rest()
    one.sendall(frames.call(4))
    reset(one)
    session.turn_until(lambda: session.ended)
    session.relay()
    assert other.serials in ([1, 4], [1]) if pair is tcp_pair else other.serials == [1, 4]
    assert other.ended
    assert side in session.reason
    assert ("daemon" if side == "client" else "client") not in session.reason


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_sender_that_is_gone_is_delivered_to_the_last_byte(start, direction, pair):
    session = start(pair=pair, buffer=SMALL_BUFFER)
    sender, receiver = session.client, session.at_daemon
    if direction == "down":
        sender, receiver = session.daemon, session.at_client
    wires = [frames.packet(400, serial) for serial in range(10_000)]
    wire, sent = b"".join(wires), 0
    while more := fill(sender, wire[sent:]):
        sent += more
        session.come_to_rest()
    sender.close()
    session.turn_until(lambda: (receiver.take(), receiver.ended)[1])
    assert b"".join(receiver.wires) + receiver.cut_off == wire[:sent]
    receiver.sock.close()  # over TCP nothing tells that the sender does not read either
    session.turn_until(lambda: session.ended)


@pytest.mark.parametrize("sent", [10, 1000, SPLICE_ABOVE + 1000, 1_000_000])
def test_dropping_in_the_middle_of_bulk_closes_everything(start, sent):
    session = start(buffer=SMALL_BUFFER)
    wire = frames.packet(2_000_000, 1)
    before = open_descriptors()
    at = 0
    while at < sent:
        at += fill(session.client, wire[at:])
        session.turn()
        session.at_daemon.take(1000)
    session.loop.drop(session.pair.number, "dropped")
    session.turn()
    assert session.ended
    assert session.reason == "dropped"
    assert open_descriptors() == before - 2  # the pipe that was in use is not kept
    session.at_daemon.take()
    assert session.at_daemon.ended


# Many pairs, one loop.


def test_hundreds_of_pairs_leave_the_descriptors_as_they_were(start):
    session = start()
    before = open_descriptors()
    for _ in range(300):
        client, daemon, _ = session.open()
        session.turn()
        client.sendall(frames.call(1))
        session.turn()
        assert daemon.recv(100) == frames.call(1)
        client.close()
        daemon.close()
        session.turn(2)
    session.turn_until(lambda: len(session.reported) == 300)
    assert open_descriptors() == before


def test_hundreds_of_pairs_at_once_are_all_served_and_dropped(start):
    session = start()
    before = open_descriptors()
    others = [session.open() for _ in range(3 * EVENTS_A_TURN)]
    for client, _, _ in others:
        client.sendall(frames.call(1))
    session.turn(6)
    for client, daemon, pair in others:
        assert daemon.recv(100) == frames.call(1)
        session.loop.drop(pair.number, "dropped")
        client.close()
        daemon.close()
    session.turn()
    assert len(session.reported) == len(others)
    assert open_descriptors() == before


def test_a_fast_stream_does_not_hold_up_a_slow_call(start):
    session = start()
    streaming, sink, _ = session.open()
    stream = frames.packet(1_000_000)
    fill(streaming, stream)
    session.client.sendall(frames.call(1))
    session.turn(2)
    session.at_daemon.take()
    assert session.at_daemon.serials == [1]
    assert sink.recv(100)


def test_an_event_for_a_pair_that_ended_in_the_same_turn_reaches_nobody(start):
    session = start()
    others = [session.open() for _ in range(10)]
    session.turn()
    for client, daemon, _ in others:
        daemon.sendall(frames.reply(1))
        client.sendall(bytes(28))  # no frame: ends the pair in the turn that has both events
    session.turn()
    assert len(session.reported) == 10
    fresh = [session.open() for _ in range(10)]  # on the numbers that have just come free
    session.turn()
    for client, daemon, _ in fresh:
        client.sendall(frames.call(1))
        session.turn()
        assert daemon.recv(100) == frames.call(1)
    assert len(session.reported) == 10
    assert session.loop.bugs == 0


def test_an_event_that_came_before_its_flow_stalled_in_the_same_turn_is_left_for_later(start):
    """The refusal is taken in part; what the daemon said at the same time must not overtake it."""
    session = start(client_end=HesitantEndpoint)
    session.pair.client.endpoint.takes.extend([10])
    session.client.sendall(frames.set_identity(1))
    session.daemon.sendall(frames.reply(2))
    session.turn()  # both events, the client's first
    session.relay()
    assert session.at_client.serials == [1, 2]


def test_a_pair_adopted_in_the_turn_that_frees_its_numbers_is_served(start):
    session = start()
    for number in range(20):
        client, _, pair = session.open()
        session.turn()
        session.loop.drop(pair.number, "dropped")
        client.sendall(bytes(28))
        session.turn()
        fresh_client, fresh_daemon, _ = session.open()
        fresh_client.sendall(frames.call(number))
        session.turn(2)
        assert fresh_daemon.recv(100) == frames.call(number)
