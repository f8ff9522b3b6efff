"""Endpoints that hold bytes which epoll cannot see, or that read only when they can write."""

import os
import socket

import pytest
from OpenSSL import SSL

from proxyd.endpoint.contract import NOTHING
from proxyd.endpoint.plain import UnixEndpoint
from tests.bed.libvirt_reader import LibvirtReader
from tests.fakes.layer import framed, layered
from tests.fakes.tls import TLS_1_2, TLS_1_3, secured
from tests.relay.frames import call, packet, reply, second_open, set_identity
from tests.relay.session import DEADLINE_S, tcp_pair


class HoardingEndpoint(UnixEndpoint):
    """Takes what its socket has and gives it out in small pieces, as a decrypting one may."""

    piece = 7

    def __init__(self, sock):
        super().__init__(sock)
        self.held = bytearray()
        self.pending = False

    def read_into(self, view):
        room = memoryview(bytearray(1 << 20))
        got = super().read_into(room)
        if got > 0:
            self.held += room[:got]
        given = min(self.piece, len(view), len(self.held))
        view[:given] = self.held[:given]
        del self.held[:given]
        self.pending = bool(self.held)
        return given or got


class OwingEndpoint(UnixEndpoint):
    """Has a message of its own to send before it reads, for the first `owed` reads."""

    def __init__(self, sock, owed=1):
        super().__init__(sock)
        self.owed = owed
        self.reads_when_writable = False

    def read_into(self, view):
        self.reads_when_writable = self.owed > 0
        if self.owed:
            self.owed -= 1
            return NOTHING
        return super().read_into(view)


def test_what_epoll_cannot_see_is_relayed_to_the_last_byte(start):
    session = start(client_end=HoardingEndpoint)
    wires = [call(serial, os.urandom(100)) for serial in range(20)]
    session.send(session.client, b"".join(wires))
    assert session.at_daemon.wires == wires
    assert session.waits()


def test_it_takes_turns_with_the_sessions_that_epoll_does_see(start):
    session = start(client_end=HoardingEndpoint)
    other, daemon, _ = session.open()
    session.client.sendall(call(payload=bytes(5000)))
    session.turn(3)
    other.sendall(call())
    session.turn(2)
    assert daemon.recv(100) == call()
    assert session.pair.client.endpoint.pending


def test_what_is_pending_behind_a_stall_goes_on_when_the_stall_is_over(start):
    session = start(client_end=HoardingEndpoint, buffer=4608)
    session.pair.client.endpoint.piece = 60000
    wire = packet(100_000)
    rest = memoryview(wire)
    while not session.up.stalled:
        rest = rest[try_to(session.client.send, rest) :]
        session.come_to_rest()
    assert session.waits()
    while rest:
        rest = rest[try_to(session.client.send, rest) :]
        session.turn()
        session.at_daemon.take(500)
    session.relay()
    assert session.at_daemon.wires == [wire]


def test_what_is_pending_at_the_hand_over_is_relayed_without_an_event(start):
    def already_read(sock):
        endpoint = HoardingEndpoint(sock)
        endpoint.held += call(1) + call(2)
        endpoint.pending = True
        return endpoint

    session = start(client_end=already_read)
    session.relay()
    assert session.at_daemon.serials == [1, 2]


def test_a_pair_that_ends_with_bytes_pending_is_forgotten(start):
    session = start(client_end=HoardingEndpoint)
    session.client.sendall(call(payload=bytes(500)))
    session.turn(2)
    assert session.pair.client.endpoint.pending
    session.loop.drop(session.pair.number, "enough")
    session.turn(3)
    assert session.ended
    assert session.waits()


def test_a_read_that_owes_a_message_waits_for_room_and_then_for_input(start):
    session = start(client_end=lambda sock: OwingEndpoint(sock, owed=3))
    session.client.sendall(call(1))
    session.relay()
    session.client.sendall(call(2))
    session.relay()
    assert session.at_daemon.serials == [1, 2]
    assert session.waits()


