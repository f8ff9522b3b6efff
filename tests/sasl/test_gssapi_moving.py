"""Layers of GSSAPI that move: the context of a client goes on elsewhere, amid its traffic."""

import hashlib
import random
import re
from contextlib import suppress

import pytest

import proxyd.sasl.gssapi as gssapi_module
from proxyd.endpoint.plain import PlainEndpoint
from proxyd.endpoint.sasl import SaslEndpoint
from proxyd.sasl.gssapi import GssapiServer, layer_from
from proxyd.sasl.keytab import Keytab
from proxyd.sasl.mechanism import BadToken
from tests.bed.kdc import Kdc
from tests.fakes.layer import framed
from tests.relay.frames import call, noise, reply
from tests.relay.moving import SaslSocket, Travelling, from_text, to_text
from tests.relay.session import tcp_pair, unix_pair
from tests.sasl.test_gssapi import SIZE, Client

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def kdc(tmp_path_factory):
    with Kdc(tmp_path_factory.mktemp("kdc")) as kdc, pytest.MonkeyPatch.context() as patch:
        kdc.add("joe", "libvirt/host.example")
        for name, value in kdc.environment.items():
            patch.setenv(name, value)
        yield kdc


@pytest.fixture(scope="module")
def keytab(kdc):
    return Keytab(str(kdc.keytab("libvirt/host.example")))


@pytest.fixture(scope="module")
def tickets(kdc):
    return kdc.tickets("joe")


@pytest.fixture
def client(tickets):
    return Client(tickets)


@pytest.fixture
def layer(keytab, client):
    return client.succeed(GssapiServer(keytab, confidentiality=True)).layer


def moved(layer):
    return layer_from(from_text(to_text(layer.state())))


def test_both_directions_go_on(layer, client):
    for _ in range(5):
        for content in (b"a", noise(layer.longest_plain)):
            assert layer.unwrap(client.context.encrypt(content)) == content
            assert client.context.decrypt(layer.wrap(content)) == content
        on_its_way = layer.wrap(b"wrapped before")
        sent = client.context.encrypt(b"sent before")
        before, layer = layer, moved(layer)
        assert client.context.decrypt(on_its_way) == b"wrapped before"
        assert layer.unwrap(sent) == b"sent before"
        assert (layer.longest_plain, layer.longest_token) == (before.longest_plain, SIZE)


def test_what_was_here_before_is_still_refused(layer, client):
    tokens = [client.context.encrypt(b"%d" % each) for each in range(3)]
    for token in tokens:
        layer.unwrap(token)
    for token in tokens:
        with pytest.raises(BadToken):
            moved(layer).unwrap(token)


def test_what_was_skipped_is_still_refused(layer, client):
    layer.unwrap(client.context.encrypt(b"first"))
    client.context.encrypt(b"second")
    with pytest.raises(BadToken):
        moved(layer).unwrap(client.context.encrypt(b"third"))


def test_once_its_state_is_taken_a_layer_is_of_no_use_until_it_goes_on(layer, client):
    assert layer.state() == layer.state()
    with pytest.raises(BadToken):
        layer.wrap(b"twice by the same number")
    with pytest.raises(BadToken):
        layer.unwrap(client.context.encrypt(b"to nobody"))
    layer.go_on()
    layer.go_on()
    assert client.context.decrypt(layer.wrap(b"from us")) == b"from us"


def test_a_context_that_is_damaged_never_gets_to_the_library(layer):
    state = layer.state()
    seed = random.Random(7)
    for _ in range(200):
        damaged = bytearray(state["context"])
        damaged[seed.randrange(len(damaged))] ^= 1 << seed.randrange(8)
        with pytest.raises(ValueError, match="damaged"):
            layer_from({**state, "context": bytes(damaged)})
    for other in ({}, {**state, "more": 1}, {**state, "longest_plain": 1 << 20}):
        with pytest.raises(ValueError, match=r"missing|unknown|between"):
            layer_from(other)


class ClientsLayer:
    """The client's side of the context, as a peer on a socket wants it."""

    longest_plain = 60_000

    def __init__(self, client):
        self.wrap = client.context.encrypt
        self.unwrap = client.context.decrypt


@pytest.fixture
def session(layer, client):
    pairs = []

    def pair():
        if pairs:
            return unix_pair()
        near, far = tcp_pair()
        near = SaslSocket(near, SIZE)
        near.layer = ClientsLayer(client)
        pairs.append(near)
        return near, far

    session = Travelling(
        pair=pair,
        client_end=lambda sock: SaslEndpoint(PlainEndpoint(sock), layer),
        layer_from=layer_from,
    )
    yield session
    session.close()


def test_a_session_goes_on_amid_its_traffic(session):
    up = [call(serial, noise(serial * 7_000, serial)) for serial in range(20)]
    down = [reply(serial, noise(serial * 9_000, serial)) for serial in range(20)]
    ways = [[session.client, b"".join(up)], [session.daemon, b"".join(down)]]
    seed = random.Random(3)

    def converse():
        for way in ways:
            with suppress(BlockingIOError):
                way[1] = way[1][way[0].send(way[1][: seed.randrange(1, 40_000)]) :]
        session.turn(seed.randrange(3))
        assert session.move()
        session.at_client.take(seed.randrange(50_000))
        session.at_daemon.take(seed.randrange(50_000))
        return (session.at_daemon.wires, session.at_client.wires) == (up, down)

    session.turn_until(converse)
    assert session.moves > 20


def test_a_token_that_comes_again_behind_a_move_ends_the_session(session):
    token = framed(session.client.layer.wrap(call(1)))
    session.client.sock.send(token)
    session.turn_until(lambda: (session.relay(), session.at_daemon.wires)[1])
    assert session.move()
    session.client.sock.send(token)
    session.turn_until(lambda: (session.relay(), session.at_daemon.ended)[1])
    assert session.at_daemon.wires == [call(1)]
    assert "SASL: A later token has already been processed" in session.reason


def test_a_context_of_another_library_is_not_taken_up(monkeypatch):
    """libkrb5 trusts its own form, which need not be that of what has replaced it meanwhile."""
    monkeypatch.setattr(gssapi_module, "_imported", lambda exported: exported)
    known = gssapi_module._library()
    assert re.fullmatch(r"\S+ [1-9]\d*", known)
    context = b"of a context"
    state = {
        "context": context,
        "digest": hashlib.sha256(context).digest(),
        "library": known,
        "longest_plain": 65000,
    }
    assert layer_from(state)._context == context
    with pytest.raises(ValueError, match="another libkrb5"):
        layer_from({**state, "library": "08:01 17"})
