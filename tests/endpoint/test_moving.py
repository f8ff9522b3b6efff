"""Ends that somebody else goes on with: at every byte, with all that they hold."""

import socket

import pytest

from proxyd.endpoint.contract import NOTHING
from proxyd.endpoint.moving import endpoint_from
from proxyd.endpoint.plain import PlainEndpoint, UnixEndpoint
from proxyd.endpoint.sasl import SaslEndpoint
from proxyd.endpoint.tls import TlsEndpoint
from tests.bed.pairs import tcp_pair
from tests.fakes.layer import FakeLayer, SaslPeer
from tests.fakes.tls import TLS_1_3, secured
from tests.relay.moving import from_text, to_text

# Of every attribute: what makes it anew.
ATTRIBUTES = {
    PlainEndpoint: {"_sock": "the socket", "_fd": "the socket"},
    UnixEndpoint: {"_bury": "a constant", "_looks": "looks"},
    SaslEndpoint: {
        "_bare": "below",
        "_layer": "layer",
        "_held": "held",
        "_plain": "plain",
        "_unsent": "unsent",
        "_wrapped": "wrapped",
        "pending": "plain and held",
    },
}


@pytest.mark.parametrize("kind", ATTRIBUTES, ids=lambda kind: kind.__name__)
def test_of_every_attribute_it_is_said_how_it_moves(kind):
    assert sorted(ATTRIBUTES[kind]) == sorted(kind.__slots__)
    assert kind.moves


def moved(endpoint, sock):
    """What another process makes of it; `sock` is closed by one of the two."""
    copy = sock.dup()
    other = endpoint_from(from_text(to_text(endpoint.state())), copy, FakeLayer.from_state)
    endpoint.let_go()
    return other, copy


@pytest.mark.parametrize("kind", ["plain", "UNIX"])
def test_a_bare_end_goes_on(kind):
    near, far = tcp_pair() if kind == "plain" else socket.socketpair()
    endpoint, sock = (PlainEndpoint if kind == "plain" else UnixEndpoint)(far), far
    room = memoryview(bytearray(100))
    with near:
        near.settimeout(5)
        for _ in range(3):
            near.sendall(b"down")
            endpoint, sock = moved(endpoint, sock)
            sock.setblocking(True)
            assert sock.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL) == b"down"
            sock.setblocking(False)
            assert endpoint.read_into(room) == 4
            assert endpoint.read_into(room) == NOTHING
            endpoint.write(memoryview(b"up"))
            assert near.recv(10) == b"up"
        endpoint.close()


@pytest.fixture
def wrapped():
    """A peer, an end with a layer, and its socket."""
    near, far = socket.socketpair()
    peer = SaslPeer(near, 1000)
    peer.settimeout(5)
    holder = [SaslEndpoint(UnixEndpoint(far), FakeLayer(1000)), far]
    yield peer, holder
    peer.close()
    holder[0].close()


def test_tokens_that_came_in_parts(wrapped):
    peer, holder = wrapped
    wire = peer.token(b"first") + peer.token(b"second")
    room = memoryview(bytearray(3))
    got = bytearray()
    for at in range(len(wire)):
        peer.sock.send(wire[at : at + 1])
        count = holder[0].read_into(room)
        holder[:] = moved(*holder)
        got += room[: max(count, 0)]
    while holder[0].pending:
        holder[:] = moved(*holder)
        assert holder[0].pending
        got += room[: holder[0].read_into(room)]
    assert got == b"firstsecond"
    assert holder[0].read_into(room) == NOTHING


def test_a_token_that_was_not_sent_whole(wrapped):
    peer, holder = wrapped
    holder[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    content = bytes(range(256)) * 400
    rest, got = memoryview(content), b""
    while len(got) < len(content):
        taken = holder[0].write(rest)
        rest = rest[taken:]
        if rest:
            assert holder[0].owed
        holder[:] = moved(*holder)
        got += peer.recv(700)
    assert got == content
    assert not rest


LAYER = {"longest_token": 1000, "wrapped": 0, "unwrapped": 0}
SOUND = {
    "kind": "sasl",
    "below": {"kind": "unix", "looks": True},
    "layer": LAYER,
    "held": b"",
    "plain": b"",
    "unsent": b"",
    "wrapped": 0,
}
UNSOUND = [
    ({"held": bytes(1 << 18)}, "held: has 262144 bytes"),
    ({"plain": "text"}, "plain: is no sequence of bytes"),
    ({"unsent": b"token"}, "wrapped: no token"),
    ({"unsent": b"token", "wrapped": 993}, "wrapped: no token"),
    ({"wrapped": -1}, "wrapped: is not between"),
    ({"wrapped": True}, "wrapped: is no whole number"),
    ({"below": {"kind": "sasl"}}, "unknown here"),
    ({"below": None}, "is no table"),
    ({"layer": 1}, "is no table"),
    ({"more": 1}, "'more' is unknown"),
]


@pytest.mark.parametrize(("change", "said"), UNSOUND)
def test_what_a_layer_cannot_hold_is_refused(change, said):
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(ValueError, match=said):
            endpoint_from({**SOUND, **change}, far, FakeLayer.from_state)
        assert endpoint_from(SOUND, far, FakeLayer.from_state).owed == 0


def test_tls_says_that_it_does_not_move():
    peer, endpoint = secured(*tcp_pair(), version=TLS_1_3)
    assert not TlsEndpoint.moves
    for method in (endpoint.state, endpoint.go_on, endpoint.let_go):
        with pytest.raises(NotImplementedError):
            method()
    peer.close()
    endpoint.close()