def test_a_read_that_owes_a_message_at_a_full_socket_does_not_spin(start):
    session = start(client_end=lambda sock: OwingEndpoint(sock, owed=1), buffer=4608)
    endpoint = session.pair.client.endpoint
    filled = 0
    try:
        while True:
            filled += endpoint._sock.send(bytes(1024))
    except BlockingIOError:
        session.client.sendall(call(1))
    session.come_to_rest()
    assert endpoint.reads_when_writable
    assert session.waits()
    while filled:
        filled -= len(session.client.recv(filled))
    session.relay()
    assert session.at_daemon.serials == [1]


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["TLS 1.2", "TLS 1.3"])
class TestOverTls:
    @pytest.fixture
    def tls(self, start, version):
        """A session whose client speaks TLS, and that client."""
        peers = []

        def pair():
            peers.append(tcp_pair())
            return peers[-1]

        def client_end(sock):
            peer, endpoint = secured(peers[0][0], sock, version=version)
            peers.append(peer)
            return endpoint

        session = start(pair=pair, client_end=client_end)
        return session, next(peer for peer in peers if not isinstance(peer, tuple))

    @pytest.fixture
    def reader(self, tls):
        """Reads frames as libvirt does; none may share a record with another."""
        return LibvirtReader(tls[1].connection)

    def test_calls_go_up_and_replies_come_down(self, tls, reader):
        session, peer = tls
        for serial in range(5):
            peer.sendall(call(serial))
            session.turn_until(lambda: session.at_daemon.take() or session.at_daemon.wires)
            session.daemon.sendall(reply(serial))
            session.turn(2)
            assert reader.take(DEADLINE_S).pack() == reply(serial)

    def test_long_frames_arrive_whole_in_both_directions(self, tls, reader):
        session, peer = tls
        wire, received, sent = packet(262_148), None, 0
        session.daemon.setblocking(False)
        while received is None:
            if sent < len(wire):
                sent += try_to(session.daemon.send, wire[sent:])
            session.turn()
            received = reader.take()
        assert received.pack() == wire
        sent = 0
        while not session.at_daemon.wires:
            if sent < len(wire):
                sent += send(peer, wire[sent:])
            session.turn()
            session.at_daemon.take()
        assert session.at_daemon.wires == [wire]

    def test_replies_that_come_at_once_go_down_one_by_one(self, tls, reader):
        session, _ = tls
        sent = [reply(serial, bytes(serial)) for serial in range(50)]
        session.daemon.sendall(b"".join(sent))
        session.turn_until(lambda: not session.down.stalled and session.down.moved)
        assert [reader.take(DEADLINE_S).pack() for _ in sent] == sent

    def test_a_refusal_goes_between_two_replies(self, tls, reader):
        session, peer = tls
        wire, cut = reply(1) + reply(2, bytes(100)) + reply(5), 60
        session.daemon.sendall(wire[:cut])
        session.turn_until(lambda: session.down.moved == cut)
        peer.sendall(second_open(3) + set_identity(4))
        session.turn_until(lambda: session.up.paused)
        session.daemon.sendall(wire[cut:])
        session.turn_until(lambda: session.down.moved == len(wire))
        serials = [reader.take(DEADLINE_S).header.serial for _ in range(5)]
        assert serials == [1, 2, 3, 4, 5]

    def test_the_end_of_the_daemon_is_a_goodbye_behind_the_last_byte(self, tls, reader):
        session, peer = tls
        session.daemon.sendall(reply(1))
        session.daemon.close()
        session.turn_until(lambda: session.down.done)
        assert reader.take(DEADLINE_S).pack() == reply(1)
        assert reader.take(DEADLINE_S) is None
        assert reader.ended
        assert peer.connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN

    def test_a_client_that_ends_its_half_still_gets_the_answer(self, tls, reader):
        session, peer = tls
        peer.sendall(call(1))
        peer.say_goodbye()
        session.turn_until(lambda: session.up.done)
        session.at_daemon.take()
        assert session.at_daemon.ended
        session.daemon.sendall(reply(1))
        session.turn(3)
        assert reader.take(DEADLINE_S).pack() == reply(1)

    @pytest.mark.parametrize("goodbye", [True, False])
    def test_a_client_that_closes_right_behind_its_last_byte_is_delivered(self, tls, goodbye):
        session, peer = tls
        wire = b"".join(packet(40_000, serial) for serial in range(5))
        sent = 0
        while sent < len(wire):
            sent += send(peer, wire[sent:])
            session.turn()
        if goodbye:
            peer.say_goodbye()
        peer.close()
        session.turn_until(lambda: session.at_daemon.take() or session.at_daemon.ended)
        assert b"".join(session.at_daemon.wires) == wire

    def test_a_forged_record_ends_the_session_with_a_reason(self, tls):
        session, peer = tls
        peer.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        session.turn_until(lambda: session.ended)
        assert session.reason.startswith("the client is gone: TLS: ")


class TestBelowASaslLayer:
    @pytest.fixture
    def sasl(self, start):
        """A session whose client wraps everything, and that client."""
        pairs, peers = [], []

        def pair():
            pairs.append(tcp_pair())
            return pairs[-1]

        def client_end(sock):
            peer, endpoint = layered(pairs[0][0], sock)
            peers.append(peer)
            return endpoint

        session = start(pair=pair, client_end=client_end)
        return session, peers[0]

    def test_calls_go_up_and_replies_come_down(self, sasl):
        session, peer = sasl
        for serial in range(5):
            peer.sendall(call(serial))
            session.turn_until(lambda: session.at_daemon.take() or session.at_daemon.wires)
            session.daemon.sendall(reply(serial))
            session.turn(2)
            assert peer.recv(1000) == reply(serial)

    def test_many_tokens_at_once_go_up_to_the_last_one(self, sasl):
        session, peer = sasl
        wires = [call(serial, os.urandom(100)) for serial in range(50)]
        peer.sock.sendall(b"".join(peer.token(wire) for wire in wires))
        session.turn_until(lambda: session.at_daemon.take() or len(session.at_daemon.wires) == 50)
        assert session.at_daemon.wires == wires
        assert session.waits()

    def test_long_frames_arrive_whole_in_both_directions(self, sasl):
        session, peer = sasl
        wire = packet(262_148)
        received, sent = bytearray(), 0
        session.daemon.setblocking(False)
        peer.sock.setblocking(False)
        while len(received) < len(wire):
            if sent < len(wire):
                sent += try_to(session.daemon.send, wire[sent:])
            session.turn()
            received += try_to(peer.recv, 1 << 16) or b""
        assert received == wire
        tokens = b"".join(peer.token(wire[at : at + 50_000]) for at in range(0, len(wire), 50_000))
        while not session.at_daemon.wires:
            if tokens:
                tokens = tokens[try_to(peer.sock.send, tokens) :]
            session.turn()
            session.at_daemon.take()
        assert session.at_daemon.wires == [wire]

    def test_a_client_that_ends_its_half_still_gets_the_answer(self, sasl):
        session, peer = sasl
        peer.sendall(call(1))
        peer.shutdown(socket.SHUT_WR)
        session.turn_until(lambda: session.up.done)
        session.at_daemon.take()
        assert session.at_daemon.ended
        session.daemon.sendall(reply(1))
        session.turn(3)
        assert peer.recv(1000) == reply(1)

    def test_a_bad_token_ends_the_session_behind_what_was_good(self, sasl):
        session, peer = sasl
        peer.sock.sendall(peer.token(call(1)) + framed(bytes(40)))
        session.turn_until(lambda: session.ended)
        session.at_daemon.take()
        assert session.at_daemon.serials == [1]
        assert session.reason == "the client is gone: SASL: a token that is not the next one"


def try_to(method, data):
    try:
        return method(data)
    except BlockingIOError:
        return 0


def send(peer, data):
    try:
        return peer.connection.send(data)
    except (SSL.WantWriteError, SSL.WantReadError):
        return 0
